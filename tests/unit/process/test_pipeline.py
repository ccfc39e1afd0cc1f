"""How many runs a pipeline has, by what their requests take; real threads, and runs that do as a flush does."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from worker.core.outcome import NoAnswer
from worker.process.pipeline import STALLED_RUNS, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

WORK_SECONDS = 0.004
SLOW_SECONDS = 0.2
ANSWER = NoAnswer(sent=True, why="it is a test")


class Sender:
    """Takes its time, and counts.

    Attributes:
        seconds: what a request takes.
        under_way: how many there are.
        most: how many there were at most since `most` was set to 0.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.under_way = self.most = 0
        self._lock = threading.Lock()

    def send(self, _body: bytes, _key: str, _deadline: float | None = None) -> NoAnswer:
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        time.sleep(self.seconds)
        with self._lock:
            self.under_way -= 1
        return ANSWER

    def distrust(self) -> None:
        raise AssertionError


def works(seconds: float) -> None:
    """Uses so much processor time, with some round trips to Redis in between."""
    for _ in range(4):
        until = time.thread_time() + seconds / 4
        while time.thread_time() < until:
            pass
        time.sleep(0.0001)


def flushing(pipeline: Pipeline, go_on: Callable[[], bool]) -> Callable[[float], int]:
    """A run that does as a flush does: it works, sends, and asks whether it is to stop."""

    def flush(budget_seconds: float) -> int:
        ends, rounds = time.monotonic() + budget_seconds, 0
        while time.monotonic() < ends and not pipeline.stopping() and go_on():
            works(WORK_SECONDS)
            pipeline.send(b"", "")
            rounds += 1
        return rounds

    return flush


def piped(sender: Sender) -> Pipeline:
    return Pipeline(sender, lambda: False, time.monotonic)


@pytest.mark.slow
def test_a_slow_endpoint_gets_more_and_a_quick_one_fewer_again() -> None:
    sender = Sender(SLOW_SECONDS)
    pipeline = piped(sender)
    assert pipeline.run(flushing(pipeline, lambda: True), 1.5) > 2 * 1.5 / SLOW_SECONDS
    assert sender.most >= 5
    sender.seconds = 0.0
    pipeline.run(flushing(pipeline, lambda: True), 0.5)  # learns it
    sender.most = 0
    pipeline.run(flushing(pipeline, lambda: True), 0.5)
    assert sender.most <= 2


def test_runs_that_mostly_wait_for_a_redis_far_away_work_beside_each_other() -> None:
    sender = Sender(0.0)
    pipeline = piped(sender)

    def flush(budget_seconds: float) -> int:
        ends, rounds = time.monotonic() + budget_seconds, 0
        while time.monotonic() < ends and not pipeline.stopping():
            works(WORK_SECONDS / 4)
            time.sleep(0.1)
            pipeline.send(b"", "")
            rounds += 1
        return rounds

    assert pipeline.run(flush, 1.5) > 20


def test_a_request_that_hangs_does_not_keep_the_others() -> None:
    sender = Sender(0.0)
    pipeline = piped(sender)
    pipeline.run(flushing(pipeline, lambda: True), 0.2)
    first = threading.Lock()

    def flush(budget_seconds: float) -> int:
        if first.acquire(blocking=False):
            sender.seconds = 1.0
            threading.Timer(0.1, setattr, (sender, "seconds", 0.0)).start()
        return flushing(pipeline, lambda: True)(budget_seconds)

    assert pipeline.run(flush, 1.0) > 5


def test_while_a_request_hangs_the_others_go_on_beyond_the_budget() -> None:
    first, began = threading.Lock(), time.monotonic()
    another_was_sent = threading.Event()

    class Hangs(Sender):
        def send(self, body: bytes, key: str, deadline: float | None = None) -> NoAnswer:
            if first.acquire(blocking=False):
                assert another_was_sent.wait(20)
            elif time.monotonic() > began + 2.0:
                another_was_sent.set()
            return super().send(body, key, deadline)

    pipeline = piped(Hangs(0.0))
    pipeline.run(flushing(pipeline, lambda: True), 0.2)
    assert another_was_sent.is_set()


def test_a_run_that_hangs_in_redis_does_not_keep_the_others() -> None:
    pipeline = piped(Sender(0.0))
    first = threading.Lock()

    def flush(budget_seconds: float) -> int:
        if first.acquire(blocking=False):
            time.sleep(1.0)
            return 0
        return flushing(pipeline, lambda: True)(budget_seconds)

    assert pipeline.run(flush, 0.8) > 5


@pytest.mark.slow
def test_no_more_than_a_few_wait_for_a_redis_that_hangs() -> None:
    pipeline = piped(Sender(0.0))
    begun: list[float] = []

    def flush(_budget_seconds: float) -> int:
        begun.append(time.monotonic())
        time.sleep(1.5)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        pipeline.run(flush, 10.0)
    assert 2 <= len(begun) <= STALLED_RUNS


def test_runs_that_find_nothing_end_it_and_are_not_begun_again_and_again() -> None:
    sender = Sender(SLOW_SECONDS)
    pipeline = piped(sender)
    asked: list[float] = []
    tickets = iter(range(4))

    def go_on() -> bool:
        asked.append(time.monotonic())
        return next(tickets, None) is not None

    assert pipeline.run(flushing(pipeline, go_on), 5.0) == 4
    assert len(asked) < 4 + 4 + 5 * SLOW_SECONDS / 0.05


@pytest.mark.slow
def test_what_a_run_raises_is_raised_once_all_have_ended() -> None:
    sender = Sender(SLOW_SECONDS)
    pipeline = piped(sender)
    begun = iter(range(100))

    def flush(_budget_seconds: float) -> int:
        if next(begun) == 2:
            raise ConnectionError
        works(WORK_SECONDS)
        pipeline.send(b"", "")
        return 1

    with pytest.raises(ConnectionError):
        pipeline.run(flush, 5.0)
    assert sender.under_way == 0
    assert pipeline.run(lambda _: 1, 5.0) == 1


def test_one_run_waits_for_a_place_and_others_that_would_end_instead() -> None:
    sender = Sender(SLOW_SECONDS)
    pipeline = piped(sender)
    waiting: list[int] = []
    lock, now_waiting, places = threading.Lock(), [0], threading.Semaphore(2)

    def flush(budget_seconds: float) -> int:
        ends, rounds = time.monotonic() + budget_seconds, 0
        while time.monotonic() < ends and not pipeline.stopping():
            if not places.acquire(blocking=False):
                with lock:
                    now_waiting[0] += 1
                    waiting.append(now_waiting[0])
                pipeline.wait(0.02)
                with lock:
                    now_waiting[0] -= 1
                continue
            works(WORK_SECONDS)
            pipeline.send(b"", "")
            places.release()
            rounds += 1
        return rounds

    assert pipeline.run(flush, 1.0) >= 4
    assert sender.most == 2
    assert 1 <= max(waiting) <= 3


def test_a_call_from_elsewhere_goes_through() -> None:
    pipeline = piped(Sender(0.0))
    assert pipeline.send(b"", "") is ANSWER
    pipeline.wait(0.0)
    assert not pipeline.stopping()


def test_where_no_more_threads_may_start_the_runs_that_there_are_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, start, allowed = Sender(SLOW_SECONDS), threading.Thread.start, [2]

    def start_some(thread: threading.Thread) -> None:
        if not allowed[0]:
            raise RuntimeError("can't start new thread")
        allowed[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    pipeline = piped(sender)
    assert pipeline.run(flushing(pipeline, lambda: True), 0.7) >= 2
    assert sender.most == 2
    with pytest.raises(RuntimeError):
        pipeline.run(flushing(pipeline, lambda: True), 0.1)
    allowed[0] = 1
    assert pipeline.run(flushing(pipeline, lambda: True), 0.1) == 1
