"""Bugs in what is decided of a pair: joining, staleness, verdict, ledger, records."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

JOIN: Final = "worker/core/pair.py"
FAST_PATH: Final = "worker/core/fast_path.py"
SLICE: Final = "worker/core/slice.py"
BATCH: Final = "worker/core/batch.py"

RULES: Final = (
    Mutant(
        "last_write_wins",
        "of two changes the one that was appended later counts, whatever their times and ops",
        (
            Patch(
                JOIN,
                "    return PairState(delete, upsert, max(a.suspect, b.suspect), refused)",
                "    return b",
            ),
        ),
        unit=("tests/unit/core/test_pair.py",),
    ),
    Mutant(
        "unknown_order_against_ledger",
        "an upsert without `at` loses to a delete that was confirmed before it came",
        (
            Patch(
                JOIN,
                "    return PairState(delete, upsert, state.suspect, state.refused)\n",
                "    if upsert is not None and not upsert.at and ledger.op == 'delete':\n"
                "        upsert = None\n"
                "    return PairState(delete, upsert, state.suspect, state.refused)\n",
            ),
        ),
        unit=("tests/unit/core/test_pair.py",),
    ),
    Mutant(
        "one_value_a_side",
        "a side of the state keeps the newest change only, with or without `at`",
        (
            Patch(
                JOIN,
                "    return Side(min(a.first_ms, b.first_ms), max(a.at, b.at), max(a.entry_ms, b.entry_ms), newest[1])",
                "    at, entry_ms = max(a.at, b.at), max(a.entry_ms, b.entry_ms)\n"
                "    at, entry_ms = (at, 0) if at >= entry_ms else (0, entry_ms)\n"
                "    return Side(min(a.first_ms, b.first_ms), at, entry_ms, newest[1])",
            ),
        ),
        unit=("tests/unit/core/test_pair.py", "tests/unit/core/test_pair_brute_force.py"),
    ),
    Mutant(
        "equal_times_let_the_upsert_win",
        "an upsert with the very `at` of a delete counts as later",
        (
            Patch(
                JOIN,
                "known_later = not delete.entry_ms and upsert.at > delete.at",
                "known_later = not delete.entry_ms and upsert.at >= delete.at",
            ),
        ),
        unit=("tests/unit/core/test_pair.py",),
    ),
    Mutant(
        "ledger_off",
        "nothing is remembered of what was confirmed",
        (
            Patch(
                SLICE,
                "known = None if stored is None else decode_remembered(stored)",
                "known: Remembered | None = None",
            ),
        ),
        unit=("tests/unit/core/test_slice.py",),
        integration=("tests/integration/flush/test_rules.py", "tests/integration/flush/test_state.py"),
    ),
    Mutant(
        "fast_path_takes_stale",
        "on the fast path an upsert is sent that a later one was confirmed before",
        (Patch(FAST_PATH, "(at > delete_at and at > upsert_at)", "at > delete_at"),),
        unit=("tests/unit/core/test_fast_path.py",),
    ),
    Mutant(
        "fast_path_untimed_delete",
        "on the fast path a delete without `at` is remembered without the time of its entry",
        (Patch(FAST_PATH, 'b"d%b," % max(said[0], said[2])', 'b"d%b," % said[0]'),),
        unit=("tests/unit/core/test_fast_path.py",),
    ),
    Mutant(
        "superseded_forgotten",
        "the ledger remembers what was confirmed, not what that superseded",
        (
            Patch(
                JOIN,
                'if upsert is not None and (of.op == "upsert" or of.superseded):',
                'if upsert is not None and of.op == "upsert":',
            ),
        ),
        unit=("tests/unit/core/test_pair.py",),
    ),
    Mutant(
        "later_upsert_dropped",
        "an upsert that is known to be later than a delete is not sent after it",
        (
            Patch(
                JOIN,
                'return Verdict("delete", fresh, rest, 0, stale)',
                'return Verdict("delete", fresh, None, 1, stale)',
            ),
        ),
        unit=("tests/unit/core/test_pair.py",),
    ),
    Mutant(
        "pair_twice_in_a_request",
        "a delete and the upsert that is later than it go out in the same request",
        (
            Patch(
                BATCH,
                '        (upserts if slices[i].verdicts[pair].op == "upsert" else deletes).append(pair)\n',
                '        (upserts if slices[i].verdicts[pair].op == "upsert" else deletes).append(pair)\n'
                "        if slices[i].verdicts[pair].rest is not None:\n"
                "            upserts.append(pair)\n",
            ),
        ),
        unit=("tests/unit/core/test_batch.py",),
    ),
    Mutant(
        "deletes_first",
        "a request says deletes before upserts",
        (
            Patch(
                BATCH,
                'b"," if upserts and deletes else b"", deletes)',
                'b"," if upserts and deletes else b"", upserts)',
            ),
            Patch(BATCH, "% (upserts, b", "% (deletes, b"),
        ),
        unit=("tests/unit/core/test_batch.py",),
    ),
    Mutant(
        "lane_order_decides",
        "what the bulk lane says of a pair replaces what was said live",
        (Patch(SLICE, "self.states[pair] = join(state, other)", "self.states[pair] = other"),),
        integration=("tests/integration/flush/test_lanes.py",),
    ),
    Mutant(
        "owners_in_one_heap",
        "the pairs of an owner with very many wait among those of all others",
        (Patch("worker/core/lane.py", '+ 2 * (op == "upsert") + heavy', '+ 2 * (op == "upsert") + 0 * heavy'),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "crowded_log_in_order",
        "a log that one owner crowds is sent in its order",
        (Patch("worker/core/round.py", "(lease.crowded or lease.hurries)", "lease.hurries"),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "deletes_in_the_head_alone",
        "a live delete is found only in the head of its log",
        (
            Patch("worker/store/delete_scan.py", "insort(self.deletes, _order(entry_id)[0])", "pass"),
            Patch("worker/core/round.py", "lease.crowded or lease.hurries", "lease.crowded"),
        ),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "deletes_in_short_logs_in_order",
        "a live delete is looked for only in logs that are long themselves, although much waits in many short ones",
        (
            Patch(
                "worker/core/backlog.py",
                "sum(each.entries for each in self.waiting) >",
                "max((each.entries for each in self.waiting), default=0) >",
            ),
        ),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "short_logs_sent_whole",
        "while the rate binds, short logs are sent whole instead of being read ahead",
        (
            Patch(
                "worker/core/round.py",
                "sum(each.waiting + each.bulk_waiting for each in self.leases) > self.limit",
                "max(lease.waiting, lease.bulk_waiting) > self.limit",
            ),
        ),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "bulk_beside_live_fills",
        "bulk that lies beside live fills requests although live waits in other partitions",
        (Patch("worker/core/reach.py", "(min(bulk, self.bulk) if live_waits else bulk)", "bulk"),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "released_deletes_forgotten",
        "with a rate, live deletes that a request had no room for wait for the next scan of all partitions",
        (Patch("worker/delivery/claims.py", "self._choice.outdated = True", "pass"),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "full_logs_in_order",
        "a log full of deletes is sent in its order although a rate, or a slow endpoint, bounds what is delivered",
        (Patch("worker/store/delete_scan.py", "if not may:", "if False:"),),
        integration=("tests/integration/store/test_delete_scan.py",),
        simulated=False,
    ),
    Mutant(
        "workers_always_bound",
        "workers are always thought to bound what is delivered, also at a slow endpoint or one that limits",
        (Patch("worker/process/ticker.py", "in_order=gate.takes_all(batch_size)", "in_order=True"),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "deletes_behind_what_waits",
        "a live delete is not read while what was read before fills the requests",
        (Patch("worker/core/round.py", "(full and 0 < lease", "(full and 0 > lease"),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "bulk_starves",
        "bulk gets nothing while anything live waits",
        (Patch(BATCH, "(min(bulk, bulk_share) if each in LIVE else 0)", "0"),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
    Mutant(
        "live_starves",
        "bulk is chosen before live",
        (Patch(BATCH, "for each, some in classes.items():", "for each, some in reversed([*classes.items()]):"),),
        integration=("tests/integration/flush/test_lanes.py",),
        simulated=False,
    ),
)
