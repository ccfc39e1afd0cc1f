"""Everything that is left to chance, from one seed: drawn, kept, and drawn again just so."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

Item = TypeVar("Item")


class Chance:
    """Draws by a seed.

    Attributes:
        taken: every draw so far, in order: a story is told by them alone.
        erases: whether it is for a world in which somebody is erased.
    """

    def __init__(self, seed: int, *, erases: bool = False) -> None:
        self.erases = erases
        self.taken: list[int] = []
        self._random = Random(seed).random

    def below(self, end: int) -> int:
        """A number from 0 on; 0 is always the plainest choice, so that stories shrink towards it."""
        value = int(self._random() * end)
        self.taken.append(value)
        return value

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return self.below(1024) / 1024

    def one_of(self, items: Sequence[Item]) -> Item:
        """One of them; the first is the plainest."""
        return items[self.below(len(items))]

    def one_in(self, n: int) -> bool:
        """True once in so many draws; the plain answer is no."""
        return self.below(n) == n - 1


class Retold(Chance):
    """The draws of a story that was told before, perhaps shortened; where they end, all is plain."""

    def __init__(self, taken: Sequence[int], *, erases: bool = False) -> None:
        super().__init__(0, erases=erases)
        self._left = iter(taken)

    def below(self, end: int) -> int:
        """The next draw, as far as it fits."""
        value = min(next(self._left, 0), end - 1)
        self.taken.append(value)
        return value
