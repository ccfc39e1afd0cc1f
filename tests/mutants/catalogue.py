"""Every planted bug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.mutants.answers import ANSWERS
from tests.mutants.backup import BACKUP
from tests.mutants.capture import CAPTURE
from tests.mutants.erasing import ERASING
from tests.mutants.nodes import NODES
from tests.mutants.pace import PACE
from tests.mutants.parking import PARKING
from tests.mutants.rules import RULES
from tests.mutants.scaling import SCALING
from tests.mutants.steps import STEPS
from tests.mutants.surroundings import SURROUNDINGS
from tests.mutants.upgrade import UPGRADE

if TYPE_CHECKING:
    from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *RULES,
    *STEPS,
    *ANSWERS,
    *SURROUNDINGS,
    *PACE,
    *SCALING,
    *PARKING,
    *UPGRADE,
    *BACKUP,
    *NODES,
    *ERASING,
    *CAPTURE,
)
