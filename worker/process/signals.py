"""What signals mean to a worker: the first one lets it finish what it has in hand, one more ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any, Final, NoReturn

from billiard.process import active_children
from celery import bootsteps, platforms
from celery.worker import state as worker_state

from worker.process.stopping import STOPPING

SAME_SECONDS: Final = 0.5
"""Two signals so close to each other are one request: Ctrl-C reaches all processes of a terminal, and whoever started
the worker often passes it on once more."""

_NAMES: Final = ("SIGTERM", "SIGINT", "SIGQUIT")


def end_before_start() -> None:
    """Lets a signal end a process that still waits for its Redis: as a container's first it would not end at all."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(os.EX_OK)

    for name in _NAMES:
        platforms.signals[name] = end


class SignalStep(bootsteps.StartStopStep):
    """Takes the signals over from Celery, so that they mean the same in either pool.

    Celery's own second SIGTERM does nothing, its Ctrl-C ends with status 1, and its cold shutdown fails in a pool of
    threads, which it cannot end.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, _worker: Any, **_: Any) -> None:
        self._pid = 0
        self._first: float | None = None

    def start(self, _worker: Any) -> None:
        """From here on signals are ours."""
        self._pid = os.getpid()
        for name in _NAMES:
            platforms.signals[name] = self._on_signal  # which does nothing where we are not in the main thread

    def close(self, _worker: Any) -> None:
        """The worker stops, for whatever reason: not every one is a signal."""
        STOPPING.set()

    def _on_signal(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:
            return  # a child that was forked just now, and has not yet set up its own
        if self._first is None:
            self._first = time.monotonic()
            STOPPING.set()
            worker_state.should_stop = os.EX_OK  # type: ignore[assignment] # a status, as its own code reads it
            _say("stopping; one more signal ends it at once")
        elif time.monotonic() - self._first > SAME_SECONDS:
            _say("ended at once; what was in hand is repaired")
            end_at_once(128 + number)


def end_at_once(status: int) -> NoReturn:
    """Ends this process and its pool's children, whatever they do; their leases expire, and whoever is next repairs.

    Args:
        status: the process' exit status.
    """
    for child in active_children():
        if child.pid is not None:
            with suppress(OSError):
                os.kill(child.pid, signal.SIGKILL)
    os._exit(status)


def _say(what: str) -> None:
    # Written as it stands: the code that a signal interrupts may hold the lock of a log.
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"contact-sync: worker {what}\n".encode())
