"""Makes the story of a failing seed as short as it can: fewer draws, plainer ones, and the same invariant broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.chance import Retold
from tests.simulation.simulation import Told, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.simulation.chance import Chance


def shrink(failing: Chance, until: Callable[[], bool]) -> list[int]:
    """The plainest draws found that break the same invariant.

    Args:
        failing: of a world that fails.
        until: whether time is up; what was found by then is good.
    """
    told = simulate(failing)
    kind = told.violations[0].kind
    best = _plain_end(told.taken)
    shorter = True
    while shorter and not until():
        shorter = False
        for candidate in _shorter(best):
            if until():
                break
            tried = simulate(Retold(candidate, erases=failing.erases))
            if _fails(tried, kind) and _weight(_plain_end(tried.taken)) < _weight(best):
                best, shorter = _plain_end(tried.taken), True
                break
    return best


def _fails(told: Told, kind: str) -> bool:
    return any(each.kind == kind for each in told.violations)


def _weight(draws: Sequence[int]) -> tuple[int, int, int]:
    """What is told in fewer draws that are not plain is the shorter story."""
    return sum(map(bool, draws)), len(draws), sum(draws)


def _plain_end(draws: Sequence[int]) -> list[int]:
    """Without the zeros at the end, which are drawn anyway."""
    end = len(draws)
    while end and not draws[end - 1]:
        end -= 1
    return list(draws[:end])


def _shorter(draws: list[int]) -> Iterator[list[int]]:
    """First large pieces left out, then made plain, then smaller ones; at last single draws lowered."""
    size = len(draws) // 2
    while size:
        for first in range(0, len(draws), size):
            yield draws[:first] + draws[first + size :]
            if any(draws[first : first + size]):
                yield draws[:first] + [0] * min(size, len(draws) - first) + draws[first + size :]
        size //= 2
    for i, value in enumerate(draws):
        if value > 1:
            yield [*draws[:i], value // 2, *draws[i + 1 :]]
