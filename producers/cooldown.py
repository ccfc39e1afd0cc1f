"""How long a Redis that failed is left alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_MIN_SECONDS: Final = 0.5
_PAUSE_MAX_SECONDS: Final = 30.0
_PAUSE_PER_ATTEMPT: Final = 10  # a Redis that lets us wait costs callers a tenth of their time at most


class Cooldown:
    """How long Redis is left alone after it failed, so that callers do not wait for it each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0

    def over(self) -> bool:
        """Whether Redis may be tried again."""
        return self._clock() >= self._until

    def begin(self, took_seconds: float) -> None:
        """An attempt failed that took so long."""
        seconds = min(max(took_seconds * _PAUSE_PER_ATTEMPT, _PAUSE_MIN_SECONDS), _PAUSE_MAX_SECONDS)
        self._until = self._clock() + seconds
