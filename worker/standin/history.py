"""A history with a bound: the newest stays, the oldest goes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

HISTORY_RECORDS = 100_000
"""Most records that one history remembers unless told otherwise."""

Item = TypeVar("Item")


class History(Generic[Item]):
    """Items in the order they came, forgotten from the oldest on.

    An item weighs as many records as it holds, one at least, so that requests without any are bounded too.
    Whole items are forgotten; the newest stays, however heavy.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[Item, int]] = deque()
        self._weight = 0

    def append(self, item: Item, records: int) -> None:
        """Adds an item of so many records, and forgets what is too much."""
        weight = max(records, 1)
        self._items.append((item, weight))
        self._weight += weight
        while self._weight > self._limit and len(self._items) > 1:
            self._weight -= self._items.popleft()[1]

    def clear(self) -> None:
        """Forgets everything."""
        self._items.clear()
        self._weight = 0

    def __iter__(self) -> Iterator[Item]:
        # Over a copy of the references: the history may grow while a long answer is being sent.
        return iter([item for item, _ in self._items])
