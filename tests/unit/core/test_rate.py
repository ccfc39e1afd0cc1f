"""The fleet's rate at endpoints that limit and change their limit, on a clock of their own."""

from __future__ import annotations

import heapq
import math
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.rate import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 8
LATENCY_MS = 20


class Bucket:
    """An endpoint with a bucket of permits that holds a second's worth, as the stand-in has it."""

    def __init__(self, limit: Callable[[float], float]) -> None:
        self._limit, self._permits, self._filled_ms = limit, limit(0), 0

    def take(self, now_ms: int) -> int | None:
        """None, or after how many ms to ask again."""
        limit = self._limit(now_ms)
        self._permits = min(max(1.0, limit), self._permits + (now_ms - self._filled_ms) * limit / 1000)
        self._filled_ms = now_ms
        if self._permits >= 1:
            self._permits -= 1
            return None
        return 1000 * math.ceil((1 - self._permits) / limit)


def requests(limit: Callable[[float], float], until_ms: int, most: float = 0.0) -> tuple[list[int], int]:
    """When each request was confirmed, and how many were answered with a 429."""
    pace, endpoint, draw = Pace(), Bucket(limit), Random(1)
    todo = [(i, i, "ask", 0) for i in range(THREADS)]
    done, limited, generation, order = [], 0, 0, THREADS
    while todo:
        now, _, what, asked = heapq.heappop(todo)
        if now > until_ms:
            break
        order += 1
        wait = pace.ask(now, most) if what == "ask" else 0
        if wait > 0:
            heapq.heappush(todo, (now + math.ceil(min(wait, 1000)) + draw.randrange(4), order, "ask", 0))
        elif what == "ask":
            heapq.heappush(todo, (now + LATENCY_MS, order, "answer", generation))
        else:
            refused = endpoint.take(now)
            if refused is None:
                pace.confirm(now, most)
                done.append(now)
            else:
                limited += 1
                if asked == generation and pace.lower(now, most, refused):
                    generation += 1
            heapq.heappush(todo, (now + 1, order, "ask", 0))
    return done, limited


def a_second(done: list[int], begin_s: int, end_s: int) -> float:
    return sum(begin_s * 1000 <= each < end_s * 1000 for each in done) / (end_s - begin_s)


@pytest.mark.parametrize("limit", [5, 20, 100])
def test_an_endpoint_that_limits_is_used_to_seven_eighths_and_hardly_refuses(limit: int) -> None:
    done, limited = requests(lambda _: limit, 120_000)
    assert a_second(done, 10, 120) >= 0.875 * limit
    assert limited - THREADS <= 0.02 * len(done)  # the first refusals hit whatever was under way


@pytest.mark.parametrize("then", [10, 40])
def test_a_limit_that_changes_is_followed_within_half_a_minute(then: int) -> None:
    done, _ = requests(lambda ms: 20 if ms < 60_000 else then, 150_000)
    assert a_second(done, 90, 150) >= 0.75 * then
    assert all(a_second(done, second, second + 10) >= 0.5 * then for second in range(90, 140))


def test_there_is_no_limit_until_a_429() -> None:
    pace = Pace()
    assert [pace.ask(now, 0.0) for now in range(100)] == [0.0] * 100


def test_the_rate_is_lowered_to_nothing_by_no_number_of_429s() -> None:
    pace = Pace()
    pace.confirm(0, 0.0)
    assert pace.lower(10, 0.0, 0)
    assert not pace.lower(20, 0.0, 0), "nothing was confirmed since: that is the backoff's"
    assert pace.rate == 0.5


def test_it_is_not_raised_while_it_does_not_bind() -> None:
    pace = Pace(rate=20.0, ceiling=20.0)
    for now in range(0, 60_000, 500):  # two a second
        assert pace.ask(now, 0.0) == 0
        pace.confirm(now, 0.0)
    assert pace.rate == 20.0


def test_a_configured_most_is_never_exceeded_and_a_429_still_lowers_it() -> None:
    done, _ = requests(lambda _: 1000, 30_000, most=20.0)
    assert max(a_second(done, second, second + 1) for second in range(29)) <= 22
    lowered, _ = requests(lambda _: 10, 60_000, most=20.0)
    assert 8 <= a_second(lowered, 20, 60) <= 10.5


def test_a_stated_limit_is_taken_over_and_not_passed() -> None:
    pace = Pace()
    pace.state(0, 5.0)
    assert pace.limit(0.0) == 5.0
    now = 0.0
    for _ in range(2_000):
        now += 10
        pace.state(now, 5.0)
        if pace.ask(now, 0.0) == 0:
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
            wait = pace.ask(now, 0.0)
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
    assert pace.ask(1_000, 0.0) > 0
    pace.clock_went_back(1_000)
    assert pace.ask(1_000, 0.0) == 0
