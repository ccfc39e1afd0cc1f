"""Which partitions share a request: the rule spelled out, and what a choice costs among many."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from worker.core.backlog import PartitionBacklog, Ranked
from worker.core.lane import CLASSES, LIVE_DELETES

if TYPE_CHECKING:
    from collections.abc import Callable


def chosen(left: list[PartitionBacklog], room: int) -> list[int]:
    """The rule, spelled out for partitions of which none was chosen yet."""
    found: list[PartitionBacklog] = []

    def take(wanted: Callable[[PartitionBacklog], int], until: int) -> None:
        nonlocal room
        for each in left:
            if room > until and each not in found and wanted(each):
                found.append(each)
                room -= wanted(each)

    if sum(each.records for each in left) > room:
        take(lambda each: sum(each.classes[some] for some in LIVE_DELETES), 0)
        take(lambda each: each.entries, room // 2)
    take(lambda each: each.records or 1, 0)
    if found and not any(each.has_bulk for each in found):
        found += [each for each in left if each.has_bulk][:1]
    return [each.partition for each in found]


@pytest.mark.parametrize("seed", range(200))
def test_each_choice_follows_the_rule_for_what_is_left(seed: int) -> None:
    draw = random.Random(seed)
    left = [
        PartitionBacklog(
            p,
            entries=draw.choice((0, 1, 5, 40)),
            bulk_ms=draw.choice((0, 0, 7)),
            classes=[draw.choice((0, 0, 0, 3, 20)) for _ in range(CLASSES)],
        )
        for p in draw.sample(range(99), 30)
    ]
    ranked = Ranked(left)
    while left:
        room = draw.randint(1, 60)
        taken = ranked.take(room)
        assert taken == chosen(left, room)
        left = [each for each in left if each.partition not in taken]
    assert ranked.take(10) == []


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
