"""Finds the oldest delete in each live log: a delete lingers for less time than an upsert, and goes before others.

Each entry is read for this at most once. New entries are read at once; what waited before anybody looked is read from
the heads of the logs on, some at a time. One key tells the whole fleet what was found. If that key is lost, a delete
waits as long as an upsert.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from producers.nodes.trip import NodeAwayError
from worker.store.client import command, round_trip

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from worker.core.backlog import PartitionBacklog
    from worker.store.namespace import Namespace


DEEP_ENTRIES: Final = 4_000
"""Entries that one call reads of what waited before anybody looked; a tick takes twenty times as long."""

AT_ONCE: Final = 500
"""Most entries that one call reads of one log, as long as there are others to read."""

MANY_DELETES: Final = 0.02
"""If more than this share of a log are deletes, nearly all of it would be read ahead to send them first."""

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
class _Searched:
    """How far a log was read.

    Attributes:
        end: id of the newest entry that was read.
        head: id of the last entry that was read from the head on.
        until: id from which on the entries were read as new ones.
        deletes: times of the unread deletes that were found (Unix ms), the oldest first; of very many, not all.
        entries: how many entries were read.
        found: how many of them were deletes.
        known: what the log held when its end was read: how many entries, and the time of the oldest (Unix ms).
    """

    end: bytes = b"0-0"
    head: bytes = b"0-0"
    until: bytes = b"0-0"
    deletes: list[int] = field(default_factory=list)
    entries: int = 0
    found: int = 0
    known: tuple[int, int] = (0, 0)

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
    """Finds the oldest delete in each live log, and tells the fleet. Each ticker has one.

    Attributes:
        searched: how far each log that has entries was read, by partition.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._keys, _ = namespace
        self.searched: dict[int, _Searched] = {}
        self._looked = False
        self._turn = 0
        self._published: dict[int, int] = {}

    def find(
        self, logs: Sequence[PartitionBacklog], lingering: Container[int] = (), *, long: bool, in_order: bool = False
    ) -> Mapping[int, int]:
        """Reads on in the logs, and tells the fleet of the oldest delete of each that is worth a haste.

        Args:
            logs: all partitions whose live log has entries.
            lingering: those of which nothing is due yet: a delete in them is due sooner.
            long: whether what is new in the others would wait for several requests, so that a delete goes first.
            in_order: whether a log that holds many deletes is sent in its order all the same. Where the workers bound
                what is delivered, its deletes arrive sooner so than if all of it were stored for later first.

        Returns:
            The time of the oldest delete of each log that has one (Unix ms, by the clock of its node), by partition.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        by_partition = {each.partition: each for each in logs}
        self.searched = {p: each for p, each in self.searched.items() if p in by_partition}
        self._begin([each for each in logs if each.partition not in self.searched])
        others = [each for each in logs if each.partition not in lingering]
        left = self._in_their_order(others, in_order)
        watched = {p: each for p, each in by_partition.items() if p not in left}
        untold = in_order and sum(each.entries for each in self.searched.values()) < AT_ONCE
        self._read(watched, AT_ONCE if untold else DEEP_ENTRIES)
        for p, each in by_partition.items():
            deletes = self.searched[p].deletes
            del deletes[: bisect_left(deletes, each.oldest_ms - each.shifted_ms)]  # those before it were settled
        calm = self._in_their_order(others, in_order) if long else {each.partition for each in others}
        found = {p: each.deletes[0] for p, each in self.searched.items() if each.deletes and p not in calm}
        self._publish(found)
        return found

    def _begin(self, new: Sequence[PartitionBacklog]) -> None:
        """Begins with the end of each log; a short one that had no entry a moment ago is read from its start."""
        unknown = [each.partition for each in new if not self._looked or each.entries > AT_ONCE]
        self._looked = True
        self.searched |= {each.partition: _Searched() for each in new}
        lasts = round_trip(self._client, [("XREVRANGE", self._keys.events(p), "+", "-", "COUNT", 1) for p in unknown])
        for p, last in zip(unknown, lasts, strict=True):
            if isinstance(last, list) and last:
                self.searched[p] = _Searched(end=last[0][0], until=last[0][0])

    def _read(self, logs: Mapping[int, PartitionBacklog], most_behind: int) -> None:
        news = [p for p, each in logs.items() if self.searched[p].known != (each.entries, each.oldest_ms)]
        behind = self._behind(logs, most_behind)
        share = max(AT_ONCE, most_behind // max(1, len(behind)))
        ranges = [(p, self.searched[p].end, b"+", AT_ONCE) for p in news]
        ranges += [(p, self.searched[p].head, self.searched[p].until, share) for p in behind]
        replies = round_trip(
            self._client,
            [("XRANGE", self._keys.events(p), b"(" + start, end, "COUNT", most) for p, start, end, most in ranges],
        )
        entries = [each if isinstance(each, list) else [] for each in replies]
        for p, found in zip(news, entries, strict=False):
            searched = self.searched[p]
            searched.note(found)
            searched.end = found[-1][0] if found else searched.end
            searched.known = (logs[p].entries, logs[p].oldest_ms) if len(found) < AT_ONCE else (0, 0)
        for p, found in zip(behind, entries[len(news) :], strict=True):
            searched = self.searched[p]
            searched.head = found[-1][0] if len(found) == share else searched.until
            searched.note(found)

    def _behind(self, logs: Mapping[int, PartitionBacklog], room: int) -> list[int]:
        """Logs to read on from their heads, in turn, as many as hold so many entries."""
        behind = [p for p in logs if self.searched[p].behind]
        chosen: list[int] = []
        while room > 0 and len(chosen) < len(behind):
            p = behind[self._turn % len(behind)]
            self._turn += 1
            chosen.append(p)
            room -= min(AT_ONCE, logs[p].entries)
        return chosen

    def _in_their_order(self, logs: Sequence[PartitionBacklog], may: bool) -> set[int]:  # noqa: FBT001 - as `find` says
        """Those that are sent in their order, if any may be, because they hold many deletes.

        A log of which too little was read to tell holds many if all that were read do; but of a long one enough is
        read first.
        """
        if not may:
            return set()
        total = _Searched()
        for each in self.searched.values():
            total.entries += each.entries
            total.found += each.found
        full = set()
        for log in logs:
            one = self.searched[log.partition]
            told = total if one.entries < AT_ONCE and log.entries <= DEEP_ENTRIES else one
            if told.entries >= AT_ONCE and told.found > MANY_DELETES * told.entries:
                full.add(log.partition)
        return full

    def _publish(self, found: dict[int, int]) -> None:
        others = self.searched.keys() - found.keys()
        if all(self._published.get(p) == ms for p, ms in found.items()) and others.isdisjoint(self._published):
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
