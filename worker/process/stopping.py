"""Whether a worker is stopping, as its flushes see it, in either pool."""

from __future__ import annotations

import mmap
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stopping:
    """One flag for a worker's process and for the children that its pool forks.

    Children are told nothing, so the flag lies in memory that a fork shares. A child that was spawned instead
    (billiard's way on macOS) has one of its own, and works on until its time budget is spent.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def __call__(self) -> bool:
        """Whether it was set."""
        return self._shared[0] != 0

    def set(self) -> None:
        """Sets it for good; takes no lock, so that a signal handler may."""
        self._shared[0] = 1


STOPPING: Final = Stopping()
"""Made before any fork, and so the same for all of a worker."""


@contextmanager
def sigterm_waits() -> Iterator[None]:
    """Lets SIGTERM wait until the block is over, in a process that would die of it in mid-request.

    Children of a pool would, and some service managers send it to every process of a service. While the worker stops
    it waits on: then the pool ends its children.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        if not STOPPING():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
