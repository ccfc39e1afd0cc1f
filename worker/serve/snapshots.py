"""Snapshots of the fleet's state: read one at a time, shared by all clients, with a history for the chart."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from worker.admin.scaling import with_workers_wanted
from worker.admin.status import read_status
from worker.reconcile.history import past_runs
from worker.store.agreed import agreed_partitions
from worker.store.client import connect
from worker.store.namespace import Namespace
from worker.store.replies import unless_away

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.admin.status import Status
    from worker.config.serve import ServeSettings

FRESH_SECONDS: Final = 1.0
"""A snapshot this young is shared: many open pages cost Redis as much as one."""

HISTORY_SECONDS: Final = 600.0
"""Length of the chart's history, and of the history from which the memory forecast is computed."""

_TIMEOUT_SECONDS: Final = 2.0
_RATE_SECONDS: Final = 120.0  # a shorter history is too little for a rate


class Memory(NamedTuple):
    """Redis's memory in bytes; `full` is 0 if it has no limit."""

    used: int
    full: int


class Snapshot(NamedTuple):
    """The fleet's state at one moment.

    Attributes:
        at: time of the snapshot, in seconds of the caller's monotonic clock.
        status: backlog, totals and gate.
        memory: Redis's memory.
        reconciled: result of the last reconciliation; None if there is none.
    """

    at: float
    status: Status
    memory: Memory
    reconciled: Mapping[str, Any] | None = None


class Point(NamedTuple):
    """What the chart shows of one snapshot: Unix time in ms, then counters and gauges."""

    at_ms: int
    accepted: int
    confirmed: int
    waiting: int
    oldest_seconds: float
    dead: int


class SnapshotCache:
    """Takes and caches snapshots of one namespace.

    Args:
        settings: Redis and the namespace.
        monotonic: a monotonic clock, in seconds.
    """

    def __init__(self, settings: ServeSettings, monotonic: Callable[[], float]) -> None:
        self.settings = settings
        self.keys = settings.keys
        self.client = connect(settings.redis_url, settings.redis_credentials, timeout_seconds=_TIMEOUT_SECONDS)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: Snapshot | None = None
        self._points: deque[Point] = deque(maxlen=int(HISTORY_SECONDS / FRESH_SECONDS))
        self._used: deque[tuple[float, int]] = deque(maxlen=int(HISTORY_SECONDS / FRESH_SECONDS))

    def namespace(self) -> Namespace:
        """Reads the namespace with its current number of partitions, which `repartition` can change at any time.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            ContactSyncError: the settings do not match the log.
        """
        return Namespace(self.client, self.keys, agreed_partitions(self.client, self.settings))

    def snapshot(self, *, fresh_seconds: float = FRESH_SECONDS) -> Snapshot:
        """Returns a snapshot that is younger than `fresh_seconds`; takes a new one if needed.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            ContactSyncError: the settings do not match the log.
        """
        with self._lock:
            now = self._monotonic()
            if self._last is None or now - self._last.at >= fresh_seconds:
                namespace = self.namespace()
                status = with_workers_wanted(namespace, read_status(namespace), self.settings)
                none: list[dict[str, Any]] = []
                runs = unless_away(lambda: past_runs(namespace, 1), none)  # all the rest is told
                self._last = Snapshot(now, status, self._memory(), runs[0] if runs else None)
                self._note(self._last)
            return self._last

    def points(self) -> list[Point]:
        """Returns the points of the last minutes, the oldest first."""
        with self._lock:
            return list(self._points)

    def full_seconds(self) -> float:
        """Returns in how many seconds Redis is full at the rate of the last minutes.

        Infinite if its memory does not grow, has no limit, or the history is too short. The rate is that of a line
        through all samples, so that one large batch raises no alarm.
        """
        with self._lock:
            used, last = list(self._used), self._last
        if last is None or not last.memory.full or len(used) < 2 or used[-1][0] - used[0][0] < _RATE_SECONDS:
            return float("inf")
        if last.memory.used >= last.memory.full:
            return 0.0
        rate = _slope(used)
        return (last.memory.full - last.memory.used) / rate if rate > 0 else float("inf")

    def ready(self) -> None:
        """Checks that Redis answers.

        Raises:
            redis.RedisError: it does not answer, or refuses.
        """
        self.client.ping()

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()

    def _memory(self) -> Memory:
        info: dict[str, object] = dict(self.client.info("memory"))
        return Memory(_whole(info.get("used_memory")), _whole(info.get("maxmemory")))

    def _note(self, snapshot: Snapshot) -> None:
        status = snapshot.status
        self._used.append((snapshot.at, snapshot.memory.used))
        point = Point(
            status.gate.now_ms,
            status.totals["events"],
            status.totals["records_confirmed"],
            status.waiting_changes,
            status.oldest_seconds or 0.0,
            status.dead_letters,
        )
        self._points.append(point)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _slope(points: list[tuple[float, int]]) -> float:
    """Returns the growth in bytes per second, by least squares."""
    mean_at = sum(at for at, _ in points) / len(points)
    mean_used = sum(used for _, used in points) / len(points)
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    return sum((at - mean_at) * (used - mean_used) for at, used in points) / spread if spread else 0.0
