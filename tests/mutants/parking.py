"""Planted bugs of parking, and of what goes on while records are refused."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

_PARTITIONS: Final = "worker/store/partitions.py"
_SETTLEMENT: Final = "worker/core/settlement.py"
_PARKED: Final = ("tests/integration/flush/test_parked.py",)

PARKING: Final = (
    Mutant(
        "parked_after_the_settle",
        "a pair is parked after the settle that ended its wait: a crash between the two loses it",
        (
            Patch(_PARTITIONS, "        counts += [len(each.park) // 2, len", "        counts += [0, len"),
            Patch(_PARTITIONS, "[*each.park, *each.unpark", "[*each.unpark"),
            Patch(
                "tests/simulation/redis_model.py",
                '    "HSCAN": RedisModel.hscan_raw,\n',
                '    "HSCAN": RedisModel.hscan_raw,\n    "HSET": RedisModel.hset,\n',
            ),
            Patch(
                _PARTITIONS,
                "        settled = zip(leases, settlements, replies[: len(calls)], strict=True)\n",
                "        settled = zip(leases, settlements, replies[: len(calls)], strict=True)\n"
                "        for lease, each in zip(leases, settlements, strict=True):\n"
                "            if each.park:\n"
                "                p, k = lease.partition, self._keys\n"
                "                due = ('HSET', k.partition(p), 'parked_due', 1)\n"
                "                round_trip(self._client, [('HSET', k.parked(p), *each.park), due])\n",
            ),
        ),
        integration=(*_PARKED, "tests/integration/store/test_settle_keeps.py"),
    ),
    Mutant(
        "parked_upsert_outlives_a_delete",
        "what is parked of a pair is not recalled when a newer change of it is read",
        (
            Patch(
                _PARTITIONS,
                "        if lease.parked:\n            yield 4,",
                "        if lease.parked < 0:\n            yield 4,",
            ),
        ),
        integration=_PARKED,
    ),
    Mutant(
        "parked_for_ever",
        "nothing wakes the fleet when a parked pair is to be tried again",
        (
            Patch(
                "worker/core/backlog.py",
                "for due_ms in (self.late_due_ms, self.parked_due_ms) if due_ms]",
                "for due_ms in (self.late_due_ms,) if due_ms]",
            ),
        ),
        integration=_PARKED,
    ),
    Mutant(
        "parked_tries_come_first",
        "parked pairs that are due are tried before everybody else",
        (
            Patch(
                "worker/core/batch.py",
                '    if again and (not fresh or turn == "any" or',
                "    if again and (fresh or not fresh or",
            ),
            Patch("worker/core/round.py", 'retries = sends and (self.turn == "any" or not busy)', "retries = sends"),
        ),
        integration=_PARKED,
        simulated=False,
    ),
    Mutant(
        "rotation_forgets_parked_pairs",
        "a ledger that rotates forgets what was confirmed of parked pairs",
        (
            Patch(
                "worker/store/lua/settle.lua",
                "KEYS[6], { late, parked }, known[3]",
                "KEYS[6], { late }, known[3]",
            ),
        ),
        integration=_PARKED,
        simulated=False,
    ),
    Mutant(
        "repair_of_a_parked_pair",
        "what was confirmed before is sent once more although a newer change of the pair is parked",
        (
            Patch(
                "worker/core/slice.py",
                "                if known is None or known.op != newer:\n",
                "                if known is None:\n",
            ),
        ),
        integration=_PARKED,
    ),
    Mutant(
        "parked_beside_older_workers",
        "a new worker parks an upsert, an older one confirms a newer delete past it, and the upsert comes after that",
        (Patch("worker/store/partitions.py", "        return not self.one_pending\n", "        return True\n"),),
        integration=("tests/integration/store/test_log_form.py",),
        simulated=False,
    ),
    Mutant(
        "refused_without_room_is_repeated",
        "a refused record that may neither be parked nor become a dead letter takes the place of all others",
        (
            Patch(
                "worker/delivery/request.py",
                " or any(chosen and lease.letters_room <= 0 for lease, chosen in alone)",
                "",
            ),
        ),
        integration=("tests/integration/store/test_log_form.py",),
        simulated=False,
    ),
    Mutant(
        "parked_pair_is_never_repaired",
        "a late request undid a delete, and nothing says so again while a newer delete is parked",
        (
            Patch(
                "worker/core/slice.py",
                "                if known is None or known.op != newer:\n",
                "                if known is None or newer is not None:\n",
            ),
        ),
        unit=("tests/unit/core/test_slice.py",),
        integration=_PARKED,
        simulated=False,
    ),
    Mutant(
        "buried_pair_is_never_repaired",
        "a late request undid what was confirmed, and nothing says so again once the parked record is buried",
        (Patch("worker/admin/parked.py", "            part.past.clear()", "            part.past"),),
        integration=_PARKED,
        simulated=False,
    ),
    Mutant(
        "probe_repeats_what_was_refused",
        "a probe of an endpoint that refuses everything tries the same record again and again",
        (Patch(_SETTLEMENT, "suspect=-(refusals + 1))", "suspect=-1)"),),
        unit=("tests/unit/core/test_settlement.py", "tests/unit/core/test_batch.py"),
        integration=("tests/integration/flush/test_poison.py",),
        simulated=False,
    ),
)
