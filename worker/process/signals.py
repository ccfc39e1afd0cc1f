"""What signals mean to a worker: the first lets it finish the requests under way, the next ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from billiard import pool as billiard_pool
from billiard.process import active_children
from celery import bootsteps
from celery.apps import worker as celery_worker
from celery.worker import state as worker_state

from worker.core.timing import FLUSH_BUDGET_SECONDS
from worker.process import runtime
from worker.process.stopping import STOPPING
from worker.store.client import LEASE_PATH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

SAME_SECONDS: Final = 0.5
"""Two signals that come within this time count as one. Ctrl-C reaches all processes of a terminal, and the process that
started the worker often passes it on."""

UNREAD_SECONDS: Final = 0.5
"""Longest time that a child of the pool waits at its end for its parent to read its last result. Ours say nothing. A
parent that stops may never read it, and billiard would let the child wait for half a minute."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def end_before_start() -> None:
    """Makes a signal end a process that still waits for Redis: process 1 of a container ignores it by default."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(os.EX_OK)

    _handle_signals(end)
    # Celery would restart the worker on SIGHUP, also under nohup. It runs the path of our `__main__`, whose directory
    # then hides the package celery behind our own `celery.py`.
    for name in ("install_worker_restart_handler", "install_HUP_not_supported_handler"):
        setattr(celery_worker, name, _keep_handler)


def leave_hangup_to_parent(**_: Any) -> None:
    """Makes a child of the pool ignore SIGHUP: its parent lets it finish, or ignores the signal too.

    A terminal that closes sends SIGHUP to all its processes. Celery's children would die of it in mid-request.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def leave_results_unread(**_: Any) -> None:
    """Lets a child of the pool end although nobody has read its last result."""
    interval = billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL
    billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = round(UNREAD_SECONDS / interval)


def end_without_pause(exitcode: int, **_: Any) -> None:
    """Ends a child of the pool whose worker is stopping; its results have been read.

    billiard would let it sleep for a second, until its parent ends it. A parent that is stopping never does so.
    """
    if STOPPING():
        os._exit(exitcode)


def stop_seconds(request_timeout_seconds: float) -> float:
    """How long a worker that stops may have work (seconds): a flush, its last request, and giving back its leases."""
    return FLUSH_BUDGET_SECONDS + request_timeout_seconds + 2 * LEASE_PATH_SECONDS


def _handle_signals(handler: Callable[[int, Any], None]) -> bool:
    """Sets the handler of each signal; a SIGHUP that `nohup` ignores stays ignored. Returns whether it could."""
    if threading.current_thread() is not threading.main_thread():
        return False  # Python refuses it here, and a worker that runs in a thread of a test is not sent any
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
    return True


def _keep_handler(_worker: Any, **_: Any) -> None:
    """Leaves the handler of SIGHUP as it is."""


class SignalStep(bootsteps.StartStopStep):
    """Takes the signals over from Celery, so that they mean the same in both pools.

    In Celery a second SIGTERM does nothing, Ctrl-C ends with status 1, and a cold shutdown fails in a pool of threads,
    which Celery cannot end. While its broker hangs, Celery does not end at all: after each wait for it comes another.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, _worker: Any, **_: Any) -> None:
        self._pid = 0
        self._first: float | None = None
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._woken, False)
        self._told, self._tells = os.pipe()

    def start(self, worker: Any) -> None:
        """Replaces Celery's signal handlers, and sets a time by which a worker that stops has ended."""
        self._pid = os.getpid()
        if not _handle_signals(self._on_signal):
            return
        seconds = stop_seconds(runtime.settings_of(worker.app).request_timeout_seconds)
        # It runs already when a signal comes: a handler must not start a thread, whose locks it may have interrupted.
        threading.Thread(target=self._end_in_time, args=(seconds,), name="stop", daemon=True).start()

    def register_with_event_loop(self, _worker: Any, hub: Any) -> None:
        """Lets a signal end Celery's wait for the broker, which otherwise takes a second. Called at each connection."""
        hub.add_reader(self._woken, self._clear)

    def _clear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 1)

    def close(self, _worker: Any) -> None:
        """Tells flushes that the worker stops. A signal is only one of the reasons."""
        STOPPING.set()
        os.write(self._tells, b".")

    def _end_in_time(self, seconds: float) -> None:
        os.read(self._told, 1)
        time.sleep(seconds)
        _say("ended without waiting longer for Celery; unfinished work is repaired by other workers")
        end_at_once(worker_state.should_stop or os.EX_OK)  # type: ignore[redundant-expr] # a status by then, see below

    def _on_signal(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:
            return  # a child that was just forked and has not set its own handlers yet
        if self._first is None:
            self._first = time.monotonic()
            STOPPING.set()
            worker_state.should_stop = os.EX_OK  # type: ignore[assignment] # a status, as its own code reads it
            os.write(self._wakes, b".")
            os.write(self._tells, b".")
            _say("is stopping; one more signal ends it at once")
        elif time.monotonic() - self._first > SAME_SECONDS:
            _say("ended at once; unfinished work is repaired by other workers")
            end_at_once(128 + number)


def end_at_once(status: int) -> NoReturn:
    """Ends this process and its pool's children at once; their leases expire, and the next worker repairs their work.

    Args:
        status: the process' exit status.
    """
    for child in active_children():
        if child.pid is not None:
            with suppress(OSError):
                os.kill(child.pid, signal.SIGKILL)
    os._exit(status)


def _say(what: str) -> None:
    # Not logged: the code that the signal interrupts may hold the log's lock.
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"contact-sync: worker {what}\n".encode())
