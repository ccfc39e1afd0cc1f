"""Finds what waits in a cluster: commands of one key each, in one round trip with every node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from producers.nodes.cluster import ClusterClient
from producers.nodes.trip import NodeAwayError
from worker.core.backlog import PartitionBacklog, Survey
from worker.core.dead_letter import DEAD_CAP
from worker.core.entry import entry_time_ms
from worker.core.lane import CLASSES
from worker.store.backlog import POLL_SECONDS, BacklogScanner, number, waiting_among
from worker.store.client import round_trip
from worker.store.partitions import FULL_FIELD
from worker.store.replies import checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.store.namespace import Namespace

_WIDTH: Final = 3 + CLASSES  # replies about one partition


class ClusterScanner(BacklogScanner):
    """``BacklogScanner`` for a cluster. It passes over partitions whose node is away.

    Args:
        namespace: as ``BacklogScanner``'s.
        monotonic: a clock, in seconds.
        wait: waits for this many seconds.
    """

    def __init__(
        self,
        namespace: Namespace,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(namespace)
        self._monotonic = monotonic
        self._wait = wait

    def scan(self, block_ms: int = 0) -> Survey:
        """Finds what waits in which partition, as ``BacklogScanner.scan``.

        Raises:
            redis.RedisError: no node answered.
        """
        ends = self._monotonic() + block_ms / 1000
        while True:
            survey = self._scan_once(inbox=block_ms > 0)
            if survey.waiting or survey.inbox or self._monotonic() + POLL_SECONDS > ends:
                return survey
            self._wait(POLL_SECONDS)

    def _scan_once(self, *, inbox: bool) -> Survey:
        keys = self._keys
        commands: list[tuple[Any, ...]] = [("XLEN", keys.inbox), ("GET", keys.deletes), ("TIME",)]
        for p in self._all:
            commands += [("XRANGE", key, "-", "+", "COUNT", 1) for key in (keys.events(p), keys.bulk(p))]
            commands += [("HLEN", key) for key in keys.pending_classes(p)]
            commands.append(("HMGET", keys.partition(p), "late_due", "parked_due", FULL_FIELD))
        entries, deletes, *replies = round_trip(self._client, commands)
        clock, *about = replies
        if all(isinstance(each, NodeAwayError) for each in about):
            raise about[0]
        self._wrong_type = []
        found = {p: self._backlog(p, about[p * _WIDTH : (p + 1) * _WIDTH]) for p in self._all}
        waiting = waiting_among(found, deletes)
        if not waiting:
            return Survey(0, [], list(self._wrong_type), inbox and number(entries) > 0)
        now_ms = time_ms(self._client.time() if isinstance(clock, Exception) else clock)
        self._measure_logs(waiting, now_ms)
        for each in waiting:
            each.note_clock(now_ms)
        return Survey(now_ms, waiting, list(self._wrong_type), inbox and number(entries) > 0)

    def _backlog(self, p: int, replies: Sequence[Any]) -> PartitionBacklog:
        live, bulk, *classes, due = replies
        if is_wrong_type(live) or is_wrong_type(bulk):
            self._wrong_type.append(p)
            return PartitionBacklog(p)
        late, parked, full = (None, None, None) if isinstance(due, Exception) else due
        return PartitionBacklog(
            p,
            oldest_ms=_head_ms(live),
            bulk_ms=_head_ms(bulk),
            classes=[number(each) for each in classes],
            late_due_ms=number(late),
            parked_due_ms=number(parked),
            full_until_ms=number(full),
        )

    def _measure_logs(self, waiting: Sequence[PartitionBacklog], now_ms: int) -> None:
        """Measures their logs, and tells their times by one clock, which says that it is `now_ms`."""
        keys = self._keys
        commands: list[tuple[Any, ...]] = []
        for each in waiting:
            p = each.partition
            commands += [
                ("GET", keys.lease(p)),
                ("XLEN", keys.events(p)),
                ("XLEN", keys.bulk(p)),
                ("HLEN", keys.dead(p)),
                ("TIME",),  # goes where the command before it goes
            ]
        replies = iter(round_trip(self._client, commands))
        for each in waiting:
            each.leased = next(replies) is not None  # an error, too: it cannot be claimed
            each.entries, each.bulk_entries, each.dead = (number(next(replies)) for _ in range(3))
            if each.dead < DEAD_CAP:
                each.full_until_ms = 0  # there is room again
            clock = next(replies)
            if not isinstance(clock, Exception):
                each.shift(now_ms - time_ms(clock))


def _head_ms(reply: Any) -> int:
    return 0 if isinstance(reply, NodeAwayError) or not checked(reply) else entry_time_ms(reply[0][0])


def scanner_of(
    namespace: Namespace,
    monotonic: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> BacklogScanner:
    """Makes the scanner that fits the namespace's Redis."""
    if isinstance(namespace.client, ClusterClient):
        return ClusterScanner(namespace, monotonic, wait)
    return BacklogScanner(namespace)
