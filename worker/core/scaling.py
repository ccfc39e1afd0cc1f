"""Decides how many workers the fleet needs, each with all its processes (pure).

One decision follows from the one before it: it goes up soon and down late, and it stays as it is while more or fewer
workers would change nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

LIVE_SECONDS: Final = 30.0
"""In this time the workers are to catch up with what waits in the live lane."""

BULK_SECONDS: Final = 900.0
"""The same for the bulk lane, for which nobody waits."""

LATE_SECONDS: Final = 5.0
"""A backlog does not count as growing if its oldest change has waited for no longer than this beyond the linger."""

UP_MS: Final = 15_000
"""The need must exceed the workers that are wanted for this long before more are."""

DOWN_MS: Final = 300_000
"""The need must stay below them for this long before fewer are: a new worker takes a while to start."""

DOWN_MARGIN: Final = 1.25
"""Fewer workers must have this much room for what the fleet needs, so that they do not become more again soon."""

GROWTH: Final = 2
"""One decision asks for at most this many times as many workers: it is an estimate, and the next one knows more."""

EVERY_MS: Final = 4_000
"""Least time between two decisions: what is learned from a shorter time is chance."""

FORGOTTEN_MS: Final = 600_000
"""After this time without a decision the last one says nothing of what is wanted now."""

FIRST_CAPACITY: Final = 5_000.0
"""Records a second that one worker process delivers, until it is known."""

IN_FLIGHT_SHARE: Final = 0.8
"""If this share of the requests that may be under way are, more workers would only wait."""

_ARRIVAL_MS: Final = 60_000.0  # arrivals are averaged over this time
_LEARN_UP: Final = 0.5
_LEARN_DOWN: Final = 0.05  # slowly: a moment in which the workers do less is seldom their fault


class Load(NamedTuple):
    """What the fleet has to do at one moment, and what it does it with.

    Attributes:
        now_ms: that moment, by Redis' clock (Unix ms).
        workers: how many are seen.
        partitions: partitions of the log; a worker beyond their number has nothing to do.
        batch_size: most records in a request.
        linger_seconds: how long a change may wait for others.
        accepted: changes that were ever accepted.
        ended: changes that have ended.
        live: entries and pairs that wait in the live lane.
        bulk: the same of the bulk lane.
        oldest_seconds: age of the oldest change in the live lane, 0 if none waits.
        gate_open: whether the endpoint's gate is ok.
        rate_binds: whether the fleet's rate of requests binds.
        rate: most requests a second; None if there is no limit.
        in_flight: requests under way.
        in_flight_limit: most requests that may be; None if there is no limit yet.
    """

    now_ms: int
    workers: int
    partitions: int
    batch_size: int
    linger_seconds: float
    accepted: int
    ended: int
    live: int
    bulk: int
    oldest_seconds: float
    gate_open: bool
    rate_binds: bool
    rate: float | None
    in_flight: int
    in_flight_limit: int | None

    @property
    def frozen(self) -> bool:
        """Whether the endpoint decides what is delivered, and not the number of workers."""
        return self.rate_binds or not self.gate_open

    @property
    def saturates(self) -> bool:
        """Whether so much waits that no worker is idle, and nothing but the workers limits the fleet."""
        return (
            not self.frozen and not self.no_place_left and self.live + self.bulk >= self.batch_size * self.workers > 0
        )

    @property
    def no_place_left(self) -> bool:
        """Whether the limit of requests under way is as good as reached."""
        return self.in_flight_limit is not None and self.in_flight >= self.in_flight_limit * IN_FLIGHT_SHARE


class Scaling(NamedTuple):
    """A decision, and what the next one follows from.

    Attributes:
        at_ms: when it was made (Unix ms, Redis' clock); 0 for none.
        wanted: how many workers.
        accepted: `Load.accepted` at that moment.
        ended: `Load.ended` then.
        bulk: `Load.bulk` then.
        saturated: whether no worker was idle then.
        arrival: changes a second that are accepted, on average.
        capacity: records a second that one worker delivers if it is never idle; 0 if that is not known.
        above_ms: since when more workers have been needed than are wanted (Unix ms), 0 if they are not.
        below_ms: since when fewer have (Unix ms), 0 if they have not.
        most: most workers that were needed since then.
    """

    at_ms: int = 0
    wanted: int = 0
    accepted: int = 0
    ended: int = 0
    bulk: int = 0
    saturated: bool = False
    arrival: float = 0.0
    capacity: float = 0.0
    above_ms: int = 0
    below_ms: int = 0
    most: int = 0

    def next(self, load: Load) -> Scaling:
        """The decision that follows from this one at the time of the load; the same one if it is too early."""
        passed = load.now_ms - self.at_ms
        if 0 <= passed < EVERY_MS:
            return self
        if not self.at_ms or not 0 <= passed < FORGOTTEN_MS:
            begun = Scaling(load.now_ms, max(1, load.workers), capacity=self.capacity)
            return begun._replace(accepted=load.accepted, ended=load.ended, bulk=load.bulk, saturated=load.saturates)
        learned = self._learned(load, passed)
        return _kept(learned) if load.frozen else _moved(learned, load)

    def _learned(self, load: Load, passed: int) -> Scaling:
        """What arrives, and what a worker delivers, by now."""
        # What a bulk job adds at once is not a steady flow: it counts as backlog.
        arrived = max(0, load.accepted - self.accepted - max(0, load.bulk - self.bulk)) * 1000 / passed
        arrival = self.arrival + (arrived - self.arrival) * min(1.0, passed / _ARRIVAL_MS)
        capacity = self.capacity
        if self.saturated and load.saturates:
            seen = max(0, load.ended - self.ended) * 1000 / passed / load.workers
            capacity += (seen - capacity) * (1.0 if not capacity else _LEARN_UP if seen > capacity else _LEARN_DOWN)
        return self._replace(
            at_ms=load.now_ms,
            accepted=load.accepted,
            ended=load.ended,
            bulk=load.bulk,
            saturated=load.saturates,
            arrival=arrival,
            capacity=capacity,
        )

    def need(self, load: Load) -> float:
        """Workers that the load needs, not rounded and not more than can have an effect."""
        capacity = self.capacity or FIRST_CAPACITY
        late = load.live if load.oldest_seconds > load.linger_seconds + LATE_SECONDS else 0
        records = self.arrival + late / LIVE_SECONDS + load.bulk / BULK_SECONDS
        if load.rate is not None:
            records = min(records, load.rate * load.batch_size)
        return max(0.0, min(records / max(capacity, 1.0), float(load.partitions)))


def _kept(scaling: Scaling) -> Scaling:
    """The same number, whatever was needed before."""
    return scaling._replace(above_ms=0, below_ms=0, most=0)


def _moved(scaling: Scaling, load: Load) -> Scaling:
    """The decision for what is known and needed now."""
    need = scaling.need(load)
    up, down = max(1, math.ceil(need)), max(1, math.ceil(need * DOWN_MARGIN))
    if up > scaling.wanted and not load.no_place_left:
        since = scaling.above_ms or load.now_ms
        if load.now_ms - since < UP_MS:
            return scaling._replace(above_ms=since, below_ms=0, most=0)
        return _kept(scaling)._replace(wanted=min(up, scaling.wanted * GROWTH))
    if down < scaling.wanted:
        since, most = scaling.below_ms or load.now_ms, max(scaling.most, down)
        if load.now_ms - since < DOWN_MS:
            return scaling._replace(above_ms=0, below_ms=since, most=most)
        return _kept(scaling)._replace(wanted=most)
    return _kept(scaling)


NOTHING_DECIDED: Final = Scaling()
"""What the first decision follows from."""


def write_scaling(scaling: Scaling) -> dict[str, str]:
    """The decision as it is stored: each field by its name."""
    return {name: f"{float(value):.17g}" for name, value in scaling._asdict().items()}


def read_scaling(stored: Mapping[str, str]) -> Scaling:
    """The stored decision; `NOTHING_DECIDED` if it cannot be read, for instance because another version stored it."""
    try:
        read = {name: type(default)(float(stored[name])) for name, default in NOTHING_DECIDED._asdict().items()}
    except (KeyError, TypeError, ValueError, OverflowError):
        return NOTHING_DECIDED
    return Scaling(**read)
