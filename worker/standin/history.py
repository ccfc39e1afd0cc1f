"""A bounded history: the oldest items are removed first."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

HISTORY_RECORDS = 100_000
"""Default limit of records in one history."""

Item = TypeVar("Item")


class History(Generic[Item]):
    """Items in the order of their arrival, removed from the oldest on.

    An item counts as its number of records, at least one, so that requests without records are bounded too. Only whole
    items are removed; the newest always stays.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[Item, int]] = deque()
        self._weight = 0

    def append(self, item: Item, records: int) -> None:
        """Adds an item with this number of records, and removes old items beyond the limit."""
        weight = max(records, 1)
        self._items.append((item, weight))
        self._weight += weight
        while self._weight > self._limit and len(self._items) > 1:
            self._weight -= self._items.popleft()[1]

    def clear(self) -> None:
        """Removes all items."""
        self._items.clear()
        self._weight = 0

    def __iter__(self) -> Iterator[Item]:
        # Over a copy of the references: the history may grow while a long answer is sent.
        return iter([item for item, _ in self._items])
