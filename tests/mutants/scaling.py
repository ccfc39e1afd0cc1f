"""Bugs in the number of workers that are wanted."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

CORE: Final = "worker/core/scaling.py"
UNIT: Final = ("tests/unit/core/test_scaling.py",)

SCALING: Final = (
    Mutant(
        "scaled_against_a_closed_gate",
        "more workers are wanted while the endpoint is away",
        (Patch(CORE, "return self.rate_binds or not self.gate_open", "return self.rate_binds"),),
        unit=UNIT,
        simulated=False,
    ),
    Mutant(
        "fewer_workers_at_once",
        "a moment in which fewer workers are needed ends some of them",
        (Patch(CORE, "load.now_ms - since < DOWN_MS", "load.now_ms - since < EVERY_MS"),),
        unit=UNIT,
        simulated=False,
    ),
    Mutant(
        "scaling_forgotten",
        "the decision is not kept: each one who asks begins with the workers that are seen",
        (
            Patch(
                "worker/admin/scaling.py",
                "[namespace.keys.scaling], [_FIELD, note]",
                "[namespace.keys.scaling], [note[:1], note]",
            ),
        ),
        integration=("tests/integration/serve/test_numbers.py",),
        simulated=False,
    ),
)
