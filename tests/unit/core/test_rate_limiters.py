"""The fleet's rate at every kind of limiter: how long 400 requests take at 20 a second, and how many are refused."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, Final

import pytest

from worker.core.backoff import full_jitter
from worker.core.flow import NO_LIMITS, Denied, Flow, Left

if TYPE_CHECKING:
    from collections.abc import Callable

RATE: Final = 20
REQUESTS: Final = 400
IDEAL_MS: Final = 1000 * REQUESTS / RATE
SEEDS: Final = 8
THREADS: Final = 2
PREPARES_MS: Final = (8.0, 25.0)
LIFE_MS: Final = 30_000
LATE_SHARE: Final = 0.1
NOW_MS: Final = 1_000_000


@dataclass(slots=True)
class Bucket:
    """An endpoint with a bucket of permits that holds a second's worth."""

    phase_ms: float
    permits: float = RATE
    filled_ms: float = 0.0

    def takes(self, now_ms: float) -> bool:
        """Whether it lets a request through."""
        self.permits = min(RATE, self.permits + (now_ms - self.filled_ms) * RATE / 1000)
        self.filled_ms = now_ms
        if self.permits < 1:
            return False
        self.permits -= 1
        return True


@dataclass(slots=True)
class FixedWindow:
    """An endpoint that lets so many through in each second of its clock, which begins anywhere in a second."""

    phase_ms: float
    second: int = -1
    many: int = 0

    def takes(self, now_ms: float) -> bool:
        """Whether it lets a request through."""
        second = int((now_ms + self.phase_ms) // 1000)
        if second != self.second:
            self.second, self.many = second, 0
        self.many += 1
        return self.many <= RATE


@dataclass(slots=True)
class SlidingWindow:
    """An endpoint that lets so many through in any second."""

    phase_ms: float
    let: list[float] = field(default_factory=list)

    def takes(self, now_ms: float) -> bool:
        """Whether it lets a request through."""
        self.let = [each for each in self.let if each > now_ms - 1000]
        if len(self.let) >= RATE:
            return False
        self.let.append(now_ms)
        return True


Limiter = Bucket | FixedWindow | SlidingWindow
LIMITERS: Final[list[type[Limiter]]] = [Bucket, FixedWindow, SlidingWindow]


@dataclass(frozen=True, slots=True)
class Request:
    """A request under way, or a thread that has none."""

    token: str = ""
    generation: int = 0
    begun_ms: float = 0.0
    probe: bool = False


IDLE: Final = Request()


class Fleet:
    """Threads that ask, prepare, send and ask again, and the gate before them, as the scripts move it."""

    def __init__(  # noqa: PLR0913 - all that a run differs in
        self, limiter: Limiter, *, latency_ms: float, refusal_ms: float, wait_ms: int, seed: int, late_ms: float = 0.0
    ) -> None:
        self.confirmed: list[float] = []
        self.refused = 0
        self._limiter, self._latency_ms, self._refusal_ms, self._wait_ms = limiter, latency_ms, refusal_ms, wait_ms
        self._late_ms = late_ms
        self._flow, self._draw, self._numbers = Flow(), Random(seed), count()
        self._ok, self._generation, self._attempts, self._probe_ms, self._probing = True, 0, 0, 0.0, False
        self._slower = 1.0
        self._todo: list[tuple[float, int, Callable[[float, Request], None], Request]] = []

    def run(self, workers: int) -> None:
        """Until all requests are confirmed."""
        self._slower = max(1.0, workers / 2)
        for _ in range(workers * THREADS):
            self._then(self._draw.uniform(0, 50), self._ask, IDLE)
        while len(self.confirmed) < REQUESTS:
            now, _, what, request = heapq.heappop(self._todo)
            what(now, request)

    def _then(self, at_ms: float, what: Callable[[float, Request], None], request: Request) -> None:
        heapq.heappush(self._todo, (at_ms, next(self._numbers), what, request))

    def _ask(self, now: float, _: Request) -> None:
        start = 0.0
        if not self._ok:
            if now < self._probe_ms or self._probing:
                again = max(now + 10, min(self._probe_ms, now + 1000))
                self._then(again + self._draw.uniform(0, 20), self._ask, IDLE)
                return
            self._probing = True
        else:
            answer = self._flow.ask(NOW_MS + int(now), NO_LIMITS)
            if isinstance(answer, Denied):
                self._then(now + answer.wait_ms + self._draw.uniform(0, 4), self._ask, IDLE)
                return
            start = answer.start_ms
        request = Request(f"{next(self._numbers):08d}", self._generation, probe=not self._ok)
        self._flow.begin(request.token, NOW_MS + int(now) + LIFE_MS)
        self._then(now + max(start, self._draw.uniform(*PREPARES_MS) * self._slower), self._send, request)

    def _send(self, now: float, request: Request) -> None:
        self._then(now + 1, self._ask, IDLE)
        if request.generation != self._generation and not request.probe:
            self._leave(now, Left(request.token, unused=True), request)
            return
        sent = Request(request.token, self._generation, now, request.probe)
        late_ms = self._draw.uniform(0, self._late_ms) if self._late_ms and self._draw.random() < LATE_SHARE else 0.0
        self._then(now + 1 + late_ms, self._arrive, sent)

    def _arrive(self, now: float, request: Request) -> None:
        if self._limiter.takes(now):
            self._then(now + self._latency_ms + self._draw.uniform(0, 2), self._confirm, request)
        else:
            self._then(now + self._refusal_ms + self._draw.uniform(0, 1), self._refuse, request)

    def _confirm(self, now: float, request: Request) -> None:
        self.confirmed.append(now)
        self._leave(now, Left(request.token, latency_ms=now - request.begun_ms), request)
        if not self._ok and request.generation == self._generation:
            self._ok, self._probing, self._attempts = True, False, 0
            self._generation += 1

    def _refuse(self, now: float, request: Request) -> None:
        self.refused += 1
        lowered = self._leave(now, Left(request.token, wait_ms=self._wait_ms), request, limited=True)
        if request.generation != self._generation:
            return
        self._generation += 1
        if not lowered:  # nothing was confirmed since the last one
            self._attempts += 1
            jitter_ms = 1000 * full_jitter(self._attempts, 1.0, 60.0, self._draw.random())
            self._ok, self._probing, self._probe_ms = False, False, now + max(self._wait_ms, jitter_ms)

    def _leave(self, now: float, left: Left, request: Request, *, limited: bool = False) -> bool:
        open_and_current = self._ok and request.generation == self._generation
        at = NOW_MS + int(now)
        return self._flow.leave(at, NO_LIMITS, left, limited=limited, open_and_current=open_and_current)


def measured(  # noqa: PLR0913 - all that a row differs in
    limiter: type[Limiter],
    *,
    wait_ms: int,
    latency_ms: float,
    workers: int,
    refusal_ms: float = 1.0,
    late_ms: float = 0.0,
) -> tuple[float, float]:
    """How many times the ideal duration it takes, and how many requests are refused, on average."""
    times, refused = [], []
    for seed in range(SEEDS):
        endpoint = limiter(Random(seed).uniform(0, 1000))
        fleet = Fleet(
            endpoint, latency_ms=latency_ms, refusal_ms=refusal_ms, wait_ms=wait_ms, seed=seed, late_ms=late_ms
        )
        fleet.run(workers)
        times.append(fleet.confirmed[-1] / IDEAL_MS)
        refused.append(fleet.refused)
    return mean(times), mean(refused)


# Fixed windows are the worst: a first burst that falls into two of them lets up to twice as many through as one.
TIMES: Final = {Bucket: 1.05, FixedWindow: 1.14, SlidingWindow: 1.08}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("latency_ms", [0, 20, 50, 100, 200])
@pytest.mark.parametrize("wait_ms", [0, 1_000])
@pytest.mark.parametrize("limiter", LIMITERS)
def test_every_limiter_is_used_nearly_to_its_limit_and_refuses_one_in_a_hundred(
    limiter: type[Limiter], wait_ms: int, latency_ms: float, workers: int
) -> None:
    times, refused = measured(limiter, wait_ms=wait_ms, latency_ms=latency_ms, workers=workers)
    assert times <= TIMES[limiter]
    assert refused <= 0.0105 * REQUESTS  # 0.0103 at a bucket without Retry-After at 200 ms, and at most 0.01 elsewhere


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("latency_ms", [20, 100])
@pytest.mark.parametrize("wait_ms", [0, 1_000])
@pytest.mark.parametrize("limiter", LIMITERS)
def test_it_is_used_as_well_if_a_refusal_takes_as_long_as_a_confirmation(
    limiter: type[Limiter], wait_ms: int, latency_ms: float, workers: int
) -> None:
    """Then all that are under way as the limit is met are refused at once: the slower it answers, the more."""
    times, refused = measured(limiter, wait_ms=wait_ms, latency_ms=latency_ms, workers=workers, refusal_ms=latency_ms)
    assert times <= TIMES[limiter]
    assert refused <= (0.011 if latency_ms <= 20 else 0.05) * REQUESTS


@pytest.mark.parametrize("limiter", LIMITERS)
def test_a_few_requests_that_arrive_late_cost_little(limiter: type[Limiter]) -> None:
    """A busy machine lets one in ten be up to 80 ms late: at 20 a second that is one too many for a window."""
    rows = [
        measured(limiter, wait_ms=wait_ms, latency_ms=latency_ms, workers=workers, late_ms=80)
        for workers in (1, 4)
        for latency_ms in (20, 100)
        for wait_ms in (0, 1_000)
    ]
    assert mean(times for times, _ in rows) <= {Bucket: 1.0, FixedWindow: 1.12, SlidingWindow: 1.18}[limiter]
    assert mean(refused for _, refused in rows) <= 0.01 * REQUESTS


def test_an_early_429_that_comes_before_any_answer_does_not_hold_the_rate_down() -> None:
    """At 200 ms, 16 requests are on their way as the first one is refused; the rate was 13 of 20 for 18 seconds."""
    for seed in range(SEEDS):
        fleet = Fleet(Bucket(0), latency_ms=200, refusal_ms=1, wait_ms=0, seed=seed)
        fleet.run(1)
        assert sum(3_000 <= each < 18_000 for each in fleet.confirmed) >= 0.9 * 15 * RATE
