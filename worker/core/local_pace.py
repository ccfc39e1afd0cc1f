"""What a process allows itself while the gate's node of a cluster is away: the limits that were known last (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from worker.core.gate import SINGLE_REJECTIONS_MAX

ASK_AGAIN_SECONDS: Final = 0.05
"""When it is worth asking again for a place among those under way."""


@dataclass(slots=True)
class LocalPace:
    """The pace of one process. All times are of its monotonic clock, in seconds.

    Each process keeps to the fleet's limits by itself, for it cannot know how many others do. A request that fails puts
    off all others of the process; then one at a time goes out, until one does not fail.

    Attributes:
        attempts: failed requests in a row.
        single_rejections: records that were rejected alone in a row.
        error: what the last failed request met.
    """

    attempts: int = 0
    single_rejections: int = 0
    error: str = ""
    _not_before: float = 0.0
    _next: float = 0.0
    _under_way: dict[str, float] = field(default_factory=dict)

    def ask(self, token: str, now: float, ends: float, rate: float | None, in_flight_limit: int | None) -> float:
        """Takes a place for a request; returns how long to wait before it is worth asking again, 0 if there is one.

        Args:
            token: names the request.
            now: the present.
            ends: when the request is over, or its process is dead.
            rate: most requests a second, None if there is no limit.
            in_flight_limit: most requests under way at once, None if there is no limit.
        """
        if self.closed(now):
            return self.rest(now)
        for over in [each for each, until in self._under_way.items() if until <= now]:
            del self._under_way[over]
        most = 1 if self.attempts else in_flight_limit
        if most is not None and len(self._under_way) >= most:
            return ASK_AGAIN_SECONDS
        if rate and now < self._next:
            return self._next - now
        self._next = now + (1 / rate if rate else 0.0)
        self._under_way[token] = ends
        return 0.0

    def closed(self, now: float) -> bool:
        """Whether a request that has a place may not go out all the same: another has failed meanwhile."""
        return now < self._not_before

    def rest(self, now: float) -> float:
        """How long none goes out after a failure."""
        return max(0.0, self._not_before - now)

    def end(self, token: str) -> None:
        """A request gives its place back."""
        self._under_way.pop(token, None)

    def fail(self, until: float, error: str = "") -> None:
        """A request failed: none goes out before that moment."""
        self.attempts += 1
        self.error = error
        self._not_before = max(self._not_before, until)

    def reject(self, until: float, error: str = "", *, alone: bool) -> bool:
        """The endpoint rejected the records of a request, or the only one; returns whether it rejects every record.

        If it does, none goes out before that moment, as after a failure.
        """
        self.single_rejections += alone
        if self.single_rejections < SINGLE_REJECTIONS_MAX:
            self.attempts = 0
            return False
        self.fail(until, error)
        return True

    def succeed(self) -> None:
        """A request was confirmed."""
        self.attempts = self.single_rejections = 0
