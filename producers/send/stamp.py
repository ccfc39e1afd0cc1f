"""Stamps changes that do not say when they happened (docs/reference/contract.md, end of section 3). Pure."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from producers.contract.change import AT_AHEAD_MS
from producers.send.fork import renew_in_children

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REMEMBERED_PAIRS: Final = 1_000_000
"""Most pairs remembered for one millisecond. No machine stamps a thousandth of that, so the limit is only reached if
the clock stands still or went back. The next millisecond is then taken, so that memory stays bounded."""


class Stamper:
    """Gives changes their ``at``: the clock's millisecond, and never less than an earlier stamp of this object.

    Unless the clock went back by more than workers let an ``at`` run ahead (``AT_AHEAD_MS``): then the clock was wrong
    before, workers refuse what it stamped, and later changes must not be refused with it.

    A delete wins over an upsert of the same millisecond. So a second change of the *same pair* takes the next
    millisecond, and all later changes follow it. Do not write a stamped change before the clock has reached its stamp:
    wait ``ahead_seconds`` first. So stamps never run ahead of the clock, however large the burst. Different pairs share
    their millisecond and never wait. Changes of one pair pass at a thousand a second, because milliseconds cannot tell
    more of them apart.

    Safe to share between threads, and to use on both sides of a fork.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: ``clock`` returns the Unix time in seconds, as ``time.time`` does."""
        self._clock = clock
        self._lock = threading.Lock()
        self._last_ms = 0
        self._reached_ms = 0.0  # how far the clock has come, or has been waited for
        renew_in_children(self)
        self._pairs: set[int] = set()  # hashes of the pairs stamped with _last_ms; a collision costs a millisecond

    def now_ms(self) -> int:
        """Returns the clock's time, in Unix milliseconds."""
        return int(self._clock() * 1000)

    def stamp(self, owner: str, contact: str) -> int:
        """Returns the ``at`` of a change of this pair that happens now, in Unix milliseconds."""
        pair = hash((owner, contact))
        with self._lock:
            now_ms = int(self._clock() * 1000)
            if now_ms > self._last_ms or now_ms < self._last_ms - AT_AHEAD_MS:
                self._reached_ms = now_ms
                self._begin(now_ms)
            elif pair in self._pairs or len(self._pairs) >= MAX_REMEMBERED_PAIRS:
                self._begin(self._last_ms + 1)
            self._pairs.add(pair)
            return self._last_ms

    def ahead_seconds(self) -> float:
        """Returns how long to wait until the clock has reached the last stamp, in seconds; nearly always 0.

        If the clock went back, the wait covers only the milliseconds taken since, once, and not the whole way: a clock
        that is set back by an hour must not stop producers for an hour.
        """
        if self._clock() * 1000 >= self._last_ms:  # nearly always, and then nothing is written
            return 0.0
        with self._lock:
            now_ms = self._clock() * 1000
            if not self._last_ms - AT_AHEAD_MS <= now_ms < self._last_ms:
                return 0.0
            owed_ms = self._last_ms - max(now_ms, self._reached_ms)
            self._reached_ms = self._last_ms if now_ms < self._reached_ms else now_ms
            return max(0.0, owed_ms) / 1000

    def renew_after_fork(self) -> None:
        """Replaces the lock, which another thread may have held when this process was forked."""
        self._lock = threading.Lock()

    def _begin(self, millisecond: int) -> None:
        self._last_ms = millisecond
        self._pairs.clear()
