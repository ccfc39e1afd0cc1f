"""Bugs in how somebody is erased: who comes back, who is not found, and what stays readable."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

_SLICE: Final = "worker/core/slice.py"
_SUPPRESSION: Final = "worker/core/suppression.py"
_UNIT: Final = ("tests/unit/core/test_suppression.py",)
_FLUSH: Final = ("tests/integration/flush/test_suppressed.py",)
_COMMAND: Final = ("tests/integration/commands/test_erase.py",)

ERASING: Final = (
    Mutant(
        "upsert_slips_past_suppression",
        "a request that was made before somebody was erased goes out after it",
        (
            Patch(
                "worker/store/lua/gate_enter.lua", "if known[8] or (known[9] or '') ~= ARGV[5] then", "if known[8] then"
            ),
            Patch(
                "tests/simulation/scripts_model.py",
                'if paused or (suppression or b"") != bytes_of(argv[4]):',
                "if paused:",
            ),
        ),
        integration=_FLUSH,
    ),
    Mutant(
        "waiting_upsert_slips_past_suppression",
        "only what is read of the log is refused; what waits already goes out",
        (
            Patch(
                _SLICE,
                "suppression.among(chain(log.each_pair(), self.pending, self.marks), now_ms)",
                "suppression.among(chain(log.each_pair(), self.marks), now_ms)",
            ),
        ),
        unit=_UNIT,
        integration=_FLUSH,
    ),
    Mutant(
        "late_request_brings_back",
        "a request without an answer may bring back somebody who was erased, of whom nothing is remembered",
        (
            Patch(
                _SLICE,
                "            if pair in self.suppressed:\n                self.repairs",
                "            if False:\n                self.repairs",
            ),
        ),
        unit=_UNIT,
        integration=_FLUSH,
    ),
    Mutant(
        "lost_worker_brings_back",
        "an upsert is refused that a worker may have sent whose lease expired, and nobody looks after it",
        (
            Patch(
                "worker/core/settlement.py",
                "                into.late += (pair, max(part.late_until_ms, result.now_ms), 0)\n            _leave",
                "                pass\n            _leave",
            ),
        ),
        unit=_UNIT,
        integration=_FLUSH,
    ),
    Mutant(
        "delivered_by_a_lost_worker_long_ago",
        "an upsert is refused that a lost worker has delivered, once that worker can act no longer",
        (
            Patch(
                "worker/core/settlement.py",
                "(part.late_until_ms > result.begun_ms or _perhaps_sent(part, pair))",
                "part.late_until_ms > result.begun_ms",
            ),
        ),
        unit=_UNIT,
        integration=_FLUSH,
    ),
    Mutant(
        "late_mark_lost_to_another_request",
        "that a delete must follow is forgotten if a request of the same round has no answer",
        (Patch("worker/delivery/settle.py", "late[i] += _marks(", "late[i] = _marks("),),
        integration=_FLUSH,
    ),
    Mutant(
        "contact_side_not_suppressed",
        "whoever was erased comes back as a contact",
        (Patch(_SUPPRESSION, "for user in (owner, contact):", "for user in (owner,):"),),
        unit=_UNIT,
        integration=_FLUSH,
    ),
    Mutant(
        "contact_side_not_found",
        "somebody is erased as owner only",
        (
            Patch(
                "worker/admin/traces.py",
                "if any(map(self._matches, split_pair(pair)))]",
                "if self._matches(split_pair(pair)[0])]",
            ),
        ),
        integration=_COMMAND,
    ),
    Mutant(
        "hash_without_key",
        "the hash of an id can be found by trying all ids",
        (
            Patch(
                _SUPPRESSION,
                'return hmac.digest(key, user, "sha256").hex().encode()',
                'return hmac.digest(b"", user, "sha256").hex().encode() if key or True else b""',
            ),
        ),
        unit=_UNIT,
        simulated=False,
    ),
    Mutant(
        "refused_delete_of_who_was_erased_is_forgotten",
        "a delete that follows a late request is given up once the endpoint refuses it, although the person is there",
        (Patch("worker/core/settlement.py", "return known and pair not in part.suppressed", "return known"),),
        unit=_UNIT,
        integration=_FLUSH,
    ),
    Mutant(
        "ledger_keeps_who_was_erased",
        "what is confirmed of somebody who was erased stays in a ledger",
        (
            Patch("worker/store/lua/settle.lua", "each_chunk('HDEL', KEYS[6], forget_first, forget_last)\n", ""),
            Patch(
                "tests/simulation/scripts_model.py",
                "        redis.hdel(ledger_old, pair)\n    for each, keep",
                "    for each, keep",
            ),
        ),
        integration=(*_FLUSH, *_COMMAND),
        simulated=False,
    ),
)
