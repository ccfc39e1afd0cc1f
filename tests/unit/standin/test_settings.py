from __future__ import annotations

from dataclasses import dataclass

from worker.standin.settings import RateLimit


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_second_holds_as_many_requests_as_the_rate_says() -> None:
    clock = Clock()
    limit = RateLimit(3, clock)
    assert [limit.take() for _ in range(4)] == [0, 0, 0, 1]
    clock.now += 1
    assert [limit.take() for _ in range(4)] == [0, 0, 0, 1]


def test_idle_time_is_saved_up_for_one_second_only() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    clock.now += 3600
    assert [limit.take() for _ in range(3)] == [0, 0, 1]


def test_who_waits_as_long_as_told_is_let_in() -> None:
    clock = Clock()
    limit = RateLimit(0.3, clock)
    assert limit.take() == 0
    clock.now += 1
    wait_seconds = limit.take()
    assert wait_seconds == 3  # 2.33 and no fraction: Retry-After knows whole seconds only
    clock.now += wait_seconds
    assert limit.take() == 0
