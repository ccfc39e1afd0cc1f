"""How commands that own processes end on Ctrl-C or SIGTERM: cleanly, and without losing the signal."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator


EXIT_INTERRUPTED: Final = 130

_AGAIN_SECONDS: Final = 0.05
"""Time until a lost Ctrl-C is raised again: by then the destructor that lost it has returned."""


def heeding_sigterm_as_process_1() -> None:
    """Lets SIGTERM end a process 1 as it ends any other: the kernel drops a signal that a process 1 does not handle.

    A container without an init runs its command as process 1. Commands with a handler of their own replace this one.
    The process ends at once, as by the kernel: an exception could arise in the middle of anything, and leave a
    traceback.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))


@contextmanager
def losing_no_ctrl_c() -> Iterator[None]:
    """Raises a KeyboardInterrupt again if Python ignored it, as it does in a destructor or a weak reference's callback.

    Otherwise a command that is interrupted at such a moment runs on.
    """
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            main = threading.main_thread().ident
            again = threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the block as `sys.exit` does, so that the block closes what it opened. Main thread only.

    Otherwise the process ends at once and leaves the terminal without a cursor. As the first process of a container it
    does not end at all.
    """
    before = signal.signal(signal.SIGTERM, lambda number, _frame: _end(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interrupts:
    """Ends a block on SIGINT or SIGTERM: at once while it starts, and between two ticks from then on.

    If a signal raises an exception just anywhere, Python may ignore it (in a destructor or the callback of a weak
    reference), or a lock may stay held forever. A command that runs for days cannot accept either. So after the first
    tick, a first signal is noted and raised between two ticks, when nothing is half done. A second one raises at once.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._ticking = False
        self._reader, self._writer = os.pipe()

    def on_signal(self, number: int, _frame: object) -> None:
        """The handler of both signals."""
        first, self._asked = self._asked is None, number
        if not (first and self._ticking):
            _end(number)
        os.write(self._writer, b"!")

    def ticks(self, seconds: float) -> Iterator[None]:
        """Yields at once, and then again after each interval, until a signal arrives.

        Args:
            seconds: the interval.

        Raises:
            KeyboardInterrupt: SIGINT arrived, now or before the first tick.
            SystemExit: SIGTERM arrived.
        """
        self._ticking = True
        while self._asked is None:
            yield
            select.select([self._reader], [], [], seconds)
        _end(self._asked)

    def close(self) -> None:
        """Closes the pipe that wakes a wait."""
        os.close(self._reader)
        os.close(self._writer)


@contextmanager
def noting_interrupts() -> Iterator[Interrupts]:
    """Makes SIGINT and SIGTERM end the block, as :class:`Interrupts` describes. Main thread only.

    It handles SIGINT even if the process started with that signal ignored, as a shell does for background commands:
    a user who sends it must be able to end the command.
    """
    interrupts = Interrupts()
    before = {number: signal.signal(number, interrupts.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupts.close()


def _end(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
