"""The one place where tests wait: for a condition, with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.05


class WaitUntil(Protocol):
    """Type of :func:`wait_until`, for tests that take the fixture."""

    def __call__(self, condition: Callable[[], object], *, seconds: float = 10.0, what: str) -> None:
        """See :func:`wait_until`."""


def wait_until(condition: Callable[[], object], *, seconds: float = 10.0, what: str) -> None:
    """Returns as soon as the condition is truthy.

    Args:
        condition: asked again and again, ever less often.
        seconds: the deadline, generous: it is spent only where the test fails anyway.
        what: the condition in words, for the failure.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} seconds: {what}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
