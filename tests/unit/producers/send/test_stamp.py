"""Stamps never go back, never run ahead of the clock, and differ for changes of one pair."""

from __future__ import annotations

import threading
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.send import stamp
from producers.send.stamp import Stamper


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.ms = 1_795_460_847_757

    def __call__(self) -> float:
        return self.ms / 1000 + 1e-7  # so that a float's rounding never falls into the millisecond before

    def wait_for(self, stamper: Stamper) -> int:
        """Lets as many milliseconds pass as the stamper asks for, and returns how many."""
        waited = round(stamper.ahead_seconds() * 1000)
        self.ms += waited
        return waited


def test_a_burst_of_distinct_pairs_shares_its_millisecond_and_never_waits() -> None:
    clock = Clock()
    stamper = Stamper(clock)
    stamps = {stamper.stamp(str(number), "1") for number in range(300_000)}
    assert stamps == {clock.ms}
    assert stamper.ahead_seconds() == 0


def test_a_second_change_of_a_pair_takes_the_next_millisecond() -> None:
    clock = Clock()
    stamper = Stamper(clock)
    stamps = [stamper.stamp("1", "2"), stamper.stamp("2", "1"), stamper.stamp("1", "2"), stamper.stamp("1", "2")]
    assert stamps == [clock.ms, clock.ms, clock.ms + 1, clock.ms + 2]
    assert stamper.ahead_seconds() == pytest.approx(0.002, abs=1e-5)


def test_a_hot_pair_in_a_burst_drags_nobody_ahead_of_the_clock() -> None:
    clock = Clock()
    stamper = Stamper(clock)
    for number in range(20_000):
        pairs = [(str(number), "1"), ("hot", "1")] if number % 10 == 0 else [(str(number), "1")]
        for pair in pairs:
            stamped = stamper.stamp(*pair)
            clock.wait_for(stamper)
            assert stamped <= clock.ms


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([0, 0, 0, 1, 2, 50]), st.booleans()), min_size=1, max_size=60
    )
)
def test_stamps_rise_and_are_reached_before_they_are_written(steps: list[tuple[str, int, bool]]) -> None:
    clock = Clock()
    stamper = Stamper(clock)
    stamps: list[int] = []
    of_pair: dict[str, list[int]] = defaultdict(list)
    for pair, passed_ms, writes in steps:
        clock.ms += passed_ms
        stamps.append(stamper.stamp(pair, "1"))
        of_pair[pair].append(stamps[-1])
        if writes:
            clock.wait_for(stamper)
            assert stamps[-1] <= clock.ms
    assert stamps == sorted(stamps)
    assert all(times == sorted(set(times)) for times in of_pair.values())


def test_a_clock_that_went_back_holds_the_stamp_and_stops_nobody() -> None:
    clock = Clock()
    stamper = Stamper(clock)
    before = stamper.stamp("1", "2")
    clock.ms -= 240_000
    assert stamper.stamp("2", "1") == before
    assert stamper.ahead_seconds() == 0
    for repeat in range(1, 100):
        assert stamper.stamp("1", "2") == before + repeat
        assert clock.wait_for(stamper) == 1  # what one pair always takes, not the four minutes
    clock.ms += 7_200_000
    assert stamper.stamp("1", "2") == clock.ms


def test_memory_stays_bounded_where_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamp, "MAX_REMEMBERED_PAIRS", 10)
    clock = Clock()
    stamper = Stamper(clock)
    stamps = [stamper.stamp(str(number), "1") for number in range(25)]
    assert stamps == [clock.ms] * 10 + [clock.ms + 1] * 10 + [clock.ms + 2] * 5


def test_threads_never_give_one_pair_the_same_stamp_twice() -> None:
    stamper = Stamper(Clock())
    stamps: list[int] = []
    threads = [
        threading.Thread(target=lambda: stamps.extend([stamper.stamp("1", "2") for _ in range(2000)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(stamps)) == 16_000


NOW_MS = 1_795_460_847_757


@pytest.mark.parametrize("ahead_seconds", [301, 3600, 10**9])
def test_a_clock_that_was_far_ahead_once_taints_no_later_stamp(ahead_seconds: int) -> None:
    times = iter([NOW_MS / 1000 + ahead_seconds, NOW_MS / 1000, NOW_MS / 1000, NOW_MS / 1000 + 0.001])
    stamper = Stamper(lambda: next(times))
    assert stamper.stamp("1", "2") == NOW_MS + ahead_seconds * 1000
    assert stamper.stamp("1", "3") == NOW_MS
    assert stamper.ahead_seconds() == 0
    assert stamper.stamp("1", "3") == NOW_MS + 1
