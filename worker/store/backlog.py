"""Finds what waits: one scan over all partitions in Redis."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from worker.core.backlog import PartitionBacklog, Survey
from worker.core.dead_letter import DEAD_CAP
from worker.core.entry import entry_time_ms
from worker.core.lane import CLASSES
from worker.store.client import ARGUMENTS_MAX, in_parts, round_trip
from worker.store.delete_scan import decode_deletes
from worker.store.partitions import FULL_FIELD
from worker.store.replies import all_checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.store.namespace import Namespace


POLL_SECONDS: Final = 0.05
"""Time between two scans of empty logs that one command cannot wait for: in a cluster, or with very many partitions."""

_STREAMS_MAX: Final = (ARGUMENTS_MAX - 6) // 2


class BacklogScanner:
    """Scans all partitions of one namespace; costs two commands while nothing waits."""

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._keys = namespace.client, namespace.keys
        self._all = range(namespace.partitions)
        self._classes = [[self._keys.pending_classes(p)[each] for p in self._all] for each in range(CLASSES)]
        self._late = [self._keys.late(p) for p in self._all]
        self._parked = [self._keys.parked(p) for p in self._all]
        self._events, self._bulk = [self._keys.events(p) for p in self._all], [self._keys.bulk(p) for p in self._all]
        self._dead = [self._keys.dead(p) for p in self._all]
        self._leases = [self._keys.lease(p) for p in self._all]
        self._wrong_type: list[int] = []
        self._inbox: list[str] = []
        self._inbox_holds = False

    def scan(self, block_ms: int = 0) -> Survey:
        """Finds what waits in which partition.

        Args:
            block_ms: longest wait for a first entry if the logs and the inbox are empty; 0 scans the logs alone, and
                does not wait.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        self._inbox, self._inbox_holds = [self._keys.inbox] if block_ms else [], False
        heads = self._heads(block_ms)
        kept = [*self._late, *self._parked, *chain.from_iterable(self._classes)]
        if not heads and not sum(all_checked(round_trip(self._client, list(in_parts(("EXISTS",), kept))))):
            return Survey(0, [], list(self._wrong_type), self._inbox_holds)
        leased = list(in_parts(("MGET",), self._leases))
        counted = [list(in_parts(("EXISTS",), keys)) for keys in (self._late, self._parked, self._dead, *self._classes)]
        asked = [("TIME",), *leased, *chain.from_iterable(counted), ("GET", self._keys.deletes)]
        replies = round_trip(self._client, asked)
        deletes = replies.pop()
        answers = iter(all_checked(replies))
        now_ms = time_ms(next(answers))
        leases = list(chain.from_iterable(next(answers) for _ in leased))
        late, parked, dead, *classes = (sum(next(answers) for _ in parts) for parts in counted)
        found = {p: PartitionBacklog(p, leased=lease is not None) for p, lease in zip(self._all, leases, strict=True)}
        full = [each for each, some in enumerate(classes) if some]
        times = [name for name, some in (("late_due", late), ("parked_due", parked)) if some]
        self._measure(found, heads, full, times, dead=bool(dead))
        waiting = waiting_among(found, deletes)
        for each in waiting:
            each.note_clock(now_ms)
        return Survey(now_ms, waiting, list(self._wrong_type), self._inbox_holds)

    def _measure(
        self,
        found: dict[int, PartitionBacklog],
        heads: dict[str, int],
        classes: Sequence[int],
        times: Sequence[str],
        *,
        dead: bool,
    ) -> None:
        live = [(found[p], head) for p, key in enumerate(self._events) if (head := heads.get(key))]
        bulk = [(found[p], head) for p, key in enumerate(self._bulk) if (head := heads.get(key))]
        letters = {each.partition for each, _ in (*live, *bulk)} if dead else set()
        commands: list[tuple[str, ...]] = [("XLEN", self._events[each.partition]) for each, _ in live]
        commands += [("XLEN", self._bulk[each.partition]) for each, _ in bulk]
        commands += [("HLEN", self._dead[p]) for p in letters]
        commands += [("HLEN", key) for each in classes for key in self._classes[each]]
        commands += [("HGET", self._keys.partition(p), name) for name in times for p in self._all]
        replies = iter(round_trip(self._client, commands))  # an error for each key of the wrong type
        for each, head in live:
            each.oldest_ms, each.entries = head, number(next(replies))
        for each, head in bulk:
            each.bulk_ms, each.bulk_entries = head, number(next(replies))
        for p in letters:
            found[p].dead = number(next(replies))
        for which in classes:
            for p in self._all:
                found[p].classes[which] = number(next(replies))
        for name in times:
            for p in self._all:
                setattr(found[p], f"{name}_ms", number(next(replies)))
        full = [p for p in letters if found[p].dead >= DEAD_CAP]
        noted = round_trip(self._client, [("HGET", self._keys.partition(p), FULL_FIELD) for p in full])
        for p, until_ms in zip(full, noted, strict=True):
            found[p].full_until_ms = number(until_ms)

    def _heads(self, block_ms: int) -> dict[str, int]:
        """The time of the oldest entry of each log that has one: settled ones are gone, so the first one waits."""
        if self._wrong_type:
            self._find_wrong_type()  # it may be a log again
        logs = [p for p in self._all if p not in self._wrong_type]
        try:
            return self._read_heads(logs, block_ms)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
        # One key of the wrong type fails the whole command: find it, and scan the others.
        self._find_wrong_type()
        return self._read_heads([p for p in self._all if p not in self._wrong_type], 0)

    def _read_heads(self, logs: Sequence[int], block_ms: int) -> dict[str, int]:
        names = [*(key for p in logs for key in (self._events[p], self._bulk[p])), *self._inbox]
        if not names:
            return {}
        parts = [names[first : first + _STREAMS_MAX] for first in range(0, len(names), _STREAMS_MAX)]
        block: list[Any] = ["BLOCK", block_ms] if block_ms and len(parts) == 1 else []
        asked = [("XREAD", "COUNT", 1, *block, "STREAMS", *some, *(["0-0"] * len(some))) for some in parts]
        ends = time.monotonic() + block_ms / 1000
        replies = all_checked(round_trip(self._client, asked))
        while len(parts) > 1 and not any(replies) and time.monotonic() + POLL_SECONDS < ends:
            time.sleep(POLL_SECONDS)
            replies = all_checked(round_trip(self._client, asked))
        heads = {name.decode(): entry_time_ms(entries[0][0]) for reply in replies for name, entries in reply or ()}
        self._inbox_holds = heads.pop(self._keys.inbox, None) is not None
        return heads

    def _find_wrong_type(self) -> None:
        pipe = self._client.pipeline(transaction=False)
        for key_of in (self._keys.events, self._keys.bulk):
            for p in self._all:
                pipe.type(key_of(p))
        for name in self._inbox:
            pipe.type(name)
        found = pipe.execute()
        self._inbox = [self._keys.inbox] if found[2 * len(self._all) :] == [b"stream"] else []
        fits = {b"stream", b"none"}
        count = len(self._all)
        self._wrong_type = [p for p in self._all if not {found[p], found[count + p]} <= fits]


def number(reply: Any) -> int:
    """Returns the number that a reply is; 0 for anything else."""
    return int(reply) if isinstance(reply, (int, bytes)) else 0


def waiting_among(found: Mapping[int, PartitionBacklog], deletes: Any) -> list[PartitionBacklog]:
    """Returns those in which something waits, with the oldest delete of each.

    Args:
        found: what was found, by partition.
        deletes: what the key of the oldest deletes holds.
    """
    for p, delete_ms in decode_deletes(deletes if isinstance(deletes, bytes) else b"").items():
        # What is older than the log's oldest entry was settled.
        if p in found and delete_ms >= found[p].oldest_ms > 0:
            found[p].delete_ms = delete_ms
    return [each for each in found.values() if each.waits]
