"""What a signal does to a command that owns processes: at the start, between two ticks, and the second time."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from worker.cli.interrupts import Interrupts, losing_no_ctrl_c, noting_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def ended_by(raised: type[BaseException]) -> Iterator[Interrupts]:
    with pytest.raises(raised), noting_interrupts() as interrupts:
        yield interrupts


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_the_start_at_once(number: int, raised: type[BaseException]) -> None:
    with ended_by(raised):
        interrupt(number)
        pytest.fail("it went on")


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_between_two_ticks_lets_what_is_in_hand_be_finished(number: int, raised: type[BaseException]) -> None:
    ticks = 0
    finished = 0
    with ended_by(raised) as interrupts:
        for _ in interrupts.ticks(0):
            ticks += 1
            if ticks == 2:
                interrupt(number)
            finished += 1
    assert (ticks, finished) == (2, 2)


def test_a_signal_ends_the_wait_for_the_next_tick() -> None:
    with ended_by(KeyboardInterrupt) as interrupts:
        for _ in interrupts.ticks(3600):
            interrupt()


def test_an_interrupt_that_was_lost_at_the_start_ends_it_before_the_first_tick() -> None:
    with ended_by(KeyboardInterrupt) as interrupts:
        with suppress(KeyboardInterrupt):  # as Python does in a destructor
            interrupt()
        for _ in interrupts.ticks(0):
            pytest.fail("it ticked")


def test_a_second_signal_ends_what_is_in_hand() -> None:
    finished = False
    with ended_by(KeyboardInterrupt) as interrupts:
        for _ in interrupts.ticks(0):
            interrupt()
            interrupt()
            finished = True
    assert not finished


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with noting_interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class InterruptedAsItGoes:
    def __del__(self) -> None:
        interrupt()


def test_a_ctrl_c_that_python_ignores_in_a_destructor_is_raised_again() -> None:
    with losing_no_ctrl_c():
        InterruptedAsItGoes()
        with pytest.raises(KeyboardInterrupt):
            signal.pause()


class BrokenAsItGoes:
    def __del__(self) -> None:
        raise ValueError("it is broken")


def test_what_else_goes_wrong_in_a_destructor_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(str(lost.exc_value)))
    with losing_no_ctrl_c():
        BrokenAsItGoes()
    assert told == ["it is broken"]
