"""When a change happened, for producers that do not say so themselves (CONTRACT section 3, last paragraph). Pure."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REMEMBERED_PAIRS: Final = 1_000_000
"""Most pairs remembered of one millisecond. No machine stamps a thousandth of it in one, so only a clock that stands
still, or went back, gets there; then the next millisecond is taken, and memory stays bounded."""


class Stamper:
    """Gives changes their ``at``: the clock's millisecond, never less than an earlier stamp of this object.

    A delete wins over an upsert of the same millisecond, so a second change of the *same pair* takes the next one, and
    everything after it follows. What was stamped must not be written before the clock has reached it: wait
    ``ahead_seconds`` first. So stamps never run ahead of the clock, however large the burst: distinct pairs share their
    millisecond and never wait, and one pair passes at a thousand changes a second, which is all that milliseconds can
    tell apart.

    Safe to share between threads.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: ``clock`` gives the Unix time in seconds, as ``time.time`` does."""
        self._clock = clock
        self._lock = threading.Lock()
        self._last_ms = 0
        self._reached_ms = 0.0  # how far the clock has come, or has been waited for
        self._pairs: set[int] = set()  # hashes of the pairs stamped with _last_ms; a collision costs a millisecond

    def now_ms(self) -> int:
        """The clock's time, in Unix milliseconds."""
        return int(self._clock() * 1000)

    def stamp(self, owner: str, contact: str) -> int:
        """The ``at`` of a change of this pair that happens now, in Unix milliseconds."""
        pair = hash((owner, contact))
        with self._lock:
            now_ms = int(self._clock() * 1000)
            if now_ms > self._last_ms:
                self._reached_ms = now_ms
                self._begin(now_ms)
            elif pair in self._pairs or len(self._pairs) >= MAX_REMEMBERED_PAIRS:
                self._begin(self._last_ms + 1)
            self._pairs.add(pair)
            return self._last_ms

    def ahead_seconds(self) -> float:
        """How long to wait until the clock has reached the last stamp, in seconds; nearly always 0.

        Where the clock has gone back, only the milliseconds taken since are waited for, once, and not the whole way:
        a clock that is put right by an hour must not stop producers for one.
        """
        with self._lock:
            now_ms = self._clock() * 1000
            if now_ms >= self._last_ms:
                return 0.0
            owed_ms = self._last_ms - max(now_ms, self._reached_ms)
            self._reached_ms = self._last_ms if now_ms < self._reached_ms else now_ms
            return max(0.0, owed_ms) / 1000

    def _begin(self, millisecond: int) -> None:
        self._last_ms = millisecond
        self._pairs.clear()
