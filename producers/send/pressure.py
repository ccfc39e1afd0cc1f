"""How much waits in the log, and how full Redis is: tells a bulk job to slow down, and a caller how long it takes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis

from producers.contract.query import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from producers.contract.change import Lane
    from producers.contract.keys import Keys
    from producers.contract.query import Command

SAMPLED_PARTITIONS: Final = 256
"""Most partitions that one question reads, at about 0.1 ms each; of more, the rest is taken to be like these."""

BULK_WAITING_MAX: Final = 2_000_000
"""Changes waiting in the bulk lane at which the pressure is 1."""

MEMORY_EASY: Final = 0.5
"""Share of Redis' memory in use up to which it puts no pressure on producers."""

MEMORY_FULL: Final = 0.9
"""Share of Redis' memory in use at which the pressure is 1."""

PRESSURE_WAITS: Final = 0.9
"""Pressure at which a bulk job waits."""

PRESSURE_GOES_ON: Final = 0.8
"""Pressure below which it goes on."""

POLL_SECONDS: Final = 1.0
"""Time between two questions while a bulk job waits."""

MEASURED_SECONDS: Final = 0.5
"""Shortest time over which throughput is measured."""

_ASKS_EACH: Final = 10  # chunks: of ten thousand changes, that takes next to no time, and they take little memory


class Load(NamedTuple):
    """What waits, and how full Redis is.

    Attributes:
        live: changes and pairs that wait in the live lane.
        bulk: and in the bulk lane.
        confirmed: records that the endpoint has confirmed since the beginning.
        memory: share of Redis' memory in use, from 0 to 1; 0 if Redis does not say.
    """

    live: int
    bulk: int
    confirmed: int
    memory: float

    @property
    def pressure(self) -> float:
        """From 0 (nothing waits, and Redis has room) to 1 (more must not be sent): the greater of two shares."""
        full = (self.memory - MEMORY_EASY) / (MEMORY_FULL - MEMORY_EASY)
        return min(1.0, max(0.0, full, self.bulk / BULK_WAITING_MAX))

    @property
    def reason(self) -> str:
        """What the pressure comes from, in words."""
        return f"{self.bulk:,} bulk changes are waiting, and Redis uses {self.memory:.0%} of its memory"

    def before(self, lane: Lane) -> int:
        """Returns how much is sent before a change that this lane gets now."""
        return self.live if lane == "live" else self.live + self.bulk


def load_query(keys: Keys, partitions: int) -> Query:
    """Returns the commands to read a ``Load``, for one round trip."""
    commands: list[Command] = [("INFO", "memory")]
    for partition in _sampled(partitions):
        classes = keys.pending_classes(partition)
        half = len(classes) // 2
        commands += [
            ("XLEN", keys.events(partition)),
            *(("HLEN", key) for key in classes[:half]),
            ("XLEN", keys.bulk(partition)),
            *(("HLEN", key) for key in classes[half:]),
            ("HMGET", keys.totals(partition), "records_confirmed"),
        ]
    return Query(tuple(commands))


def load_of(replies: Sequence[Any], partitions: int) -> Load:
    """Computes the load from the replies to ``load_query``."""
    info, *counted = replies
    sampled = len(_sampled(partitions))
    each = len(counted) // sampled
    live = bulk = confirmed = 0
    for first in range(0, len(counted), each):
        *waiting, [done] = counted[first : first + each]
        live += sum(waiting[: each // 2])
        bulk += sum(waiting[each // 2 :])
        confirmed += int(done or 0)
    scale = partitions / sampled
    return Load(round(live * scale), round(bulk * scale), round(confirmed * scale), _memory(info))


def _sampled(partitions: int) -> Sequence[int]:
    return range(0, partitions, -(-partitions // SAMPLED_PARTITIONS))


def _memory(info: Mapping[str, Any]) -> float:
    limit = info.get("maxmemory") or info.get("total_system_memory") or 0
    return float(info.get("used_memory", 0) / limit) if limit else 0.0


class Throughput:
    """How many records a second the endpoint confirms, measured between two questions.

    Args:
        clock: returns seconds that only rise.

    Attributes:
        per_second: the rate; None until it was measured.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second: float | None = None
        self._clock = clock
        self._last: tuple[float, int] | None = None

    def note(self, confirmed: int) -> None:
        """Takes a new count of confirmed records. Counts less than MEASURED_SECONDS apart would measure chance."""
        now = self._clock()
        if self._last is None:
            self._last = (now, confirmed)
            return
        then, before = self._last
        if now - then >= MEASURED_SECONDS:
            self._last = (now, confirmed)
            self.per_second = max(0, confirmed - before) / (now - then)  # a log that was emptied counts from 0 again

    def seconds_for(self, waiting: int) -> float:
        """Returns how long this many records take; infinity if nothing is being confirmed."""
        return 0.0 if not waiting else waiting / self.per_second if self.per_second else math.inf


class BulkPermit:
    """Whether a relay may send bulk changes now.

    Args:
        ask: returns the load now.
        clock: returns seconds that only rise.

    Attributes:
        refused: why it may not, in words; empty while it may.
    """

    def __init__(self, ask: Callable[[], Load], clock: Callable[[], float] = time.monotonic) -> None:
        self.refused = ""
        self._ask = ask
        self._clock = clock
        self._calls = 0
        self._asked = -math.inf

    def renew(self) -> None:
        """Asks again if bulk changes wait, once a second at most; call it before each run of the relay."""
        if self.refused and self._clock() - self._asked >= POLL_SECONDS:
            self._update()

    def given(self) -> bool:
        """Returns whether bulk changes may be sent; call it before each batch. Asks Redis once in ten calls."""
        self._calls += 1
        if not self.refused and self._calls % _ASKS_EACH == 1:
            self._update()
        return not self.refused

    def _update(self) -> None:
        """Asks for the load. If Redis does not answer, nothing changes, because sending then tells what is wrong."""
        self._asked = self._clock()
        try:
            load = self._ask()
        except (redis.RedisError, OSError):
            return
        waits = load.pressure >= (PRESSURE_GOES_ON if self.refused else PRESSURE_WAITS)
        self.refused = load.reason if waits else ""


class BulkPacer:
    """Lets a bulk job wait while Redis is filling up.

    Args:
        ask: returns the load now.
        tell: called with one line when the job begins to wait, and when it goes on.
        sleep: waits for this many seconds.
    """

    def __init__(
        self, ask: Callable[[], Load], tell: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._sleep = sleep
        self._calls = 0

    def wait(self) -> None:
        """Waits until the next thousand changes may be sent; call it before each. Asks Redis once in ten calls.

        If Redis does not answer it returns, because sending then tells what is wrong.
        """
        self._calls += 1
        if self._calls % _ASKS_EACH != 1:
            return
        waits = False
        try:
            while (load := self._ask()).pressure >= (PRESSURE_GOES_ON if waits else PRESSURE_WAITS):
                if not waits:
                    self._tell(f"waits: {load.reason}")
                waits = True
                self._sleep(POLL_SECONDS)
        except (redis.RedisError, OSError) as error:
            self._tell(f"cannot ask how much waits: {str(error).rstrip('.')}")
        else:
            if waits:
                self._tell("goes on")
