"""How commands that own processes end: cleanly, whoever asks."""

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


_AGAIN_SECONDS: Final = 0.05
"""Time until a lost Ctrl-C is raised again: by then the destructor that it was lost in is over."""


@contextmanager
def no_ctrl_c_is_lost() -> Iterator[None]:
    """Raises a KeyboardInterrupt again that Python ignored, as it does in a destructor or a weak reference's callback.

    Without it a command whose Ctrl-C came at such a moment goes on as if nobody had asked it to end.
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
def ending_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the block as `sys.exit` would, so that what it holds is closed; to be used in the main thread.

    Without it the process ends at once, with the cursor of a live view gone; and as a container's first process it
    would not end at all.
    """
    before = signal.signal(signal.SIGTERM, lambda number, _frame: _end(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Ending:
    """What asks a block to end: SIGINT or SIGTERM, at once while it starts, and between two looks from then on.

    An exception that a signal raises at any place can be lost (in a destructor or the callback of a weak reference,
    where Python ignores it) or leave a lock held for ever. For what runs for days neither may happen: once it looks
    around, a first signal is noted, and raised where nothing is half done. A second one raises at once.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._looks_around = False
        self._reader, self._writer = os.pipe()

    def on_signal(self, number: int, _frame: object) -> None:
        """The handler of both signals."""
        first, self._asked = self._asked is None, number
        if not (first and self._looks_around):
            _end(number)
        os.write(self._writer, b"!")

    def looks(self, seconds: float) -> Iterator[None]:
        """Yields at once, and again whenever that time has passed, until a signal asks for the end.

        Raises:
            KeyboardInterrupt: SIGINT did, now or before the first look.
            SystemExit: SIGTERM did.
        """
        self._looks_around = True
        while self._asked is None:
            yield
            select.select([self._reader], [], [], seconds)
        _end(self._asked)

    def close(self) -> None:
        """Lets go of what it holds."""
        os.close(self._reader)
        os.close(self._writer)


@contextmanager
def ending_on_signals() -> Iterator[Ending]:
    """Lets SIGINT and SIGTERM end the block, as :class:`Ending` says; to be used in the main thread.

    It takes SIGINT even where the process was started with the signal ignored, as a shell does with what it starts
    in the background: that a user who sends it is heard matters more.
    """
    ending = Ending()
    before = {number: signal.signal(number, ending.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ending.close()


def _end(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
