"""How many requests the fleet may have under way: found from latency and failures (pure).

`worker/store/lua/pace.lua` does the same in Redis, line by line; a test runs both on the same sequences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

START: Final = 4.0
"""Requests that may be under way at first. Latency alone never lowers the limit below: so few slow nobody down."""

FIRST_REQUESTS: Final = 32.0
FIRST_MS: Final = 1_000.0
SLOW_MS: Final = 50.0
"""The limit doubles once this many requests have succeeded, or after this time, so that few requests meet the first 429
of an endpoint that limits its rate. If a request takes longer than `SLOW_MS`, there are few a second, and the limit
doubles without that; for the first time before anything has been answered."""

MOST: Final = 1024.0
"""Most requests that the limit ever allows."""

DECREASE: Final = 0.9
"""What a failure, or a latency far above the mean, leaves of the limit."""

ALPHA: Final = 0.4
"""Weight of the newest round in the moving mean and variance of the latency."""

DEVIATIONS: Final = 2.5
"""A latency this many deviations above the mean is far above it."""

TOLERANCE: Final = 0.1
TOLERANCE_MS: Final = 10.0
"""It must also exceed the mean by this share and by this many ms: if it does not, our own machine is busy."""

RAMP_GAIN: Final = 0.05
"""Share by which a doubled limit must raise the throughput to be thought better, and by which it may lower it."""

RAMP_LATENCY: Final = 4.0
"""The limit no longer doubles once the latency is this many times the least."""

RAMP_LEVEL: Final = 0.7
"""A round is judged only if this share of the limit was under way on average."""

SLOWER: Final = 1.5
SLOWER_MS: Final = 25.0
"""Once the latency is this many times the least, and this many ms above it, a trial shows whether fewer requests are
faster."""

TRIAL_LATENCY: Final = 1.2
"""They are if their latency is at most this many times the least,"""

TRIAL_SPEED: Final = 0.9
"""and if at least this share of the throughput is left."""

TRIAL_LEVEL: Final = 1.2
"""A trial is judged once at most this many times the lower limit are under way."""

HOLD_MS: Final = 5_000.0
"""How long a limit that was too high is not tried again."""

ROUND_MS: Final = 50.0
"""Shortest round: the latency of few requests says little."""

ROUND_LATENCIES: Final = 3.0
"""A round ends after this many latencies, however few requests it has seen."""


@dataclass(slots=True)
class Concurrency:
    """The limit of requests under way, as the gate's hash keeps it. All numbers; times in Unix ms, latencies in ms.

    Attributes:
        limit: most requests under way; 0 until the first one asks.
        settled: 0 while the limit doubles each round, 1 once it moves in small steps.
        peak: most requests that were under way in this round, or asked to be.
        bad: whether a request of this round failed as too many requests make one fail.
        began: when this round began.
        count: requests that began and succeeded in this round.
        sum: the sum of their latencies.
        done: requests that succeeded in this round, whenever they began.
        level: the sum of how many were under way as each of them ended.
        mean: moving mean of the rounds' latencies; 0 while there is none.
        variance: and their moving variance.
        least: the least latency a round has had.
        best: the highest throughput of a round while the limit doubled, in requests a ms.
        best_limit: the limit of that round.
        refused: a limit at which the latency was far above the mean; 0 if there is none.
        refused_at: when that was.
        high: how many rounds in a row the latency was far above the mean.
        raised: whether the limit was raised before this round.
        trial: the limit before fewer requests were let out to see whether their number makes them slow; 0 if none was.
        speed: the throughput before that, in requests a ms.
    """

    limit: float = 0.0
    settled: float = 0.0
    peak: float = 0.0
    bad: float = 0.0
    began: float = 0.0
    count: float = 0.0
    sum: float = 0.0
    done: float = 0.0
    level: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    least: float = 0.0
    best: float = 0.0
    best_limit: float = 0.0
    refused: float = 0.0
    refused_at: float = 0.0
    high: float = 0.0
    raised: float = 0.0
    trial: float = 0.0
    speed: float = 0.0

    def ask(self, now: float, under_way: float) -> bool:
        """Whether one request more may be under way.

        Args:
            now: the time.
            under_way: how many are.
        """
        if self.limit <= 0:
            self.limit = START
            self.began = now
        elif self.limit <= START and self.settled <= 0 and self.done <= 0 and now - self.began >= SLOW_MS:
            self.limit = 2 * START
        self.peak = max(self.peak, under_way + 1)
        return under_way < self.limit

    def succeed(self, now: float, latency: float, under_way: float) -> None:
        """Counts a request that succeeded, and moves the limit if a round ends.

        One that began in an earlier round is not counted: it tells of the limit that was.

        Args:
            now: the time.
            latency: how long the request took.
            under_way: how many were under way as it ended, itself among them.
        """
        self.done += 1
        if now - latency >= self.began:
            self.count += 1
            self.sum += latency
            self.level += under_way
        self._end_round(now)

    def fail(self, now: float) -> None:
        """Notes a timeout or an error of the server, and moves the limit if a round ends."""
        self.bad = 1
        self._end_round(now)

    def clock_went_back(self, now: float) -> None:
        """Starts the round again: the time at which it began means nothing now."""
        self.began = self.refused_at = now
        self.count = self.sum = self.done = self.level = 0

    def _end_round(self, now: float) -> None:
        passed = now - self.began
        if self.limit <= 0 or passed < max(self.mean, ROUND_MS):
            return
        if self.count <= 0 and self.bad <= 0:
            return
        if self.bad <= 0 and self.count * 2 < self.limit and passed < max(self.mean, ROUND_MS) * ROUND_LATENCIES:
            return
        latency = self.sum / self.count if self.count > 0 else 0.0
        first = self.settled <= 0 and self.best <= 0 and self.bad <= 0
        if first and self.done < FIRST_REQUESTS and passed < FIRST_MS and latency < SLOW_MS:
            return
        if self.bad > 0:
            self._decrease()
            self.settled, self.trial = 1, 0
        elif self.settled <= 0:
            self._double(latency)
        else:
            self._step(now, latency, self.done / passed)
        self._begin(now, self.limit)

    def _begin(self, now: float, limit: float) -> None:
        self.limit, self.began = limit, now
        self.count = self.sum = self.done = self.level = self.peak = self.bad = 0

    def _decrease(self) -> None:
        self.limit = max(1.0, math.floor(self.limit * DECREASE))
        self.raised = 0

    def _double(self, latency: float) -> None:
        level = self.level / self.count
        bound = self.peak >= self.limit
        if bound and level < self.limit * RAMP_LEVEL:
            return  # the requests that the limit allows have only begun
        self.least = latency if self.least <= 0 else min(self.least, latency)
        throughput = level / max(latency, 0.001)
        better = throughput > self.best * (1 + RAMP_GAIN)
        worse = throughput < self.best * (1 - RAMP_GAIN) or latency >= self.least * RAMP_LATENCY
        if better:
            self.best, self.best_limit, self.mean = throughput, level, latency
        if level < self.best_limit * RAMP_LEVEL:
            return  # little is asked for
        if worse or self.limit >= MOST or (not bound and not better):
            self.limit = max(START, math.floor(self.best_limit + 0.5))
            self.settled = 1
        elif bound:
            self.limit = min(MOST, self.limit * 2)

    def _step(self, now: float, latency: float, speed: float) -> None:
        if self.mean <= 0:
            self.mean = self.least = latency
            return
        if self.trial > 0:
            self._judge_trial(latency, speed)
            return
        bound = self.peak >= self.limit
        far_above = latency >= self.mean + max(
            DEVIATIONS * math.sqrt(self.variance), self.mean * TOLERANCE, TOLERANCE_MS
        )
        if far_above and self.raised > 0:
            self._refuse(now)
        elif bound and latency >= max(self.least * SLOWER, self.least + SLOWER_MS) and self.limit > START:
            self.trial, self.speed, self.high = self.limit, speed, 0
            self.limit = max(START, math.floor(self.limit * self.least / latency))
        elif far_above:
            self._wait_and_see(now, latency, bound)
        else:
            self._go_on(now, latency, bound)

    def _refuse(self, now: float) -> None:
        self.refused, self.refused_at = self.limit, now
        if self.limit > START:
            self._decrease()

    def _judge_trial(self, latency: float, speed: float) -> None:
        """Fewer requests were let out to see whether their number makes them slow: if so, it stays at fewer."""
        if self.high <= 0 or self.level > self.count * self.limit * TRIAL_LEVEL:
            self.high = 1
            return  # those of before were still under way
        if latency > self.least * TRIAL_LATENCY or speed < self.speed * TRIAL_SPEED:
            self.limit, self.least = self.trial, max(latency, self.mean)
        self.mean = latency
        self.variance = self.trial = self.high = self.raised = 0

    def _wait_and_see(self, now: float, latency: float, bound: bool) -> None:  # noqa: FBT001 - what was found
        """One slow round may be chance; if fewer requests are not faster, their number is not the cause."""
        self.high += 1
        self.raised = 0
        if self.high > 2 or (self.high > 1 and not bound):
            self.mean = latency
            self.variance = self.high = self.refused = 0
        elif self.high > 1:
            self._refuse(now)

    def _go_on(self, now: float, latency: float, bound: bool) -> None:  # noqa: FBT001 - what was found
        self.high = self.raised = 0
        if self.refused > 0 and now - self.refused_at >= HOLD_MS:
            self.refused = 0
        room = self.limit < MOST and (self.refused <= 0 or self.limit + 1 < self.refused)
        if bound and room and latency <= self.mean:
            self.limit += 1
            self.raised = 1
        off = latency - self.mean
        self.mean += ALPHA * off
        self.variance = (1 - ALPHA) * (self.variance + ALPHA * off * off)
        self.least = min(self.least, latency)
