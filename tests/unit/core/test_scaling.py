"""How many workers are wanted: rule by rule, and over a simulated day."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from worker.core.scaling import (
    BULK_SECONDS,
    DOWN_MS,
    EVERY_MS,
    FIRST_CAPACITY,
    FORGOTTEN_MS,
    GROWTH,
    NOTHING_DECIDED,
    UP_MS,
    Load,
    Scaling,
    read_scaling,
    write_scaling,
)

T: Final = 1_795_460_847_757
STEP: Final = 5_000


def load(**fields: Any) -> Load:
    """A fleet of two workers at an endpoint without limits that has nothing to do."""
    given: dict[str, Any] = {
        "now_ms": T,
        "workers": 2,
        "partitions": 64,
        "batch_size": 500,
        "linger_seconds": 1.0,
        "accepted": 0,
        "ended": 0,
        "live": 0,
        "bulk": 0,
        "oldest_seconds": 0.0,
        "gate_open": True,
        "rate_binds": False,
        "rate": None,
        "in_flight": 0,
        "in_flight_limit": None,
    }
    return Load(**(given | fields))


BUSY: Final = {"live": 3_000_000, "oldest_seconds": 60.0}
"""More than two workers can do."""


def after(ms: int, scaling: Scaling, **fields: Any) -> Scaling:
    """What is decided if this load lasts for so long."""
    end = scaling.at_ms + ms
    while scaling.at_ms + STEP <= end:
        scaling = scaling.next(load(**{"now_ms": scaling.at_ms + STEP, "workers": scaling.wanted} | fields))
    return scaling


@pytest.fixture
def begun() -> Scaling:
    return NOTHING_DECIDED.next(load())


def test_the_first_decision_is_what_is_there() -> None:
    assert NOTHING_DECIDED.next(load(**BUSY, workers=5)).wanted == 5
    assert NOTHING_DECIDED.next(load(workers=0)).wanted == 1


def test_more_are_wanted_once_they_have_been_needed_for_a_while(begun: Scaling) -> None:
    assert after(UP_MS, begun, **BUSY).wanted == 2
    assert after(UP_MS + STEP, begun, **BUSY).wanted == 2 * GROWTH
    assert after(UP_MS + STEP, begun, **(BUSY | {"oldest_seconds": 3.0})).wanted == 2  # it has only lingered
    assert after(UP_MS + STEP, begun, **(BUSY | {"linger_seconds": 60.0})).wanted == 2


def test_fewer_are_wanted_only_after_long(begun: Scaling) -> None:
    assert after(DOWN_MS, begun).wanted == 2
    assert after(DOWN_MS + STEP, begun).wanted == 1
    assert after(10 * DOWN_MS, begun).wanted == 1  # somebody must notice the next change


def test_a_moment_of_need_begins_the_wait_for_fewer_anew(begun: Scaling) -> None:
    nearly = after(DOWN_MS - STEP, begun)
    assert nearly.below_ms
    busy = after(STEP, nearly, **BUSY)
    assert after(DOWN_MS, busy).wanted == 2


@pytest.mark.parametrize("frozen", [{"gate_open": False}, {"rate_binds": True}], ids=["closed", "bound"])
def test_nothing_moves_while_the_endpoint_decides(begun: Scaling, frozen: dict[str, Any]) -> None:
    assert after(10 * UP_MS, begun, **BUSY, **frozen).wanted == 2
    assert after(2 * DOWN_MS, begun, **frozen).wanted == 2
    assert after(2 * DOWN_MS, begun, **frozen, workers=0).wanted == 2  # they crash: they are still wanted
    # And no time counts in which it decided.
    assert after(UP_MS, after(10 * UP_MS, begun, **BUSY, **frozen), **BUSY).wanted == 2


def test_no_more_are_wanted_than_the_rate_and_the_requests_under_way_have_work_for(begun: Scaling) -> None:
    rate = 3 * FIRST_CAPACITY / 500
    assert after(20 * UP_MS, begun, **BUSY, rate=rate).wanted == 3
    assert after(20 * UP_MS, begun, **BUSY, in_flight=16, in_flight_limit=16).wanted == 2
    assert after(20 * UP_MS, begun, **BUSY, in_flight=4, in_flight_limit=16).wanted > 2
    assert after(20 * UP_MS, begun, **BUSY, partitions=5).wanted == 5


def test_bulk_may_take_its_time(begun: Scaling) -> None:
    in_bulk = int(FIRST_CAPACITY * BULK_SECONDS)
    assert after(20 * UP_MS, begun, bulk=in_bulk).wanted == 2
    assert after(20 * UP_MS, begun, bulk=4 * in_bulk).wanted == 4
    assert after(20 * UP_MS, begun, live=in_bulk, oldest_seconds=60.0).wanted > 10


def test_what_a_worker_delivers_is_learned_while_none_is_idle(begun: Scaling) -> None:
    scaling, ended = begun, 0
    for _ in range(40):
        ended += 2 * 1_000 * STEP // 1000
        scaling = scaling.next(load(**BUSY, now_ms=scaling.at_ms + STEP, ended=ended))
    assert scaling.capacity == pytest.approx(1_000, rel=0.05)
    idle = after(2 * DOWN_MS, scaling, ended=ended)
    assert idle.capacity == scaling.capacity


def test_a_decision_that_is_too_early_is_the_last_one(begun: Scaling) -> None:
    assert begun.next(load(**BUSY, now_ms=T + EVERY_MS - 1)) is begun


def test_what_was_decided_long_ago_or_by_another_clock_is_forgotten(begun: Scaling) -> None:
    for now_ms in (T + FORGOTTEN_MS, T - 60_000):
        assert begun.next(load(now_ms=now_ms, workers=7)).wanted == 7


def test_a_decision_is_read_as_it_was_written(begun: Scaling) -> None:
    scaling = after(UP_MS, begun, **BUSY, accepted=2**52)
    assert read_scaling(write_scaling(scaling)) == scaling
    assert read_scaling({}) == NOTHING_DECIDED
    assert read_scaling({**write_scaling(scaling), "wanted": "x"}) == NOTHING_DECIDED
    assert read_scaling({**write_scaling(scaling), "wanted": "inf"}) == NOTHING_DECIDED


HOUR: Final = 3_600
CAPACITY: Final = 4_000
PAIRS: Final = 2_000_000
RATE: Final = 30.0  # requests a second that the endpoint allows in the evening


@dataclass
class Day:
    """A day of a fleet, in steps of five seconds. What is wanted is there after 40 s, and gone after 10 s."""

    draw: random.Random
    scaling: Scaling = NOTHING_DECIDED
    workers: int = 2
    orders: list[tuple[int, int]] = field(default_factory=list)
    accepted: int = 0
    ended: int = 0
    live: float = 0.0
    bulk: float = 0.0
    changes: list[tuple[int, int, int]] = field(default_factory=list)
    """When what is wanted changed, from what, and to what."""
    ages: dict[int, float] = field(default_factory=dict)
    waiting: dict[int, tuple[float, float]] = field(default_factory=dict)

    def arrivals(self, second: int) -> float:
        """Live changes a second: few at night, many in office hours, and a wave now and then."""
        office = max(0.0, 1 - abs(second - 13 * HOUR) / (5 * HOUR))
        wave = 1.0 + (second // 300 % 7 == 0) * 0.3
        return (20 + 9_000 * office) * wave * self.draw.uniform(0.8, 1.2)

    def live_through(self) -> None:
        oldest = 0.0
        for second in range(0, 24 * HOUR, STEP // 1000):
            closed = 14 * HOUR <= second < 16 * HOUR
            limited = second >= 20 * HOUR
            oldest = self.pass_time(second, oldest, closed=closed, limited=limited)
            now_ms = T + second * 1000
            room = self.workers * CAPACITY
            asked = self.live + self.bulk > 20_000
            self.scaling = self.scaling.next(
                load(
                    now_ms=now_ms,
                    workers=self.workers,
                    accepted=self.accepted,
                    ended=self.ended,
                    live=int(self.live),
                    bulk=int(self.bulk),
                    oldest_seconds=oldest,
                    gate_open=not closed,
                    rate_binds=limited and asked and room > RATE * 500,
                    rate=RATE if limited else None,
                )
            )
            before = self.changes[-1][2] if self.changes else 2
            if self.scaling.wanted != before:
                self.changes.append((second, before, self.scaling.wanted))
                self.orders.append((second + (40 if self.scaling.wanted > before else 10), self.scaling.wanted))
            while self.orders and self.orders[0][0] <= second:
                self.workers = self.orders.pop(0)[1]

    def pass_time(self, second: int, oldest: float, *, closed: bool, limited: bool) -> float:
        """What arrives and is delivered in one step; the age of the oldest live change after it."""
        seconds = STEP / 1000
        came = self.arrivals(second) * seconds
        joined = came * min(1.0, self.live / PAIRS)  # pairs that wait already
        self.live += came - joined
        self.accepted += int(came)
        self.ended += int(joined)
        if 11 * HOUR <= second < 11 * HOUR + 300:  # an import, as fast as somebody can write it
            self.bulk += 20_000 * seconds
            self.accepted += int(20_000 * seconds)
        if 21 * HOUR <= second < 21 * HOUR + 300:
            self.bulk += 10_000 * seconds
            self.accepted += int(10_000 * seconds)
        room = 0.0 if closed else self.workers * CAPACITY * self.draw.uniform(0.9, 1.1) * seconds
        room = min(room, RATE * 500 * seconds) if limited else room
        live = min(self.live, room * (0.9 if self.bulk else 1.0))
        bulk = min(self.bulk, room - live)
        was = self.live
        self.live, self.bulk = self.live - live, self.bulk - bulk
        self.ended += int(live + bulk)
        oldest = 0.0 if not self.live else (oldest + seconds) * (1 - live / was)
        self.ages[second], self.waiting[second] = oldest, (self.live, self.bulk)
        return oldest


@pytest.fixture(scope="module", params=range(5))
def day(request: pytest.FixtureRequest) -> Day:
    found = Day(random.Random(request.param))
    found.live_through()
    return found


def test_over_a_day_it_does_not_flap(day: Day) -> None:
    assert len(day.changes) <= 40
    for (second, before, after), (next_second, _, next_after) in zip(day.changes, day.changes[1:], strict=False):
        turned = (after > before) != (next_after > after)
        assert not turned or next_second - second >= DOWN_MS / 1000, day.changes


def test_over_a_day_nothing_moves_against_a_closed_gate(day: Day) -> None:
    assert not [second for second, _, _ in day.changes if 14 * HOUR <= second < 16 * HOUR]


def test_over_a_day_the_work_is_done(day: Day) -> None:
    ages = [age for second, age in day.ages.items() if not 14 * HOUR <= second < 16 * HOUR + 600]
    assert sorted(ages)[int(len(ages) * 0.99)] < 60, max(ages)
    after_outage = next(second for second in range(16 * HOUR, 24 * HOUR, 5) if day.waiting[second][0] < 100_000)
    assert after_outage < 16 * HOUR + 600
    imported = next(second for second in range(11 * HOUR + 300, 24 * HOUR, 5) if day.waiting[second][1] < 1_000)
    assert imported < 11 * HOUR + 2 * BULK_SECONDS


def test_over_a_day_no_more_run_than_are_needed(day: Day) -> None:
    wanted = {second: after for second, _, after in day.changes}
    at_night = [after for second, after in wanted.items() if 3 * HOUR <= second < 7 * HOUR]
    assert set(at_night) <= {1}
    assert max(wanted.values()) <= 40
    assert day.workers == 1  # at midnight
