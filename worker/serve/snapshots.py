"""What `serve` knows of the fleet: one look at Redis at a time, shared by all who ask, and what the last looks saw."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from worker.admin.status import read_status
from worker.reconcile.history import past_runs
from worker.store.agreed import agreed_partitions
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.admin.status import Status
    from worker.config.serve import ServeSettings

FRESH_SECONDS: Final = 1.0
"""A look this young answers for all who ask: many open pages cost Redis as much as one."""

HISTORY_SECONDS: Final = 600.0
"""How far back the chart reaches, and what the forecast of memory is made from."""

_TIMEOUT_SECONDS: Final = 2.0
_RATE_SECONDS: Final = 120.0  # less says nothing about a rate


class Memory(NamedTuple):
    """Redis' memory in bytes; `full` is 0 where it has no bound."""

    used: int
    full: int


class Seen(NamedTuple):
    """One look.

    Attributes:
        at: when, by the caller's monotonic clock (seconds).
        status: what waits, what was done, the gate.
        memory: Redis' memory.
        reconciled: what the last reconciliation did, None where none was kept.
    """

    at: float
    status: Status
    memory: Memory
    reconciled: Mapping[str, Any] | None = None


class Point(NamedTuple):
    """What the chart shows of one look: Unix ms, then counters and gauges."""

    at_ms: int
    accepted: int
    confirmed: int
    waiting: int
    oldest_seconds: float
    dead: int


class SnapshotCache:
    """Looks at one namespace.

    Args:
        settings: where Redis is, and the namespace.
        monotonic: a clock, in seconds.
    """

    def __init__(self, settings: ServeSettings, monotonic: Callable[[], float]) -> None:
        self.settings = settings
        self.keys = settings.keys
        self.client = connect(settings.redis_url, timeout_seconds=_TIMEOUT_SECONDS)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: Seen | None = None
        self._points: deque[Point] = deque(maxlen=int(HISTORY_SECONDS / FRESH_SECONDS))
        self._used: deque[tuple[float, int]] = deque(maxlen=int(HISTORY_SECONDS / FRESH_SECONDS))

    def partitions(self) -> int:
        """How many there are by now: `repartition` may have changed it since the last look.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            ContactSyncError: the log was begun otherwise than configured.
        """
        return agreed_partitions(self.client, self.settings)

    def look(self, *, fresh_seconds: float = FRESH_SECONDS) -> Seen:
        """A look no older than so many seconds.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            ContactSyncError: the log was begun otherwise than configured.
        """
        with self._lock:
            now = self._monotonic()
            if self._last is None or now - self._last.at >= fresh_seconds:
                status = read_status(self.client, self.keys, self.partitions())
                runs = past_runs(self.client, self.keys, 1)
                self._last = Seen(now, status, self._memory(), runs[0] if runs else None)
                self._note(self._last)
            return self._last

    def points(self) -> list[Point]:
        """What was seen in the last minutes, the oldest first."""
        with self._lock:
            return list(self._points)

    def full_seconds(self) -> float:
        """In how many seconds Redis is full at the rate of the last minutes; infinite where it does not grow, or may.

        A line through all that was seen, so that one large batch makes no alarm.
        """
        with self._lock:
            seen, last = list(self._used), self._last
        if last is None or not last.memory.full or len(seen) < 2 or seen[-1][0] - seen[0][0] < _RATE_SECONDS:
            return float("inf")
        if last.memory.used >= last.memory.full:
            return 0.0
        rate = _slope(seen)
        return (last.memory.full - last.memory.used) / rate if rate > 0 else float("inf")

    def ready(self) -> None:
        """Asks whether Redis answers.

        Raises:
            redis.RedisError: it does not.
        """
        self.client.ping()

    def close(self) -> None:
        """Ends the connections."""
        self.client.close()

    def _memory(self) -> Memory:
        info: dict[str, object] = dict(self.client.info("memory"))
        return Memory(_whole(info.get("used_memory")), _whole(info.get("maxmemory")))

    def _note(self, seen: Seen) -> None:
        status = seen.status
        self._used.append((seen.at, seen.memory.used))
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
    """Bytes a second, by least squares."""
    mean_at = sum(at for at, _ in points) / len(points)
    mean_used = sum(used for _, used in points) / len(points)
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    return sum((at - mean_at) * (used - mean_used) for at, used in points) / spread if spread else 0.0
