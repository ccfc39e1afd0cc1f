"""One process has several requests under way while the endpoint takes its time, whatever Celery's pool is."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import T
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from worker.process import runtime
from worker.process.pipeline import RUNS_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet

LATENCY_SECONDS = 0.3
OWNERS = 40


@pytest.fixture
def slow(fleet: Fleet) -> Fleet:
    """An endpoint that takes its time, and changes for one request from each of many partitions."""
    fleet.stand_in.settings(latency_seconds=LATENCY_SECONDS)
    fleet.change(partitions=64, batch_size=1, request_timeout_seconds=10.0, lease_seconds=12.0)
    fleet.append_many((str(owner), "2", "upsert", None) for owner in range(OWNERS))
    return fleet


def most_in_flight(fleet: Fleet, done: threading.Event) -> int:
    most = 0
    while not done.wait(0.01):
        most = max(most, fleet.stand_in.counts()["in_flight"])
    return most


def flushed(fleet: Fleet) -> int:
    """Lets one process deliver all; returns how many requests it had under way at most."""
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        most = pool.submit(most_in_flight, fleet, done)
        try:
            wait_until(lambda: fleet.first.flush(10.0) == 0 and not fleet.waits(), seconds=60, what="all is delivered")
        finally:
            done.set()
        return most.result()


def test_a_slow_endpoint_has_several_requests_of_a_process_under_way_none_with_a_pair_of_another(slow: Fleet) -> None:
    assert flushed(slow) >= 4
    sent = Counter(pair for records in slow.requests() for pair in records)
    assert (len(sent), set(sent.values())) == (OWNERS, {1})
    assert len(slow.stand_in.contacts()) == OWNERS
    assert slow.leases() == []


def test_no_more_are_under_way_than_the_fleet_allows(slow: Fleet) -> None:
    slow.change(in_flight=3)
    assert flushed(slow) == 3
    assert len(slow.stand_in.contacts()) == OWNERS


def test_a_process_that_stops_settles_all_that_it_has_under_way(slow: Fleet) -> None:
    told = threading.Event()
    built = runtime.build(slow.settings(), stopping=told.is_set)
    with built.namespace.client, ThreadPoolExecutor(1) as pool:
        running = pool.submit(built.flush, 30.0)
        wait_until(lambda: slow.stand_in.counts()["in_flight"] >= 3, what="several are under way")
        told.set()
        running.result(timeout=30)
        assert slow.stand_in.counts()["in_flight"] == 0
        done = len(slow.stand_in.contacts())
        assert 3 <= done < OWNERS
        assert (slow.backlog(), slow.leases(), slow.holders()) == (OWNERS - done, [], [])
        assert built.flush(1.0) == 0


def test_its_time_is_up_for_all_of_its_runs(slow: Fleet) -> None:
    begun = time.monotonic()
    assert slow.first.flush(LATENCY_SECONDS / 2) >= 1
    assert time.monotonic() - begun < 5.0
    assert slow.waits()
    assert (slow.stand_in.counts()["in_flight"], slow.leases()) == (0, [])


def test_a_second_task_of_the_process_waits_for_the_first_and_does_nothing(slow: Fleet) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow.first.flush, 5.0)
        wait_until(lambda: slow.stand_in.counts()["in_flight"] >= 1, what="it is at work")
        assert slow.first.flush(5.0) == 0
        assert first.result(timeout=1.0) > 0


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_in_any_pool_celerys_concurrency_does_not_decide_how_many_are_under_way(
    slow: Fleet, tmp_path: Path, pool: str
) -> None:
    with WorkerProcess(slow.environment(), tmp_path, ("-P", pool, "-c", "1")) as worker:
        worker.wait_until_ready()
        wait_until(lambda: slow.stand_in.counts()["in_flight"] >= 4, seconds=30, what="several are under way")
        wait_until(lambda: not slow.waits(), seconds=60, what="all is delivered")
        assert worker.end() == 0
    assert slow.holders() == []


def test_runs_that_ended_leave_no_connection_behind(fleet: Fleet) -> None:
    for owner in range(30):
        fleet.append(str(owner), "2", "upsert", T)
        wait_until(lambda: fleet.first.flush(1.0), what="it is delivered")
    mine = [each for each in fleet.client.client_list() if each["name"] == "contact-sync"]
    assert len(mine) <= 5


def test_all_runs_of_a_process_may_ask_redis_at_once(slow: Fleet) -> None:
    pool = runtime.build(slow.settings(), stopping=lambda: False).namespace.client.connection_pool
    asking = [pool.get_connection() for _ in range(2 * RUNS_MAX)]
    for each in asking:
        pool.release(each)
    pool.disconnect()
