"""Tells flushes in both pools that the worker is stopping."""

from __future__ import annotations

import mmap
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stopping:
    """One flag for a worker's process and the children that its pool forks.

    Celery does not tell children, so the flag is in memory that forks share. A spawned child (billiard's way on macOS)
    has a flag of its own, and goes on until its time budget is spent.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def __call__(self) -> bool:
        """Whether it is set."""
        return self._shared[0] != 0

    def set(self) -> None:
        """Sets it for good. Takes no lock, so a signal handler may call it."""
        self._shared[0] = 1


STOPPING: Final = Stopping()
"""Made before any fork, so all processes of a worker share it."""


@contextmanager
def sigterm_waits() -> Iterator[None]:
    """Delays SIGTERM until the block ends, so that a child of the pool does not die of it in mid-request.

    Some service managers send SIGTERM to every process of a service. While the worker is stopping, the signal stays
    blocked: the pool ends its children.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        if not STOPPING():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
