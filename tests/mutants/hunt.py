"""Hunting one planted bug: the checks that must see it, in order of cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.mutants.checks import CheckFailed, Seen, run_simulation, run_tests
from tests.mutants.mutant import DoesNotApply
from tests.mutants.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutants.mutant import Mutant

_TESTS_SECONDS: Final = 600.0
_SIMULATION_SECONDS: Final = 900.0


class Caught(NamedTuple):
    """What became of one planted bug.

    Attributes:
        name: of it.
        why: what it breaks.
        by: the first check that saw it, empty where none did.
        seeds: after how many worlds the simulation saw it; None where it did not.
        asked: how many worlds it was asked for, 0 where it never meets the code.
        seconds: how long all of its checks took.
        trouble: why they could not be run, if so.
    """

    name: str
    why: str
    by: str
    seeds: int | None
    asked: int
    seconds: float
    trouble: str = ""

    @property
    def good(self) -> bool:
        """Whether it was seen."""
        return bool(self.by) and not self.trouble


@dataclass(slots=True)
class _Found:
    by: str = ""
    seeds: int | None = None
    seconds: float = 0.0

    def add(self, seen: Seen) -> None:
        self.by = self.by or seen.by
        self.seeds = self.seeds or seen.seeds
        self.seconds += seen.seconds


def hunt(mutant: Mutant, seeds: int) -> Caught:
    """Plants the bug in a copy and runs the checks until one is red; the simulation in any case, if it meets it.

    Args:
        mutant: the bug.
        seeds: most worlds to live.
    """
    asked, found, trouble = seeds if mutant.simulated else 0, _Found(), ""
    try:
        with Tree() as tree:
            mutant.plant(tree.root)
            if mutant.unit:
                found.add(run_tests(tree, mutant.unit, _TESTS_SECONDS))
            if mutant.simulated:
                found.add(run_simulation(tree, seeds, _SIMULATION_SECONDS))
            if mutant.integration and not found.by:
                found.add(run_tests(tree, mutant.integration, _TESTS_SECONDS))
    except (CheckFailed, DoesNotApply) as error:
        trouble = str(error)
    return Caught(mutant.name, mutant.why, found.by, found.seeds, asked, round(found.seconds, 1), trouble)


def without_bug(mutants: Sequence[Mutant], seeds: int) -> str:
    """Runs all of their checks on a copy without a bug: what is red there proves nothing; empty where all are green.

    Raises:
        CheckFailed: they could not be run.
    """
    tests = dict.fromkeys(test for mutant in mutants for test in (*mutant.unit, *mutant.integration))
    with Tree() as tree:
        red = run_tests(tree, [*tests], 6 * _TESTS_SECONDS).by if tests else ""
        if not red and any(mutant.simulated for mutant in mutants):
            red = run_simulation(tree, seeds, _SIMULATION_SECONDS).by
    return red
