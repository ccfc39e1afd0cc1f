"""How many requests a second the fleet may send: paced by GCRA, learned from what the endpoint answers (pure).

`worker/store/lua/pace.lua` does the same in Redis, line by line; a test runs both on the same sequences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

LEAD_MS: Final = 100.0
LEAD_LEAST_MS: Final = 20.0
"""A place is given two intervals before its time, within these bounds: the request is prepared meanwhile, and goes out
at its time. Otherwise requests would arrive as unevenly as they take to prepare."""

WINDOW_MS: Final = 1_000.0
"""What is confirmed is counted in windows of this length, or of two requests if these take longer."""

ASK_MS: Final = 1_000.0
"""Longest that somebody who asked in vain is told to wait beyond the next free moment."""

USED_SHARE: Final = 0.8
"""A window binds if somebody had to wait in it, and this share of what the rate allows was confirmed, less one."""

MOST_SHARE: Final = 0.96
"""After a 429 the rate is this share of what the endpoint is thought to allow. The rest is for requests that arrive
unevenly: they may be 40 ms early before an endpoint that counts by the second sees one too many."""

LEAST_RATE: Final = 0.1
"""No estimate leaves less than this, in requests a second: a limit below it is met by the ordinary backoff."""

FEW: Final = 4.0
"""If a first 429 comes after at most this many confirmations, they say nothing about the rate: it is searched for."""

MANY: Final = 10.0
"""If it comes after this many, they count as a second's worth: an endpoint that counts by windows of a second, or has a
bucket of that size, lets that many through. After fewer, its bucket may be smaller: more is tried sooner."""

TOLD_MS: Final = 400.0
"""A confirmation may be told of so late, because what it settles comes first. No request goes out in a rest, so one
that seems to have begun so soon after a 429 began before it."""

NEW: Final = -5
"""Where `clean` begins after a first 429: the windows since then are counted up to 0, those that do not bind once."""

SEARCH_SHARE: Final = 0.5
"""While no estimate is known each clean window adds this share of the rate."""

HOLD_WINDOWS: Final = 18
"""Clean windows for which the rate stays as it is, before it tries for more."""

FIRST_HOLD_WINDOWS: Final = 4
"""The same if the estimate comes from few confirmations."""

SHORT_HOLD_WINDOWS: Final = 6
SHORT_MS: Final = 3_000.0
"""The same if the estimate comes from less than this time: an endpoint that counts by windows may allow far more."""

STEP_SHARE: Final = 0.05
"""After the hold each clean window adds this share of the estimate, then twice, then three times as much: it takes six
windows until the rate has doubled, and little is lost if the endpoint allows no more than before."""

SAVED_MS: Final = 1_000.0
"""An endpoint may let through at once what it did not let through in this time."""

SHORT_SHARE: Final = 0.9
"""What a 429 leaves of the rate if it comes within a second after another one: it may be the same full window."""

LEAST_SHARE: Final = 0.65
EARLY_SHARE: Final = 0.85
LONG_MS: Final = 5_000.0
LONG_SHARE: Final = 0.94
"""No single 429 lowers the estimate below this share of the rate, unless the endpoint asks for a long wait with it; and
not below `LONG_SHARE` if the rate went well for so long. The first estimate is often too high if two windows met: right
after it, it does not fall below `EARLY_SHARE` either, if as much was confirmed since."""

APART_SHARE: Final = 0.7
"""If the first estimate was too high for a bucket that holds a second's worth, more than this share was let through
since then. After less, the endpoint counts by windows, and a few requests that came late were enough for the 429:
the estimate stays as high as the rate."""

SURE_SHARE: Final = 0.9
"""An estimate of this share of the rate or more is not of a full window alone: it is kept for all of the hold."""

LATELY_SHARE: Final = 0.95
"""Once more was confirmed than an endpoint can have saved up, it allows this share of what it let through lately."""

RAISED_SHARE: Final = 0.4
"""If a step upwards fails, at most this share is added to the estimate, as far as more went well before."""

LONG_WAIT_MS: Final = 2_000.0
"""A wait as long as this belongs to a limit by long windows: what was confirmed until its end is what it allows."""

STATED_MS: Final = 60_000.0
"""How long a limit that the endpoint stated in a header bounds the rate."""


class Slot(NamedTuple):
    """The answer to a request for a place in the pace.

    Attributes:
        denied_ms: how long to wait before asking again, in ms; 0 if a place was taken.
        start_ms: how long until the request may go out, in ms.
    """

    denied_ms: float = 0.0
    start_ms: float = 0.0


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
        bound: how often somebody asked in this window who had to wait.
        bound_at: since when every window has bound; 0 if the last one did not.
        confirmed: requests confirmed in this window.
        before: and in the one before.
        clean: windows in which the rate bound and nothing went wrong, since it was lowered; `NEW` until the first
            429's rest is over, negative for four more, and higher if the rate is to be raised sooner.
        since: since when the endpoint has saved up what it then let through: when the rate was lowered last, or has
            bound without a pause since.
        total: requests confirmed since then, but for those that a pause may have saved up.
        excess: how many of them were more than the estimate allows, each window by itself.
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
    excess: float = 0.0

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
        """How long until the next place is given, in ms; 0 if one is now."""
        rate = self.limit(most)
        return max(0.0, self.tat - _lead_ms(1000 / rate) - now) if rate > 0 else 0.0

    def bound_since(self, now: float) -> int:
        """Since when the rate has bound without a pause (Unix ms), 0 if it does not."""
        return int(self.bound_at) if now - self.window < 2 * self._length() else 0

    def ask(self, now: float, most: float) -> Slot:
        """Takes the next place in the pace, or says how long to wait before asking again.

        Those who ask in vain are told to come back one after another, twice as often as there are places: all at once
        they would cost the fleet a herd of questions for every request.
        """
        rate = self.limit(most)
        if rate <= 0:
            return Slot()
        interval = 1000 / rate
        if self.tat > now:
            self.bound += 1
            self.bound_at = self.bound_at or now
        free = self.tat - _lead_ms(interval)
        if now >= free:
            start = max(self.tat, now)
            self.tat = start + interval
            if self.total == 0:
                self.since = max(self.since, start - SAVED_MS)  # a longer rest saves up no more
            return Slot(start_ms=math.ceil(start - now))
        self.turn = min(max(self.turn + interval / 2, free), free + ASK_MS)
        return Slot(denied_ms=math.ceil(self.turn - now))

    def give_back(self, most: float) -> None:
        """Returns a place that was taken and not used."""
        rate = self.limit(most)
        if rate > 0:
            self.tat -= 1000 / rate

    def confirm(self, now: float, most: float, latency: float = 0.0) -> None:
        """Counts a confirmed request, and raises the rate if a window ends that bound and went well.

        Args:
            now: the time.
            most: the configured most; 0 if it is learned alone, negative if there is to be no limit.
            latency: how long the request took, in ms.
        """
        self._roll(now, most)
        self.confirmed += 1
        if now - latency >= min(self.since + TOLD_MS, self.window):
            self.total += 1
        elif self.clean <= NEW:  # it was under way as the first 429 came
            self.ceiling += 1
            self.rate += MOST_SHARE

    def state(self, now: float, rate: float) -> None:
        """Takes over what the endpoint says it allows, in requests a second, unless it has said so already."""
        if rate != self.stated:
            self.rate = self.ceiling = rate
        self.stated = rate
        self.stated_at = now

    def rest(self, now: float, most: float, wait: float) -> None:
        """Lets no request out for `wait` ms, and for one interval at least."""
        rate = self.limit(most)
        if rate > 0:
            interval = 1000 / rate
            self.tat = max(self.tat, now + max(wait, interval))

    def lower(self, now: float, most: float, wait: float, latency: float = 0.0) -> bool:
        """Lowers the rate after a 429, once for each generation of the gate.

        Args:
            now: the time.
            most: the configured most; 0 if it is learned alone, negative if there is to be no limit.
            wait: how long the endpoint asked us to wait, in ms.
            latency: how long confirmed requests take, in ms; 0 if it is not known.

        Returns:
            False if nothing was confirmed since the last one: then no rate is known that would do.
        """
        if most < 0 or self.confirmed + self.before <= 0:
            return False
        base = self.limit(most)
        rest = wait
        if base <= 0:
            lately = self._lately(now)
            self._estimate_first(min(lately, self.before) if self.before > 0 else lately)
            rest = max(rest, self.window + WINDOW_MS - now)  # a full window is over by then
        else:
            if now - self.since < WINDOW_MS:
                rest = max(rest, self.since + WINDOW_MS - now)
            self._estimate(now, base, wait, latency)
        self.rest(now, most, rest)
        self.turn = self.before = self.confirmed = self.bound = self.total = self.excess = 0
        self.since, self.window = now, now + rest
        return True

    def clock_went_back(self, now: float) -> None:
        """Forgets all times: none of them means anything now."""
        self.tat = self.turn = self.bound = self.bound_at = self.confirmed = self.before = self.total = self.excess = 0
        self.window = self.since = self.stated_at = now

    def _estimate_first(self, lately: float) -> None:
        self.ceiling = lately
        self.rate = max(lately, 1.0) * MOST_SHARE
        self.clean = NEW

    def _end_first_rest(self) -> None:
        """All requests that were under way as the first 429 came are counted by now."""
        if self.ceiling <= FEW:
            self.ceiling = 0
        self.clean = NEW + 1 if self.ceiling >= MANY else HOLD_WINDOWS - FIRST_HOLD_WINDOWS

    def _estimate(self, now: float, base: float, wait: float, latency: float) -> None:
        """What the endpoint allows, by what it has let through at the rate `base`.

        It may count by windows, or save up what was not asked for; what is confirmed tells the two apart only later.
        What was let through in the last `latency` ms is not confirmed yet.
        """
        passed = max(now - self.since - latency, 1.0)
        excess = self.excess + max(0.0, self.confirmed - self.ceiling * (now - self.window) / 1000)
        average = self.total * 1000 / passed
        if wait > LONG_WAIT_MS and passed >= LONG_WAIT_MS:  # in less time a pause may have saved up most of it
            self.ceiling = min(average, base)
        elif self.ceiling <= 0 or excess > max(self.ceiling, 2):  # more than a second saves up
            self.ceiling = min(max(average, self._lately(now) * LATELY_SHARE, base * LEAST_SHARE), base)
        elif self.clean > HOLD_WINDOWS:
            raised = min(self.ceiling * (1 + RAISED_SHARE), self.before * LATELY_SHARE)
            self.ceiling = min(max(self.ceiling, raised), base)
        elif passed >= WINDOW_MS:
            least = base * (LONG_SHARE if passed >= LONG_MS else LEAST_SHARE)
            if self.clean < 0:
                early = 1.0 if average < base * APART_SHARE else EARLY_SHARE
                least = max(least, min(self.total, base * early))
            self.ceiling = min(max(average, least), base)
        else:
            self.ceiling = base * SHORT_SHARE
        self.rate = max(self.ceiling * MOST_SHARE, LEAST_RATE)
        sure = passed >= SHORT_MS or self.ceiling >= base * SURE_SHARE
        self.clean = 0 if sure else HOLD_WINDOWS - SHORT_HOLD_WINDOWS

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
        if self.clean <= NEW:
            self._end_first_rest()
        due = self.limit(most) * passed / 1000
        binds = self.bound > 0 and self.confirmed > 0 and self.confirmed + 1 >= due * USED_SHARE
        if binds:
            self.excess += max(0.0, self.confirmed - self.ceiling * passed / 1000)
            self._raise(now, most)
        if self.bound <= 0 or passed >= 2 * length:
            self.bound_at = 0
        if not binds or passed >= 2 * length:
            self.since = now
            self.total = 0 - self.rate  # it may have saved up a second's worth
            self.excess = 0
        self.before = self.confirmed if passed < 2 * length else 0
        self.window = now
        self.bound = self.confirmed = 0

    def _raise(self, now: float, most: float) -> None:
        self.clean += 1
        if self.rate <= 0:
            return
        if self.ceiling <= 0:
            self.rate += self.rate * SEARCH_SHARE
        elif self.clean > HOLD_WINDOWS:
            self.rate += self.ceiling * STEP_SHARE * (self.clean - HOLD_WINDOWS)
        if self.stated > 0 and now - self.stated_at <= STATED_MS:
            self.rate = min(self.rate, self.stated)
        if most > 0:
            self.rate = min(self.rate, most)


def _lead_ms(interval: float) -> float:
    return min(max(2 * interval, LEAD_LEAST_MS), LEAD_MS)
