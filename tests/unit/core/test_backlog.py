"""Which partitions share a request: the rule spelled out, and what a choice costs among many."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from worker.core.backlog import PartitionBacklog, Ranked
from worker.core.lane import BULK, CLASSES, LIVE_DELETES

if TYPE_CHECKING:
    from collections.abc import Callable


def of_class(which: int) -> Callable[[PartitionBacklog], int]:
    return lambda each: each.classes[which]


def chosen(  # noqa: C901 - the whole rule, in its order
    left: list[PartitionBacklog], room: int, a_record: float
) -> list[int]:
    """The rule, spelled out for partitions of which none was chosen yet."""
    found: list[PartitionBacklog] = []
    free: float = room

    def take(wanted: Callable[[PartitionBacklog], float], until: float = 0, counted: int = 0) -> None:
        nonlocal free
        free -= sum(map(wanted, found[counted:]))
        for each in left:
            if free > until and each not in found and wanted(each):
                found.append(each)
                free -= wanted(each)

    def records(each: PartitionBacklog) -> float:
        return each.pending + (each.entries + each.bulk_entries) / a_record

    def live_log(each: PartitionBacklog) -> float:
        return each.entries / a_record

    if sum(map(records, left)) > room:
        for which in LIVE_DELETES:
            take(of_class(which))
        take(live_log, free / 2)
        read = len(found)
        mixed = any(each.has_bulk or any(each.classes[1::2]) for each in left)
        for which in range(len(LIVE_DELETES), CLASSES) if mixed else ():
            if which == BULK[0]:
                take(live_log, counted=read)
            take(of_class(which))
    free = room
    take(lambda each: records(each) or 1)
    for goes_along in (lambda each: each.has_bulk, lambda each: any(each.classes[1::2])):
        if found and not any(map(goes_along, found)):
            found += [each for each in left if each not in found and goes_along(each)][:1]
    return [each.partition for each in found]


@pytest.mark.parametrize("seed", range(200))
def test_each_choice_follows_the_rule_for_what_is_left(seed: int) -> None:
    draw = random.Random(seed)
    left = [
        PartitionBacklog(
            p,
            entries=draw.choice((0, 1, 5, 40)),
            bulk_ms=draw.choice((0, 0, 7)),
            bulk_entries=draw.choice((0, 0, 30)),
            classes=[draw.choice((0, 0, 0, 3, 20)) for _ in range(CLASSES)],
        )
        for p in draw.sample(range(99), 30)
    ]
    ranked = Ranked(left)
    while left:
        room, a_record = draw.randint(1, 60), draw.choice((1.0, 2.0, 8.0))
        taken = ranked.take(room, a_record)
        assert taken == chosen(left, room, a_record)
        left = [each for each in left if each.partition not in taken]
    assert ranked.take(10) == []


@pytest.mark.parametrize(("bulk_ms", "partitions"), [(0, 2), (7, 10)])
def test_upserts_that_wait_are_gathered_from_many_partitions_only_if_something_else_may_go_before(
    bulk_ms: int, partitions: int
) -> None:
    waiting = [0, 0, 1, 0, 0, 0, 0, 0]
    each = [PartitionBacklog(p, oldest_ms=1, entries=90, bulk_ms=bulk_ms, classes=waiting) for p in range(20)]
    assert len(Ranked(each).take(100)) == partitions


def test_a_choice_among_many_costs_no_more_than_one_among_few() -> None:
    ranked = Ranked([PartitionBacklog(p, oldest_ms=1, entries=10) for p in range(20_000)])
    begun = time.process_time()
    assert sum(len(ranked.take(10)) for _ in range(20_000)) == 20_000
    assert time.process_time() - begun < 10.0, "each choice looks at all of them"


@pytest.mark.parametrize(("by_ms", "oldest_ms"), [(50, 1_000), (-50, 1_000), (51, 1_051), (-51, 949), (-5_000, 1)])
def test_times_are_converted_to_a_clock_that_differs_by_more_than_a_round_trip(by_ms: int, oldest_ms: int) -> None:
    waiting = PartitionBacklog(0, oldest_ms=1_000)
    waiting.shift(by_ms)
    assert (waiting.oldest_ms, waiting.delete_ms) == (oldest_ms, 0)
