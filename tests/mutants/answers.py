"""Bugs in how the endpoint's answers, and its silence, are taken."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

OUTCOME: Final = "worker/core/outcome.py"
ENDPOINT: Final = "worker/delivery/endpoint.py"
UNIT: Final = ("tests/unit/core/test_outcome.py",)

ANSWERS: Final = (
    Mutant(
        "error_in_a_200_confirms",
        "HTTP status 200 confirms, whatever the envelope says",
        (
            Patch(
                OUTCOME,
                "if answer.status == 200 and answer.readable and (success := read_success(answer.body)):\n"
                "        return Confirmed(inserted=success.data.inserted, deleted=success.data.deleted)",
                "if answer.status == 200:\n"
                "        success = read_success(answer.body)\n"
                "        data = success.data if success else None\n"
                "        return Confirmed(data.inserted, data.deleted) if data else Confirmed(0, 0)",
            ),
        ),
        unit=UNIT,
    ),
    Mutant(
        "any_4xx_is_dead",
        "a 4xx that says nothing of a record makes dead letters",
        (
            Patch(
                OUTCOME,
                "case _ if 400 <= status <= 499:\n            return _Claim.HOLD",
                "case _ if 400 <= status <= 499:\n            return _Claim.REJECTED",
            ),
        ),
        unit=UNIT,
    ),
    Mutant(
        "a_401_is_dead",
        "a key that is refused makes dead letters",
        (
            Patch(
                OUTCOME,
                "case 401 | 403 | 491:\n            return _Claim.CREDENTIALS",
                "case 401 | 403 | 491:\n            return _Claim.REJECTED",
            ),
            Patch(
                OUTCOME,
                'code):\n        return _Claim.CREDENTIALS\n    if re.fullmatch(r"4920',
                'code):\n        return _Claim.REJECTED\n    if re.fullmatch(r"4920',
            ),
        ),
        unit=UNIT,
    ),
    Mutant(
        "silence_is_no_doubt",
        "a request that was sent and not answered counts as never sent",
        (
            Patch(
                OUTCOME,
                "ambiguous=answer.sent, error=sanitize(answer.why)",
                "ambiguous=False, error=sanitize(answer.why)",
            ),
        ),
        unit=UNIT,
    ),
    Mutant(
        "no_total_deadline",
        "the HTTP timeout bounds each wait by itself, not the request",
        (
            Patch(ENDPOINT, "                network_backend=DeadlineBackend(monotonic),\n", ""),
            Patch(
                ENDPOINT,
                'timeout = {"connect": deadline, "write": deadline, "read": deadline, "pool": deadline - now}',
                'timeout = dict.fromkeys(("connect", "write", "read", "pool"), deadline - now)',
            ),
        ),
        integration=("tests/integration/delivery/test_deadline.py",),
        simulated=False,
    ),
)
