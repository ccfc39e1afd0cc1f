"""Keeps several requests under way in one process: while some wait for the endpoint, others read, join and settle.

Each request belongs to a run of the flush loop, in a thread of its own. A run is added when all others wait for the
endpoint and a request takes longer than the work for the next. So an endpoint that answers at once gets one run of a
process, and a slow one as many as the fleet's limit of requests under way allows. Celery's concurrency decides only how
many processes there are.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.core.outcome import Answer, NoAnswer
    from worker.delivery.request import Sender

RUNS_MAX: Final = 128
"""Most runs in a process, so most connections to Redis and to the endpoint that it opens."""

CHECK_SECONDS: Final = 0.01
"""How often it is checked whether all runs wait for an endpoint that has become slower."""

REST_SECONDS: Final = 0.05
"""After a run found nothing to do, none is added for this long: it would find as little."""

BESIDE_SECONDS: Final = 0.25
"""The same beyond the budget of the task: for as long as a request may hang, it would cost much of a core."""

STALLED_SECONDS: Final = 0.2
STALLED_RUNS: Final = 4
"""If no run has moved for this long, one may be waiting for a Redis node that does not answer. Then another is added,
up to this many, to go on with the partitions of other nodes."""

STRAGGLES_SECONDS: Final = 1.0
"""A request that takes so much longer than four others straggles. While one does that was begun in the task's budget,
the other runs go on beyond it, this long at a time: else the process would stand still until that request's timeout."""

AT_WORK: Final = 4
"""Most runs that work at once, and do not wait for the endpoint, if Redis is far away: their work is waiting for it."""

_WEIGHT: Final = 0.2
"""Weight of the newest request in the moving means."""

_QUICK: Final = 0.7
"""Requests that take less than this share of the time between them are worth one run alone: two would compete for one
interpreter, and for cores that Redis and the endpoint may need."""


@dataclass(slots=True)
class _Run:
    """One run of the flush loop, in its thread.

    Attributes:
        since: when it began to work for its next request (monotonic, seconds).
        cpu: the processor time of its thread at that moment (seconds).
        dismissed: whether it ends before its next round.
    """

    since: float
    cpu: float
    dismissed: bool = False


class Pipeline:
    """The runs of this process. Made after the fork: its threads and its lock are not for children.

    It is the `Sender` of its runs, and their `wait` and `stopping`: so it knows what each of them is doing.

    Args:
        sender: what sends.
        stopping: whether the process is ending.
        monotonic: a clock, in seconds.
    """

    def __init__(self, sender: Sender, stopping: Callable[[], bool], monotonic: Callable[[], float]) -> None:
        self._sender = sender
        self._stopping = stopping
        self._monotonic = monotonic
        self._of_thread = threading.local()
        self._changed = threading.Condition()
        self._flush: Callable[[float], int] = _nothing
        self._budget_ends = self._ends = 0.0
        self._threads_busy = self._runs = self._waiting = self._rounds = 0
        self._begun: dict[int, float] = {}
        self._moved: dict[int, float] = {}
        self._rests = 0.0
        self._error: BaseException | None = None
        self._request_seconds = self._work_seconds = self._cpu_seconds = 0.0

    # What it does for a task

    def run(self, flush: Callable[[float], int], budget_seconds: float) -> int:
        """Flushes by as many runs as it takes while something is due and the budget lasts; returns the rounds.

        If another thread of the process does so already, waits for its end: one pipeline uses an interpreter up.

        Args:
            flush: one run; takes its budget (seconds) and returns its rounds.
            budget_seconds: when no further round begins.

        Raises:
            redis.RedisError: what one of the runs raised; all others ended as well.
            RuntimeError: no thread can be started for the first run.
        """
        with self._changed:
            if self._at_work():
                self._changed.wait_for(lambda: not self._at_work())
                return 0
            self._flush = flush
            self._budget_ends = self._ends = self._monotonic() + budget_seconds
            self._rounds, self._rests, self._error = 0, 0.0, None
            self._add()
            while self._at_work():
                self._changed.wait(CHECK_SECONDS)
                self._go_on_beside_straggler()
                self._add_if_all_wait()
                self._add_if_stalled()
            return self._result()

    # What its runs call

    def send(self, body: bytes, server_key: str, deadline_monotonic: float | None = None) -> Answer | NoAnswer:
        """Sends as the sender does; another run may be added meanwhile."""
        run = self._current()
        if run is None:
            return self._sender.send(body, server_key, deadline_monotonic)
        began, used = self._monotonic(), time.thread_time() - run.cpu
        with self._changed:
            self._work_seconds = _mean(self._work_seconds, began - run.since)
            self._cpu_seconds = _mean(self._cpu_seconds, used)
            self._begun[id(run)] = began
            self._add_if_all_wait()
        try:
            return self._sender.send(body, server_key, deadline_monotonic)
        finally:
            run.since, run.cpu = self._monotonic(), time.thread_time()
            with self._changed:
                del self._begun[id(run)]
                self._moved[id(run)] = run.since
                self._request_seconds = _mean(self._request_seconds, run.since - began)

    def distrust(self) -> None:
        """Stops using the connection of this thread's last answer."""
        self._sender.distrust()

    def wait(self, seconds: float) -> None:
        """Waits until a run may ask again for a place; if another run waits already, this one ends instead."""
        run = self._current()
        if run is not None:
            with self._changed:
                if self._waiting:
                    self._dismiss(run)
                    return
                self._waiting += 1
                self._moved[id(run)] = math.inf
        began = self._monotonic()
        try:
            time.sleep(seconds)
        finally:
            if run is not None:
                now = self._monotonic()
                run.since += now - began
                with self._changed:
                    self._waiting -= 1
                    self._moved[id(run)] = now

    def rest(self, seconds: float) -> None:
        """Waits until the request that a run has made ready may go out; this does not count as work."""
        time.sleep(seconds)
        run = self._current()
        if run is not None:
            run.since += seconds

    def stopping(self) -> bool:
        """Whether a run begins no further round: the process is ending, or there are more runs than it takes."""
        run = self._current()
        if run is not None and not run.dismissed:
            with self._changed:
                self._moved[id(run)] = self._monotonic()
                if self._moving() > self._at_work_most() and self._latency() < _QUICK * self._work_seconds:
                    self._dismiss(run)
        return self._stopping() or (run is not None and run.dismissed)

    # Within: with the lock held

    def _current(self) -> _Run | None:
        run: _Run | None = getattr(self._of_thread, "run", None)
        return run

    def _at_work(self) -> bool:
        return self._threads_busy > 0

    def _result(self) -> int:
        if self._error is not None:
            raise self._error
        return self._rounds

    def _go_on_beside_straggler(self) -> None:
        now = self._monotonic()
        if now < self._ends or self._error is not None or self._stopping():
            return
        oldest = min(self._begun.values(), default=now)
        if oldest < self._budget_ends and now - oldest > STRAGGLES_SECONDS + 4 * self._request_seconds:
            self._ends = now + STRAGGLES_SECONDS

    def _add_if_all_wait(self) -> None:
        if not self._begun or self._runs >= RUNS_MAX:
            return
        most = self._at_work_most()
        if self._moving() - len(self._begun) >= most or (most == 1 and self._latency() < self._work_seconds):
            return
        if self._rests <= self._monotonic() < self._ends and not self._stopping():
            self._add()

    def _add_if_stalled(self) -> None:
        if self._moving() or not 0 < self._runs < STALLED_RUNS or self._error is not None:
            return
        if self._rests <= self._monotonic() < self._ends and not self._stopping():
            self._add()

    def _at_work_most(self) -> int:
        """How many runs may work at once: one, unless most of the work is to wait for Redis."""
        return max(1, min(AT_WORK, int(self._work_seconds / max(2 * self._cpu_seconds, 1e-6))))

    def _moving(self) -> int:
        """How many runs there are, without those that have not moved for long and do not wait for the endpoint."""
        long_ago = self._monotonic() - STALLED_SECONDS
        return self._runs - sum(moved < long_ago and run not in self._begun for run, moved in self._moved.items())

    def _latency(self) -> float:
        """What a request takes; one that takes longer than those before tells of it before it ends."""
        oldest = self._monotonic() - min(self._begun.values()) if self._begun else 0.0
        return max(self._request_seconds, oldest)

    def _add(self) -> None:
        try:
            threading.Thread(target=self._work, name="flush").start()  # it begins once the lock is free
        except RuntimeError:  # the machine, or the container, lets the process have no more threads
            if not self._at_work():
                raise
            self._rests = self._monotonic() + REST_SECONDS
            return
        self._runs += 1
        self._threads_busy += 1

    def _dismiss(self, run: _Run) -> None:
        run.dismissed = True
        self._runs -= 1
        del self._moved[id(run)]

    def _work(self) -> None:
        with self._changed:
            run = self._of_thread.run = _Run(self._monotonic(), time.thread_time())
            self._moved[id(run)] = run.since
        rounds, error = 0, None
        try:
            rounds = self._flush(max(0.0, self._ends - self._monotonic()))
        except BaseException as raised:  # noqa: BLE001 - raised again in the thread of the task
            error = raised
        self._of_thread.run = None
        with self._changed:
            self._threads_busy -= 1
            self._moved.pop(id(run), None)
            self._rounds += rounds
            self._error = self._error or error
            if not run.dismissed:
                self._runs -= 1
                now = self._monotonic()
                self._rests = now + (REST_SECONDS if now < self._budget_ends else BESIDE_SECONDS)
            if not self._threads_busy:
                self._changed.notify_all()


def _nothing(_seconds: float) -> int:
    return 0


def _mean(mean: float, newest: float) -> float:
    return newest if mean <= 0 else mean + _WEIGHT * (newest - mean)
