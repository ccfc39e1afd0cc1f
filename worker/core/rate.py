"""How many requests a second the fleet may send: paced by GCRA, learned from what the endpoint answers (pure).

`worker/store/lua/pace.lua` does the same in Redis, line by line; a test runs both on the same sequences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

BURST_MS: Final = 100.0
BURST_LEAST_MS: Final = 10.0
"""Requests may go out half an interval ahead of the pace, within these bounds, so that a sleeper who wakes late costs
no throughput."""

WINDOW_MS: Final = 1_000.0
"""What is confirmed is counted in windows of this length, or of two requests if these take longer."""

ASK_MS: Final = 1_000.0
"""Longest that somebody who asked in vain is told to wait beyond the next free moment."""

USED_SHARE: Final = 0.8
"""A window binds if somebody asked in vain in it, and this share of what the rate allows was confirmed, but for one."""

FIRST_SHARE: Final = 0.5
"""Share of what was confirmed in the last second that a first 429 leaves."""

LEAST_SHARE: Final = 0.65
"""No single 429 lowers the rate below this share of itself, unless the endpoint asks for a long wait with it."""

LEAST_RATE: Final = 0.1
"""No estimate leaves less than this, in requests a second: a limit below it is met by the ordinary backoff."""

LONG_WAIT_MS: Final = 2_000.0
"""A wait as long as this belongs to a limit by long windows: what was confirmed until its end is what it allows."""

LATELY_SHARE: Final = 0.95
KEPT_MS: Final = 4_000.0
"""A 429 after so long without one leaves at least this share of what was confirmed in the last second, unless the
endpoint asks for a long wait: it may count by windows, and what it lets through in one is what it allows."""

MOST_SHARE: Final = 0.95
"""After a 429 the rate starts at this share of what the endpoint is thought to allow."""

SEARCH_SHARE: Final = 0.2
"""While no estimate is known each clean window adds this share of the rate."""

HOLD_WINDOWS: Final = 14
"""Clean windows for which the rate stays just below what the endpoint is known to allow, before it tries for more."""

HOLD_SHARE: Final = 0.98
"""How near to what the endpoint is known to allow."""

RECOVERY_SHARE: Final = 0.25
"""Share of what is missing to that which is added after each clean window."""

STEP_SHARE: Final = 0.1
"""After the hold each clean window adds this share of the known limit, always the same amount: it doubles in 11 s."""

STATED_MS: Final = 60_000.0
"""How long a limit that the endpoint stated in a header bounds the rate."""


@dataclass(slots=True)
class Pace:
    """The fleet's pace, as the gate's hash keeps it. All numbers; times in Unix ms by Redis' clock.

    Attributes:
        rate: requests a second; 0 while there is no limit.
        tat: theoretical arrival time of the next request, as GCRA calls it.
        turn: when the last one who asked in vain asks again; the next one does so a little later.
        ceiling: what the endpoint is thought to allow, in requests a second.
        stated: what the endpoint said last that it allows, in requests a second; 0 if it never did.
        stated_at: when it said so.
        window: when the present window began.
        bound: how often somebody asked in vain in this window.
        bound_at: since when every window has bound; 0 if the last one did not.
        confirmed: requests confirmed in this window.
        before: and in the one before.
        clean: windows since the rate was lowered in which it bound and nothing went wrong.
        since: since when the rate has bound without a pause; or when it was lowered last.
        total: requests confirmed since then, but for those that a rest may have saved up.
    """

    rate: float = 0.0
    tat: float = 0.0
    turn: float = 0.0
    ceiling: float = 0.0
    stated: float = 0.0
    stated_at: float = 0.0
    window: float = 0.0
    bound: float = 0.0
    bound_at: float = 0.0
    confirmed: float = 0.0
    before: float = 0.0
    clean: float = 0.0
    since: float = 0.0
    total: float = 0.0

    def limit(self, most: float) -> float:
        """Requests a second that may go out; 0 if there is no limit.

        Args:
            most: the configured most; 0 if it is learned alone, negative if there is to be no limit.
        """
        if most < 0:
            return 0.0
        if most > 0 and (self.rate <= 0 or most < self.rate):
            return most
        return self.rate

    def wait_ms(self, now: float, most: float) -> float:
        """How long until the next request may go out, in ms; 0 if one may now."""
        rate = self.limit(most)
        return max(0.0, self.tat - _burst_ms(1000 / rate) - now) if rate > 0 else 0.0

    def bound_since(self, now: float) -> int:
        """Since when the rate has bound without a pause (Unix ms), 0 if it does not."""
        return int(self.bound_at) if now - self.window < 2 * self._length() else 0

    def ask(self, now: float, most: float) -> float:
        """Takes the next place in the pace and returns 0, or returns how many ms to wait before asking again.

        Those who ask in vain are told to come back one after another, twice as often as there are places: all at once
        they would cost the fleet a herd of questions for every request.
        """
        rate = self.limit(most)
        if rate <= 0:
            return 0.0
        interval = 1000 / rate
        free = self.tat - _burst_ms(interval)
        if now >= free:
            self.tat = max(self.tat, now) + interval
            return 0.0
        self.bound += 1
        if self.bound_at <= 0:
            self.bound_at = now
        self.turn = min(max(self.turn + interval / 2, free), free + ASK_MS)
        return math.ceil(self.turn - now)

    def give_back(self, most: float) -> None:
        """Returns a place that was taken and not used."""
        rate = self.limit(most)
        if rate > 0:
            self.tat -= 1000 / rate

    def confirm(self, now: float, most: float) -> None:
        """Counts a confirmed request, and raises the rate if a window ends that bound and went well."""
        self._roll(now, most)
        self.confirmed += 1
        self.total += 1

    def state(self, now: float, rate: float) -> None:
        """Takes over what the endpoint says it allows, in requests a second, unless it has said so already."""
        if rate != self.stated:
            self.rate = self.ceiling = rate
        self.stated = rate
        self.stated_at = now

    def rest(self, now: float, most: float, wait: float) -> None:
        """Lets nobody go for so many ms, and for one interval at least."""
        rate = self.limit(most)
        if rate > 0:
            interval = 1000 / rate
            self.tat = max(self.tat, now + max(wait, interval) + _burst_ms(interval))

    def lower(self, now: float, most: float, wait: float) -> bool:
        """Lowers the rate after a 429, once for each generation of the gate.

        Args:
            now: the time.
            most: the configured most; 0 if it is learned alone, negative if there is to be no limit.
            wait: how long the endpoint asked us to wait, in ms.

        Returns:
            False if nothing was confirmed since the last one: then no rate is known that would do.
        """
        if most < 0 or self.confirmed + self.before <= 0:
            return False
        base = self.limit(most)
        self.ceiling = 0.0
        if base <= 0:
            self.rate = max(self._lately(now), 1.0) * FIRST_SHARE
        elif now - self.since >= WINDOW_MS:
            lately = self._lately(now) * LATELY_SHARE if now - self.since >= KEPT_MS else 0.0
            least = max(base * LEAST_SHARE, lately) if wait <= LONG_WAIT_MS else 0.0
            self.ceiling = min(max(self.total * 1000 / (now - self.since), least), base)
            self.rate = max(self.ceiling * MOST_SHARE, LEAST_RATE)
        else:
            self.rate = base * FIRST_SHARE
        self.rest(now, most, wait)
        self.turn = self.before = self.confirmed = self.bound = self.clean = self.total = 0
        self.since, self.window = now, now + wait
        return True

    def clock_went_back(self, now: float) -> None:
        """Forgets every time that it knows: none of them means anything any more."""
        self.tat = self.turn = self.bound = self.bound_at = self.confirmed = self.before = self.total = 0
        self.window = self.since = self.stated_at = now

    def _lately(self, now: float) -> float:
        """Requests confirmed in the last second."""
        return self.confirmed + self.before * max(0.0, 1 - (now - self.window) / WINDOW_MS)

    def _length(self) -> float:
        return max(WINDOW_MS, 2000 / self.rate) if self.rate > 0 else WINDOW_MS

    def _roll(self, now: float, most: float) -> None:
        length = self._length()
        passed = now - self.window
        if passed < length:
            return
        due = self.limit(most) * passed / 1000
        binds = self.bound > 0 and self.confirmed > 0 and self.confirmed + 1 >= due * USED_SHARE
        if binds:
            self._raise(now, most)
        if self.bound <= 0 or passed >= 2 * length:
            self.bound_at = 0
        if not binds or passed >= 2 * length:
            self.since = now
            self.total = 0 - self.rate  # an endpoint that had little to do may allow a second's worth at once
        self.before = self.confirmed if passed < 2 * length else 0
        self.window = now
        self.bound = self.confirmed = 0

    def _raise(self, now: float, most: float) -> None:
        self.clean += 1
        if self.rate <= 0:
            return
        near = self.ceiling * HOLD_SHARE
        if self.ceiling <= 0:
            self.rate += self.rate * SEARCH_SHARE
        elif self.clean > HOLD_WINDOWS:
            self.rate += self.ceiling * STEP_SHARE
        elif self.rate < near:
            self.rate += (near - self.rate) * RECOVERY_SHARE
        if self.stated > 0 and now - self.stated_at <= STATED_MS:
            self.rate = min(self.rate, self.stated)
        if most > 0:
            self.rate = min(self.rate, most)


def _burst_ms(interval: float) -> float:
    return min(max(interval / 2, BURST_LEAST_MS), BURST_MS)
