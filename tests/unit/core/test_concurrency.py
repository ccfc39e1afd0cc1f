"""The limit of requests under way at endpoints whose latency has a knee, on a clock of their own."""

from __future__ import annotations

import heapq
from random import Random
from typing import TYPE_CHECKING

import pytest

from worker.core.concurrency import FIRST_REQUESTS, SLOW_MS, START, Concurrency

if TYPE_CHECKING:
    from collections.abc import Callable

PREPARES_MS = 5.0


def throughput(
    latency: Callable[[int], float], threads: int, *, fixed: int = 0, until_ms: float = 20_000
) -> tuple[float, list[tuple[float, float]]]:
    """Requests a second after the first five, and the limit as it moved."""
    limit, draw, under_way, on_the_wire, done = Concurrency(), Random(1), 0, 0, 0
    moves: list[tuple[float, float]] = []
    todo = [(draw.random() * 20, i, "ask", 0.0) for i in range(threads)]
    heapq.heapify(todo)
    order = threads
    while todo[0][0] <= until_ms:
        now, _, what, began = heapq.heappop(todo)
        order += 1
        if what == "ask":
            if under_way < fixed if fixed else limit.ask(int(now), under_way):
                under_way += 1
                heapq.heappush(todo, (now + PREPARES_MS, order, "send", 0.0))
            else:
                heapq.heappush(todo, (now + 2 + 4 * draw.random(), order, "ask", 0.0))
        elif what == "send":
            on_the_wire += 1
            heapq.heappush(todo, (now + latency(on_the_wire) * draw.uniform(0.9, 1.1), order, "end", now))
        else:
            limit.succeed(int(now), now - began, under_way)
            under_way, on_the_wire, done = under_way - 1, on_the_wire - 1, done + (now >= 5_000)
            moves.append((now, limit.limit))
            heapq.heappush(todo, (now, order, "ask", 0.0))
    return done * 1000 / (until_ms - 5_000), moves


def test_an_endpoint_of_a_tenth_of_a_second_has_48_under_way_soon() -> None:
    _, moves = throughput(lambda _: 100.0, 48, until_ms=6_000)
    assert next(now for now, limit in moves if limit >= 48) <= 550


@pytest.mark.parametrize("threads", [12, 48])
def test_where_latency_doubles_above_eight_it_is_nearly_as_fast_as_the_best_fixed_number(threads: int) -> None:
    def latency(under_way: int) -> float:
        return 100.0 if under_way <= 8 else 200.0

    best = max(throughput(latency, threads, fixed=each)[0] for each in (4, 6, 8, 9, 12, 16, 24, 48) if each <= threads)
    assert throughput(latency, threads)[0] >= 0.88 * best


def test_where_requests_queue_at_the_endpoint_the_limit_stays_near_what_keeps_it_busy() -> None:
    found, moves = throughput(lambda under_way: 100.0 * max(1.0, under_way / 8), 48)
    assert found >= 70
    assert moves[-1][1] <= 24


def test_failures_take_a_tenth_a_round_and_no_limit_falls_below_one() -> None:
    limit = Concurrency(limit=20.0, settled=1.0, mean=100.0, least=100.0)
    limit.fail(1_000)
    assert limit.limit == 18
    limit.fail(1_001)
    assert limit.limit == 18, "one round, one decrease"
    for now in range(2_000, 60_000, 1_000):
        limit.fail(now)
    assert limit.limit == 1


def test_latency_alone_leaves_four() -> None:
    limit = Concurrency()
    for now in range(0, 60_000, 50):
        limit.ask(now, 8)
        limit.succeed(now, 40.0 + now / 20, 8)
        assert limit.limit >= START


def test_the_limit_doubles_only_once_so_many_quick_requests_have_succeeded() -> None:
    """An endpoint that allows 20 a second answers the 21st with a 429: few are under way then."""
    limit = Concurrency()
    for i in range(1, int(FIRST_REQUESTS) + 1):
        now = i * 10
        assert limit.ask(now, 3)
        assert limit.limit == START
        limit.succeed(now, 20.0, 4)
    assert limit.limit == 2 * START


def test_where_no_answer_comes_soon_twice_as_many_may_be_under_way() -> None:
    limit = Concurrency()
    limit.ask(1_000, 0)
    assert not limit.ask(1_000 + int(SLOW_MS) - 1, 4)
    assert limit.ask(1_000 + int(SLOW_MS), 4)
    assert limit.limit == 2 * START
