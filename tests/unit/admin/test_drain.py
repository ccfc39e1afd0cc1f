"""Draining, by an injected clock."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.support.snapshot import gate_of, idle_status
from worker.admin.drain import drain

if TYPE_CHECKING:
    from worker.admin.status import Status


def drained(*read: Status, timeout_seconds: float | None = None, ignore_late: bool = False) -> tuple[str, int, float]:
    """How it ended, after how many reads, and when; the last status repeats itself, but not forever."""
    now = 0.0
    seen = 0
    rest = itertools.chain(read, itertools.repeat(read[-1], 100))

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def count(_: Status) -> None:
        nonlocal seen
        seen += 1

    end, _ = drain(
        lambda: next(rest),
        count,
        timeout_seconds=timeout_seconds,
        ignore_late=ignore_late,
        monotonic=lambda: now,
        sleep=sleep,
    )
    return end, seen, now


def test_draining_ends_when_nothing_waits_and_nothing_is_in_flight() -> None:
    assert drained(
        idle_status(backlog_events=1), idle_status(pending_pairs=1), idle_status(in_flight=1), idle_status()
    )[:2] == ("drained", 4)


def test_draining_gives_up_at_the_timeout_and_no_later() -> None:
    end, reads, seconds = drained(idle_status(pending_pairs=1), timeout_seconds=0.9)
    assert (end, reads) == ("timeout", 6)
    assert seconds == pytest.approx(0.9)


def test_draining_reads_once_even_without_any_time() -> None:
    assert drained(idle_status(), timeout_seconds=0)[0] == "drained"
    assert drained(idle_status(backlog_events=1), timeout_seconds=0)[0] == "timeout"


def test_draining_ends_at_once_if_the_endpoint_is_held() -> None:
    assert drained(idle_status(pending_pairs=1, gate=gate_of("held")))[:2] == ("held", 1)


def test_draining_ends_at_once_if_only_a_late_request_is_left_and_the_endpoint_is_held() -> None:
    late = idle_status(late_pairs=1, gate=gate_of("held"))
    assert drained(late)[:2] == ("held", 1)
    assert drained(late, ignore_late=True)[:2] == ("drained", 1)


def test_draining_waits_while_the_endpoint_backs_off() -> None:
    assert drained(idle_status(pending_pairs=1, gate=gate_of("backing_off")), idle_status())[:2] == ("drained", 2)


def test_a_held_endpoint_is_no_obstacle_if_nothing_waits() -> None:
    assert drained(idle_status(gate=gate_of("held")))[0] == "drained"
