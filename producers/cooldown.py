"""The pause after Redis failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_MIN_SECONDS: Final = 0.5
_MAX_SECONDS: Final = 30.0
_SECONDS_PER_SECOND_WAITED: Final = (
    10  # so that waiting for an unavailable Redis takes a tenth of a caller's time at most
)


class Cooldown:
    """The time in which Redis is not tried again after it failed, so that callers do not wait for it each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0

    def over(self) -> bool:
        """Returns whether Redis may be tried again."""
        return self._clock() >= self._until

    def begin(self, took_seconds: float) -> None:
        """Begins a cooldown after a failed attempt that took this long."""
        seconds = min(max(took_seconds * _SECONDS_PER_SECOND_WAITED, _MIN_SECONDS), _MAX_SECONDS)
        self._until = self._clock() + seconds
