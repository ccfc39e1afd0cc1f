"""Bugs in the fleet's rate and in the places of its requests under way."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

RATE: Final = "worker/core/rate.py"
FLOW: Final = "worker/core/flow.py"
LUA: Final = "worker/store/lua/pace.lua"
REPORT: Final = "worker/store/lua/gate_report.lua"
GATE: Final = "worker/store/gate.py"

PACE: Final = (
    Mutant(
        "rate_raised_unbound",
        "the rate is raised in every second in which something is confirmed, whether it binds or not",
        (
            Patch(
                RATE,
                "        if binds:\n            self.excess",
                "        if self.confirmed > 0:\n            self.excess",
            ),
            Patch(LUA, "  if binds then\n", "  if pace.confirmed > 0 then\n"),
        ),
        unit=("tests/unit/core/test_rate.py",),
        simulated=False,
    ),
    Mutant(
        "first_429_halves",
        "the first 429 leaves half of what was confirmed before it",
        (
            Patch(RATE, "self.rate = max(lately, 1.0) * MOST_SHARE", "self.rate = max(lately, 1.0) * 0.5"),
            Patch(LUA, "pace.rate = math.max(lately, 1) * 0.96", "pace.rate = math.max(lately, 1) * 0.5"),
        ),
        unit=("tests/unit/core/test_rate.py",),
        simulated=False,
    ),
    Mutant(
        "early_429_is_of_a_bucket",
        "a few requests that arrive late after the first estimate lower the rate as an empty bucket does",
        (
            Patch(RATE, "early = 1.0 if average < base * APART_SHARE else EARLY_SHARE", "early = EARLY_SHARE"),
            Patch(LUA, "local early = average < base * 0.7 and 1 or 0.85", "local early = 0.85"),
        ),
        unit=("tests/unit/core/test_rate_limiters.py",),
        simulated=False,
    ),
    Mutant(
        "places_without_a_time",
        "a request goes out as soon as it is prepared, and not at its time",
        (Patch("worker/store/lua/gate_ask.lua", "return answer('go', start_ms)", "return answer('go', 0)"),),
        integration=("tests/integration/store/test_gate_flow.py",),
        simulated=False,
    ),
    Mutant(
        "requests_before_their_time",
        "a worker sends a request as soon as it is prepared",
        (Patch("worker/delivery/request.py", "        if early > 0:\n", "        if early > 60:\n"),),
        integration=("tests/integration/delivery/test_request.py",),
        simulated=False,
    ),
    Mutant(
        "rate_of_each_process",
        "each process keeps a pace and places of its own",
        (
            Patch(
                GATE,
                "self._run(scripts.GATE_ASK, args)",
                'scripts.run_one(self._client, scripts.Call(scripts.GATE_ASK, [f"{self._key}:{id(self)}"], args))',
            ),
        ),
        integration=("tests/integration/store/test_gate_flow.py",),
        simulated=False,
    ),
    Mutant(
        "places_of_the_dead",
        "the place of a request whose process died is never free again",
        (
            Patch(FLOW, "    while first < len(requests) and int(", "    while not requests and int("),
            Patch(LUA, "  while first < #requests and ", "  while requests == '' and "),
        ),
        integration=("tests/integration/store/test_gate_flow.py",),
    ),
    Mutant(
        "rate_lowered_by_each_429",
        "every 429 lowers the rate, not one for each generation of the gate",
        (
            Patch(
                LUA.replace("pace", "gate_report"),
                "what == 'limited' and current and state",
                "what == 'limited' and state",
            ),
            Patch(FLOW, "return limited and open_and_current and self", "return limited and self"),
        ),
        integration=("tests/integration/store/test_gate_flow.py",),
        simulated=False,
    ),
)
