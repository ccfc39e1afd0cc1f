"""Finds deletes in live logs that linger, because a delete lingers for less time than an upsert, and in long ones.

Each entry is read for this at most once, and only while its log lingers or is long. Of a long log the new entries are
read first, then those from its head on, some at a time. One key tells the whole fleet what was found. If that key is
lost, a delete waits as long as an upsert.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from producers.nodes.trip import NodeAwayError
from worker.store.client import command, round_trip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.store.namespace import Namespace


DEEP_ENTRIES: Final = 4_000
"""Entries of long logs that one call reads at most from their heads on; a tick takes twenty times as long."""

DEEP_AT_ONCE: Final = 500
"""It reads at least this many of each of them, and at most this many new ones of each."""

MANY_DELETES: Final = 0.02
"""If more than this share of a long log are deletes, nearly all of it would be read ahead to send them first."""

_DELETES_MAX: Final = 1_000

_KEPT_MS: Final = 60_000
"""How long the key is kept: much longer than a delete lingers."""


def decode_deletes(raw: bytes) -> dict[int, int]:
    """The time of the oldest delete by partition (Unix ms), from the key; empty if something else wrote it."""
    try:
        items = [each.split(b":") for each in raw.split(b",") if each]
        return {int(p): int(ms) for p, ms in items}
    except ValueError:
        return {}


@dataclass(slots=True)
class _Deep:
    """How far a long log was read.

    Attributes:
        end: id of the newest entry that was read.
        head: id of the last entry that was read from the head on.
        until: id from which on the entries were read as new ones.
        deletes: times of the unread deletes that were found (Unix ms), the oldest first; of very many, not all.
        entries: how many entries were read.
        found: how many of them were deletes.
    """

    end: bytes
    head: bytes
    until: bytes
    deletes: list[int] = field(default_factory=list)
    entries: int = 0
    found: int = 0

    @property
    def many(self) -> bool:
        """Whether it holds many deletes, as far as enough of it was read to tell."""
        return self.entries >= DEEP_AT_ONCE and self.found > MANY_DELETES * self.entries

    @property
    def behind(self) -> bool:
        """Whether entries between the head and the first new ones are unread."""
        return _order(self.head) < _order(self.until)

    def note(self, entries: Sequence[tuple[bytes, Sequence[Any]]]) -> None:
        """Looks for deletes in these entries."""
        self.entries += len(entries)
        for entry_id, fields in entries:
            if is_delete(fields):
                self.found += 1
                insort(self.deletes, _order(entry_id)[0])
        del self.deletes[_DELETES_MAX:-1]  # the newest one stays: until it is read, so is all before it


class DeleteScan:
    """Finds the oldest delete in each log that lingers, and tells the fleet. Each ticker has one."""

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._keys, _ = namespace
        self._read_to: dict[int, bytes] = {}
        self._found: dict[int, int] = {}
        self._deep: dict[int, _Deep] = {}
        self._turn = 0
        self._in_order = False
        self._published: dict[int, int] = {}

    def find(self, lingering: Mapping[int, int], most: int) -> Mapping[int, int]:
        """Reads the new entries of these logs.

        Args:
            lingering: the time of the oldest entry of each log that lingers (Unix ms), by partition.
            most: most entries that a lingering log holds.

        Returns:
            The time of the oldest delete of each log that has one (Unix ms), by partition.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        # A log that no longer lingers was settled or soon is; one that lingers again is read from its first entry.
        self._read_to = {p: last for p, last in self._read_to.items() if p in lingering}
        self._found = {p: ms for p, ms in self._found.items() if ms >= lingering.get(p, ms + 1)}
        unknown = [p for p in lingering if p not in self._found]
        reads = [("XRANGE", self._keys.events(p), self._from(p), "+", "COUNT", most) for p in unknown]
        for p, entries in zip(unknown, round_trip(self._client, reads), strict=True):
            if isinstance(entries, list) and entries:
                self._read_to[p] = entries[-1][0]
                first = next((entry_id for entry_id, fields in entries if is_delete(fields)), None)
                if first is not None:
                    self._found[p] = int(first.partition(b"-")[0])
        self._publish()
        return self._found

    def search_long(self, long: Mapping[int, int], *, in_order: bool = False) -> None:
        """Reads on in long logs; `find` tells what was found, the oldest delete of each that is unread.

        Args:
            long: the time of the oldest entry of each long log (Unix ms), by partition.
            in_order: whether a log that holds many deletes is sent in its order. Where the workers bound what is
                delivered, its deletes arrive sooner so than if all of it were stored for later first.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        self._in_order = in_order
        self._deep = {p: deep for p, deep in self._deep.items() if p in long}
        self._begin([p for p in long if p not in self._deep])
        watched = {p: deep for p, deep in self._deep.items() if not (in_order and deep.many)}
        behind = [p for p, deep in watched.items() if deep.behind]
        self._turn += 1  # others go first next time
        behind = [behind[(i + self._turn) % len(behind)] for i in range(min(len(behind), DEEP_ENTRIES // DEEP_AT_ONCE))]
        events = self._keys.events
        reads = [("XRANGE", events(p), b"(" + deep.end, "+", "COUNT", DEEP_AT_ONCE) for p, deep in watched.items()]
        share = DEEP_ENTRIES // max(1, len(behind))
        reads += [("XRANGE", events(p), b"(" + self._deep[p].head, "+", "COUNT", share) for p in behind]
        replies = round_trip(self._client, reads)
        for deep, entries in zip(watched.values(), replies, strict=False):
            if isinstance(entries, list) and entries:
                deep.end = entries[-1][0]
                deep.note(entries)
        for p, entries in zip(behind, replies[len(watched) :], strict=True):
            deep = self._deep[p]
            found = entries if isinstance(entries, list) else []
            deep.head = found[-1][0] if found else deep.until
            deep.note(found)
        for p, deep in self._deep.items():
            del deep.deletes[: bisect_left(deep.deletes, long[p])]  # they were read: nothing older is in the log

    def _begin(self, new: Sequence[int]) -> None:
        lasts = round_trip(self._client, [("XREVRANGE", self._keys.events(p), "+", "-", "COUNT", 1) for p in new])
        for p, last in zip(new, lasts, strict=True):
            if isinstance(last, list) and last:
                self._deep[p] = _Deep(last[0][0], b"0-0", last[0][0])

    def _from(self, partition: int) -> bytes:
        last = self._read_to.get(partition)
        return b"-" if last is None else b"(" + last

    def _publish(self) -> None:
        hurrying = {p: deep for p, deep in self._deep.items() if deep.deletes and not (self._in_order and deep.many)}
        found = {p: deep.deletes[0] for p, deep in hurrying.items()} | self._found
        calm = self._deep.keys() - found.keys()
        if all(self._published.get(p) == ms for p, ms in found.items()) and calm.isdisjoint(self._published):
            return  # other times in the key were settled, as each log's oldest entry shows
        text = ",".join(f"{p}:{ms}" for p, ms in found.items())
        try:
            command(self._client, "SET", self._keys.deletes, text, "PX", _KEPT_MS)
        except (ResponseError, NodeAwayError):
            return  # the server is full, and accepts only the steps that empty it; or the key's node is away
        self._published = found


def _order(entry_id: bytes) -> tuple[int, int]:
    ms, _, number = entry_id.partition(b"-")
    return int(ms), int(number or 0)


def is_delete(fields: Sequence[Any]) -> bool:
    """Whether an entry is a delete, by its fields and values in turn."""
    return any(fields[i] == b"op" and fields[i + 1] == b"delete" for i in range(0, len(fields), 2))
