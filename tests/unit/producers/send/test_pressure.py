"""What the load means for a bulk job, and how long what waits takes."""

from __future__ import annotations

import math
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, Any

import pytest
import redis

from producers.contract.keys import Keys
from producers.send.pressure import (
    BULK_WAITING_MAX,
    POLL_SECONDS,
    SAMPLED_PARTITIONS,
    BulkPacer,
    BulkPermit,
    Load,
    Throughput,
    load_of,
    load_query,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

EASY = Load(0, 0, 0, 0.1)
FULL = Load(0, BULK_WAITING_MAX, 0, 0.1)
NEARLY = Load(0, round(0.85 * BULK_WAITING_MAX), 0, 0.1)


@pytest.mark.parametrize(
    ("load", "pressure"),
    [
        (Load(10**9, 0, 0, 0.5), 0.0),  # live changes slow nobody down
        (Load(0, BULK_WAITING_MAX // 2, 0, 0.0), 0.5),
        (Load(0, BULK_WAITING_MAX * 9, 0, 0.0), 1.0),
        (Load(0, 0, 0, 0.7), 0.5),
        (Load(0, 0, 0, 1.2), 1.0),
        (Load(0, 0, 0, 0.0), 0.0),
    ],
)
def test_the_pressure_is_the_greater_share_from_0_to_1(load: Load, pressure: float) -> None:
    assert load.pressure == pytest.approx(pressure)


@pytest.mark.parametrize("partitions", [1, 7, 64, 65, SAMPLED_PARTITIONS])
def test_every_partition_is_asked_since_one_owner_may_fill_one_alone(partitions: int) -> None:
    assert len(load_query(Keys("ns"), partitions).commands) == 1 + 11 * partitions


@pytest.mark.parametrize("partitions", [1, 7, 64, 65, SAMPLED_PARTITIONS + 1, 16_384])
def test_the_load_is_that_of_all_partitions_of_which_not_too_many_are_asked(partitions: int) -> None:
    query = load_query(Keys("ns"), partitions)
    asked = (len(query.commands) - 1) // 11
    assert 1 <= asked <= SAMPLED_PARTITIONS
    one: list[Any] = [1, 2, 0, 3, 0, 4, 5, 0, 6, 0, [b"7"]]
    load = load_of([{"used_memory": 30, "maxmemory": 40}, *chain.from_iterable(repeat(one, asked))], partitions)
    assert load == Load(6 * partitions, 15 * partitions, 7 * partitions, 0.75)
    assert (load.before("live"), load.before("bulk")) == (6 * partitions, 21 * partitions)


@pytest.mark.parametrize(
    ("info", "memory"),
    [
        ({"used_memory": 30, "maxmemory": 0, "total_system_memory": 60}, 0.5),
        ({"used_memory": 30, "maxmemory": 0}, 0.0),
        ({}, 0.0),
    ],
)
def test_without_a_limit_the_memory_is_the_machines(info: dict[str, int], memory: float) -> None:
    assert load_of([info, 0, 0, 0, 0, 0, 0, [None]], 1) == Load(0, 0, 0, memory)


def test_throughput_is_measured_between_questions_that_are_far_enough_apart() -> None:
    now = iter([0.0, 0.1, 1.0, 2.0, 3.0])
    throughput = Throughput(lambda: next(now))
    assert (throughput.seconds_for(0), throughput.seconds_for(10)) == (0.0, math.inf)
    for confirmed, rate in ((100, None), (150, None), (300, 200.0), (300, 0.0), (0, 0.0)):
        throughput.note(confirmed)
        assert throughput.per_second == rate
    throughput.per_second = 200.0
    assert throughput.seconds_for(500) == 2.5


def paced(*loads: Load | Exception) -> tuple[BulkPacer, list[str], list[float]]:
    told: list[str] = []
    slept: list[float] = []
    left: Iterator[Load | Exception] = iter(loads)

    def ask() -> Load:
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    return BulkPacer(ask, told.append, slept.append), told, slept


def test_a_bulk_job_waits_until_the_pressure_is_well_below_where_it_stopped() -> None:
    pacer, told, slept = paced(FULL, NEARLY, EASY)
    pacer.wait()
    assert told == ["waits: 2,000,000 bulk changes are waiting, and Redis uses 10% of its memory", "goes on"]
    assert slept == [POLL_SECONDS] * 2


def test_it_asks_before_the_first_thousand_and_then_once_in_ten() -> None:
    pacer, told, _ = paced(EASY, NEARLY)
    for _ in range(20):
        pacer.wait()
    assert told == []
    with pytest.raises(StopIteration):
        pacer.wait()


def permit(*loads: Load | Exception) -> BulkPermit:
    left = iter(loads)

    def ask() -> Load:
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    clock = count(step=2)
    return BulkPermit(ask, lambda: next(clock))


def test_a_relay_asks_for_its_bulk_rows_once_in_ten_batches_and_again_before_each_run_that_had_to_leave_some() -> None:
    asked = permit(EASY, FULL, NEARLY, EASY)
    assert [asked.given() for _ in range(11)] == [True] * 10 + [False]
    assert asked.refused == FULL.reason
    asked.renew()
    assert not asked.given()
    asked.renew()
    assert asked.given()


def test_a_relay_goes_on_if_nobody_can_say_how_much_waits() -> None:
    assert permit(redis.ConnectionError("gone.")).given()


def test_a_redis_that_does_not_answer_is_left_to_sending() -> None:
    pacer, told, slept = paced(FULL, redis.ConnectionError("gone."))
    pacer.wait()
    assert (told[1:], slept) == (["cannot ask how much waits: gone"], [POLL_SECONDS])
