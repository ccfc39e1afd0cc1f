"""How long changes took, in buckets: each in exactly one, and one by one the same as by the many."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.counters import BOUNDS_SECONDS, OUTCOMES, count_time, count_times, times
from worker.core.outcome import Outcome
from worker.delivery.settle import _OUTCOMES  # how the outcomes are named

T = 1_795_460_847_757


@pytest.mark.parametrize("bound", BOUNDS_SECONDS)
def test_a_bound_is_the_last_that_is_counted_below_it(bound: float) -> None:
    for more_ms, place in ((0, BOUNDS_SECONDS.index(bound)), (1, BOUNDS_SECONDS.index(bound) + 1)):
        totals: Counter[str] = Counter()
        count_time(totals, "upsert", T, T + int(1000 * bound) + more_ms)
        numbers, took_ms = times(totals, "upsert")
        assert numbers.index(1) == place
        assert took_ms == int(1000 * bound) + more_ms


@given(st.lists(st.integers(T - 100_000, T + 5)), st.sampled_from(["upsert", "delete"]))
def test_many_at_once_count_as_each_alone(moments: list[int], op: str) -> None:
    one: Counter[str] = Counter()
    many: Counter[str] = Counter()
    for moment in moments:
        count_time(one, op, moment, T)  # type: ignore[arg-type]
    count_times(many, op, [b"%d-%d" % (moment, i) for i, moment in enumerate(moments)], T)  # type: ignore[arg-type]
    assert one == many
    assert sum(times(many, op)[0]) == len(moments)  # type: ignore[arg-type]


def test_a_clock_that_went_back_takes_no_time() -> None:
    totals: Counter[str] = Counter()
    count_time(totals, "delete", T + 60_000, T)
    assert times(totals, "delete") == ([1] + [0] * len(BOUNDS_SECONDS), 0)


def test_every_outcome_has_its_name() -> None:
    assert set(_OUTCOMES) == set(Outcome.__args__)
    assert sorted(_OUTCOMES.values()) == sorted(OUTCOMES)
