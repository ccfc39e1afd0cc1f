"""The fleet's rate at endpoints that limit and change their limit, on a clock of their own."""

from __future__ import annotations

import heapq
import math
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.concurrency import Concurrency
from worker.core.rate import LEAST_SHARE, MOST_SHARE, Pace, Slot

if TYPE_CHECKING:
    from collections.abc import Callable

LATENCY_MS = 20


class Bucket:
    """An endpoint with a bucket of permits that holds a second's worth, as the stand-in has it."""

    seconds = 1.0

    def __init__(self, limit: Callable[[float], float]) -> None:
        self._limit, self._permits, self._filled_ms = limit, max(1.0, limit(0) * self.seconds), 0.0

    def take(self, now_ms: float) -> float | None:
        """None, or after how many ms to ask again."""
        limit = self._limit(now_ms)
        most = max(1.0, limit * self.seconds)
        self._permits = min(most, self._permits + (now_ms - self._filled_ms) * limit / 1000)
        self._filled_ms = now_ms
        if self._permits >= 1:
            self._permits -= 1
            return None
        return 1000 * math.ceil((1 - self._permits) / limit)


class SmallBucket(Bucket):
    seconds = 0.25


class LargeBucket(Bucket):
    seconds = 5.0


class Windows:
    """An endpoint that lets so many through in each second of its clock."""

    def __init__(self, limit: Callable[[float], float]) -> None:
        self._limit, self._second, self._many = limit, -1, 0

    def take(self, now_ms: float) -> float | None:
        """None, or after how many ms to ask again."""
        if now_ms // 1000 != self._second:
            self._second, self._many = int(now_ms // 1000), 0
        if self._many < self._limit(now_ms):
            self._many += 1
            return None
        return 1000


class SlidingWindow:
    """An endpoint that lets so many through in any second."""

    def __init__(self, limit: Callable[[float], float]) -> None:
        self._limit = limit
        self._let: list[float] = []

    def take(self, now_ms: float) -> float | None:
        """None, or after how many ms to ask again."""
        self._let = [each for each in self._let if each > now_ms - 1000]
        if len(self._let) < self._limit(now_ms):
            self._let.append(now_ms)
            return None
        return 1000


Endpoint = Bucket | Windows | SlidingWindow
BY_THE_SECOND: list[type[Endpoint]] = [Bucket, Windows, SlidingWindow]
ALL = [*BY_THE_SECOND, SmallBucket, LargeBucket]


def requests(  # noqa: C901, PLR0912, PLR0913 - a run is made of so much, and has one clause for each event
    endpoint: Endpoint,
    *,
    until_ms: float = math.inf,
    many: float = math.inf,
    processes: int = 2,
    most: float = 0.0,
    seed: int = 1,
) -> tuple[list[float], int]:
    """When each request was confirmed, and how many were answered with a 429.

    Each process asks for a place, prepares its request, sends it, and asks again, as a worker does.
    """
    pace, flight, draw = Pace(), Concurrency(), Random(seed)
    todo: list[tuple[float, int, str, int]] = [(draw.uniform(0, 50), i, "ask", 0) for i in range(processes)]
    done: list[float] = []
    limited, under_way, generation, order = 0, 0, 0, processes
    while todo and len(done) < many:
        now, _, what, asked = heapq.heappop(todo)
        if now > until_ms:
            break
        following: list[tuple[float, str, int]] = []
        if what == "ask":
            denied, start = pace.ask(now, most) if flight.ask(now, under_way) else (draw.uniform(5, 20), 0.0)
            if denied > 0:
                following = [(denied + draw.uniform(0, 4), "ask", 0)]
            else:
                under_way += 1
                following = [(max(start, draw.uniform(2, 8) * processes), "send", generation)]
        elif what == "send" and asked != generation:
            under_way -= 1
            following = [(1, "ask", 0)]
        elif what == "send":
            following = [(LATENCY_MS / 2, "arrive", asked), (1, "ask", 0)]
        elif what == "arrive":
            refused = endpoint.take(now)
            following = [(LATENCY_MS / 2, "confirmed" if refused is None else f"wait {refused:.0f}", asked)]
        else:
            under_way -= 1
            if what == "confirmed":
                flight.succeed(now, LATENCY_MS, under_way + 1)
                pace.confirm(now, most)
                done.append(now)
            else:
                limited += 1
                if asked == generation and pace.lower(now, most, float(what.split()[1])):
                    generation += 1
        for passed, then, of in following:
            order += 1
            heapq.heappush(todo, (now + passed, order, then, of))
    return done, limited


def a_second(done: list[float], begin_s: float, end_s: float) -> float:
    return sum(begin_s * 1000 <= each < end_s * 1000 for each in done) / (end_s - begin_s)


@pytest.mark.parametrize("endpoint", BY_THE_SECOND)
@pytest.mark.parametrize("processes", [2, 8])
def test_what_takes_an_endpoint_twenty_seconds_is_done_in_twenty_two(endpoint: type[Endpoint], processes: int) -> None:
    """200,000 pairs at 20 requests a second: the whole time, the first 429 and what was learned from it included."""
    refused = 0
    for seed in range(10):
        done, limited = requests(endpoint(lambda _: 20), many=400, processes=processes, seed=seed)
        assert done[-1] <= 1.1 * 20_000
        refused += limited
    assert refused <= 0.01 * 10 * 400


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize("limit", [5, 20, 100])
def test_an_endpoint_that_limits_is_used_to_seven_tenths_and_hardly_refuses(
    endpoint: type[Endpoint], limit: int
) -> None:
    done, limited = requests(endpoint(lambda _: limit), until_ms=200_000)
    assert a_second(done, 30, 200) >= 0.7 * limit
    assert limited <= 0.01 * len(done) + 10


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize("then", [10, 40])
def test_a_limit_that_changes_is_followed_within_half_a_minute(endpoint: type[Endpoint], then: int) -> None:
    done, _ = requests(endpoint(lambda ms: 20 if ms < 60_000 else then), until_ms=150_000)
    assert a_second(done, 90, 150) >= 0.65 * then
    assert all(a_second(done, second, second + 10) >= 0.5 * then for second in range(90, 140))


def test_there_is_no_limit_until_a_429() -> None:
    pace = Pace()
    assert [pace.ask(now, 0.0) for now in range(100)] == [Slot()] * 100


def test_the_rate_is_lowered_to_nothing_by_no_number_of_429s() -> None:
    pace = Pace()
    pace.confirm(0, 0.0)
    assert pace.lower(10, 0.0, 0)
    assert not pace.lower(20, 0.0, 0), "nothing was confirmed since: that is the backoff's"
    assert pace.rate == 0.96


@pytest.mark.parametrize("wait", [1_000, 5_000])
def test_a_429_soon_after_a_pause_leaves_most_of_the_rate_however_long_a_wait_it_asks_for(wait: int) -> None:
    pace = Pace(rate=20.0, ceiling=20.0)
    for now in range(60_000, 60_600, 50):
        pace.ask(now, 0.0)
        pace.confirm(now, 0.0)
    assert pace.lower(60_600, 0.0, wait)
    assert pace.rate >= 20 * LEAST_SHARE * MOST_SHARE


def test_it_is_not_raised_while_it_does_not_bind() -> None:
    pace = Pace(rate=20.0, ceiling=20.0)
    for now in range(0, 60_000, 500):  # two a second
        assert pace.ask(now, 0.0).denied_ms == 0
        pace.confirm(now, 0.0)
    assert pace.rate == 20.0


def test_a_configured_most_is_never_exceeded_and_a_429_still_lowers_it() -> None:
    done, _ = requests(Bucket(lambda _: 1000), until_ms=30_000, most=20.0)
    assert max(a_second(done, second, second + 1) for second in range(29)) <= 22
    lowered, _ = requests(Bucket(lambda _: 10), until_ms=60_000, most=20.0)
    assert 8 <= a_second(lowered, 20, 60) <= 10.5


def test_a_stated_limit_is_taken_over_and_not_passed() -> None:
    pace = Pace()
    pace.state(0, 5.0)
    assert pace.limit(0.0) == 5.0
    now = 0.0
    for _ in range(2_000):
        now += 10
        pace.state(now, 5.0)
        if pace.ask(now, 0.0).denied_ms == 0:
            pace.confirm(now, 0.0)
    assert pace.rate == 5.0
    pace.state(now, 9.0)
    assert pace.rate == 9.0


@given(st.lists(st.tuples(st.sampled_from(["ask", "confirm", "lower", "rest"]), st.integers(0, 5_000)), max_size=200))
def test_nobody_is_ever_told_to_wait_for_longer_than_the_pace_needs(steps: list[tuple[str, int]]) -> None:
    pace, now = Pace(), 0.0
    for what, passed in steps:
        now += passed
        if what == "ask":
            wait = pace.ask(now, 0.0).denied_ms
            assert 0 <= wait <= max(0.0, pace.tat - now) + 1_001
        elif what == "confirm":
            pace.confirm(now, 0.0)
        elif what == "lower":
            pace.lower(now, 0.0, 500)
        else:
            pace.rest(now, 0.0, 700)
        assert pace.rate == 0 or pace.rate >= 0.1


def test_a_clock_that_went_back_leaves_no_standstill() -> None:
    pace = Pace(rate=10.0, ceiling=10.0, tat=10_000_000.0)
    assert pace.ask(1_000, 0.0).denied_ms > 0
    pace.clock_went_back(1_000)
    assert pace.ask(1_000, 0.0) == Slot()
