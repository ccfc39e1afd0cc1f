"""What the keys of the Redis model hold."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable


def bytes_of(value: Any) -> bytes:
    """An argument as it goes over the wire."""
    if type(value) is bytes:
        return value
    return value.encode() if type(value) is str else b"%d" % value


Hash: TypeAlias = dict[bytes, bytes]


class Text(NamedTuple):
    """A string, and when it expires (Unix ms), None for never."""

    value: bytes
    expires_ms: int | None = None


def entry_id(raw: bytes) -> tuple[int, int]:
    """An entry's id as numbers; without the second part it is 0."""
    ms, _, n = raw.partition(b"-")
    return int(ms), int(n or 0)


class Stream:
    """Entries by id.

    Attributes:
        entries: id as it is, and fields and values in turn.
        last: the id given last; ids only ever rise.
        added: number of entries that were ever added.
    """

    __slots__ = ("_ids", "added", "entries", "last")

    def __init__(self) -> None:
        self.entries: list[list[Any]] = []
        self.last = (0, 0)
        self.added = 0
        self._ids: list[tuple[int, int]] = []

    @classmethod
    def of(cls, entries: Iterable[tuple[bytes, Iterable[bytes]]], last: tuple[int, int], added: int) -> Stream:
        """A stream that holds these entries under the ids that they have."""
        stream = cls()
        stream.entries = [[raw, list(flat)] for raw, flat in entries]
        stream._ids = [entry_id(raw) for raw, _ in stream.entries]
        stream.last, stream.added = last, added
        return stream

    def append(self, now_ms: int, flat: list[bytes]) -> bytes:
        """Adds an entry under the next id; returns it."""
        ms, n = self.last
        self.last = (now_ms, 0) if now_ms > ms else (ms, n + 1)
        self.added += 1
        raw = b"%d-%d" % self.last
        self._ids.append(self.last)
        self.entries.append([raw, flat])
        return raw

    def trim(self, first: bytes) -> None:
        """Removes what is older than this id."""
        gone = bisect_left(self._ids, entry_id(first))
        del self.entries[:gone], self._ids[:gone]

    def range(self, first: bytes, count: int, last: bytes = b"+") -> list[Any]:
        """Entries from this id on, or, after ``(``, from behind it; up to the last, or to all of a millisecond."""
        if first == b"-":
            begin = 0
        elif first[:1] == b"(":
            ms, n = entry_id(first[1:])
            begin = bisect_left(self._ids, (ms, n + 1))
        else:
            begin = bisect_left(self._ids, entry_id(first))
        if last == b"+":
            return self.entries[begin : begin + count]
        ms, n = entry_id(last)
        end = bisect_left(self._ids, (ms, n + 1) if b"-" in last else (ms + 1, 0))
        return self.entries[begin : min(end, begin + count)]


Value: TypeAlias = Hash | Text | Stream
