"""The fleet's flow through the gate: its pace, its limit of requests under way, and these requests (pure).

`worker/store/lua/pace.lua` does the same in Redis. Nothing here is asked for in a round trip of its own: a place is
taken as a round begins, and left with what becomes of its request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from worker.core.concurrency import Concurrency
from worker.core.rate import Pace, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kept = TypeVar("Kept", Pace, Concurrency)

TOKEN_LENGTH: Final = 8
"""Characters of the name that each request under way has."""

_ENTRY: Final = TOKEN_LENGTH + 13
_LATENCY_MS: Final = 20.0  # what a request is thought to take before any has ended


class FlowLimits(NamedTuple):
    """What is configured.

    Attributes:
        rate: most requests a second (CONTACT_SYNC_RATE); 0 for `auto`, negative for `off`.
        in_flight: most requests under way at once in the fleet (CONTACT_SYNC_IN_FLIGHT); 0 for `auto`.
    """

    rate: float = 0.0
    in_flight: int = 0

    @staticmethod
    def of(rate: float | Literal["auto", "off"], in_flight: int | Literal["auto"]) -> FlowLimits:
        """From the two settings."""
        most = 0.0 if rate == "auto" else -1.0 if rate == "off" else rate
        return FlowLimits(most, 0 if in_flight == "auto" else in_flight)


NO_LIMITS: Final = FlowLimits()
"""Both are learned alone."""


class Denied(NamedTuple):
    """No place: why, and after how many ms it is worth asking again."""

    why: Literal["rate", "in_flight"]
    wait_ms: int


class Left(NamedTuple):
    """What a request that leaves its place tells of the flow.

    Attributes:
        token: the request's; empty if it had no place.
        latency_ms: how long it took, None unless it succeeded.
        overloaded: whether it failed as too many requests make one fail: a timeout, or an error of the server.
        wait_ms: how long the endpoint asked us to wait, unless it confirmed.
        stated: requests a second that it says it allows; 0 if it says nothing.
        rest_ms: how long it says that it allows none; 0 if it says nothing.
        unused: whether no request went out.
    """

    token: str = ""
    latency_ms: float | None = None
    overloaded: bool = False
    wait_ms: int = 0
    stated: float = 0.0
    rest_ms: int = 0
    unused: bool = False


NOTHING_LEFT: Final = Left()
"""A request that had no place, and tells nothing."""


@dataclass(slots=True)
class Flow:
    """What the gate keeps of the flow.

    Attributes:
        pace: requests a second.
        concurrency: requests under way at once.
        requests: those that are: an 8-character token and the time (Unix ms, 13 digits) by which each is over.
    """

    pace: Pace = field(default_factory=Pace)
    concurrency: Concurrency = field(default_factory=Concurrency)
    requests: str = ""

    def under_way(self) -> int:
        """How many requests are under way."""
        return len(self.requests) // _ENTRY

    def throughput(self, limits: FlowLimits) -> float | None:
        """Requests a second, if as many are under way as may be; None if no latency is known yet, 0 if none will be."""
        if limits.in_flight > 0:
            return 0.0
        mean = self.concurrency.mean
        return self.concurrency.limit * 1000 / mean if mean > 0 else None

    def ask(self, now: int, limits: FlowLimits) -> Denied | Slot:
        """Takes a place in the pace, or says when to ask again; `begin` must follow if it was taken."""
        under_way = self.under_way()
        if limits.in_flight > 0:
            room, places = under_way < limits.in_flight, float(limits.in_flight)
        else:
            room, places = self.concurrency.ask(now, under_way), self.concurrency.limit
        if not room:
            latency = max(self.concurrency.mean, _LATENCY_MS)
            # Those who ask in vain are told to come back one after another: about two for each place that gets free.
            self.pace.turn = min(max(self.pace.turn, now) + latency / places / 2, now + latency / 2)
            return Denied("in_flight", math.ceil(self.pace.turn - now))
        slot = self.pace.ask(now, limits.rate)
        return Denied("rate", int(slot.denied_ms)) if slot.denied_ms > 0 else slot

    def leave(self, now: int, limits: FlowLimits, left: Left, *, limited: bool, open_and_current: bool) -> bool:
        """Frees a request's place and learns from what it tells; whether a 429 of it lowered the rate.

        Args:
            now: the time.
            limits: what is configured.
            left: the request.
            limited: whether it was answered with a 429.
            open_and_current: whether the gate is ok, and still the one that the request went through.
        """
        under_way = self.under_way()
        there = self.end(left.token) if left.token else False
        if there and left.unused and open_and_current:  # another generation's place was taken at another rate, or none
            self.pace.give_back(limits.rate)
        elif there and left.latency_ms is not None:
            self.pace.confirm(now, limits.rate, left.latency_ms)
            if limits.in_flight <= 0:
                self.concurrency.succeed(now, left.latency_ms, under_way)
        elif there and left.overloaded and open_and_current and limits.in_flight <= 0:
            self.concurrency.fail(now)
        if limits.rate >= 0 and left.stated > 0:
            self.pace.state(now, left.stated)
        if left.rest_ms > 0 and not limited:
            if self.pace.limit(limits.rate) > 0:
                self.pace.rest(now, limits.rate, left.rest_ms)
            else:
                self.pace.lower(now, limits.rate, left.rest_ms)
        mean = self.concurrency.mean
        return limited and open_and_current and self.pace.lower(now, limits.rate, left.wait_ms, mean)

    def begin(self, token: str, over_ms: int) -> None:
        """Notes a request under way, and when it is over if nobody says so before."""
        self.requests += f"{token}{over_ms:013d}"

    def end(self, token: str) -> bool:
        """Forgets a request under way; whether it was one."""
        for first in range(0, len(self.requests), _ENTRY):
            if self.requests.startswith(token, first):
                self.requests = self.requests[:first] + self.requests[first + _ENTRY :]
                return True
        return False


def read_flow(stored: Mapping[str, bytes | None], now: int, clock_back_ms: int) -> Flow:
    """The flow as it was kept, at this time; if the clock went back since, nothing that depends on it.

    Args:
        stored: the fields `pace`, `flight`, `requests` and `seen` of the gate, None if one is missing.
        now: the present by Redis' clock (Unix ms).
        clock_back_ms: the clock went back if the gate was seen this far ahead of now.
    """
    flow = Flow(_read(Pace, stored["pace"]), _read(Concurrency, stored["flight"]))
    requests = (stored["requests"] or b"").decode("ascii", "replace")
    if int(stored["seen"] or 0) > now + clock_back_ms:
        flow.pace.clock_went_back(now)
        flow.concurrency.clock_went_back(now)
        requests = ""
    first = 0
    while first < len(requests) and int(requests[first + TOKEN_LENGTH : first + _ENTRY]) <= now:
        first += _ENTRY
    flow.requests = requests[first:]
    return flow


def read_limits(stored: bytes | None) -> FlowLimits:
    """What the workers that asked last are configured with."""
    rate, _, in_flight = (stored or b"0 0").partition(b" ")
    return FlowLimits(float(rate), int(in_flight))


def in_flight_limit(flow: Flow, limits: FlowLimits) -> int | None:
    """Most requests that may be under way; None while nothing is known of it."""
    return limits.in_flight or int(flow.concurrency.limit) or None


def write_flow(flow: Flow) -> dict[str, str]:
    """The fields of the gate that keep it."""
    return {"pace": _written(flow.pace), "flight": _written(flow.concurrency), "requests": flow.requests}


_NAMES: Final = {kind: [each.name for each in fields(kind)] for kind in (Pace, Concurrency)}
_VALUES: Final[dict[type, Callable[[object], tuple[float, ...]]]] = {
    kind: attrgetter(*names) for kind, names in _NAMES.items()
}
_FORMS: Final = {kind: " ".join(["%.17g"] * len(names)) for kind, names in _NAMES.items()}


def _read(kind: type[Kept], text: bytes | None) -> Kept:
    words = text.split() if text else ()
    return kind(*map(float, words)) if len(words) == len(_NAMES[kind]) else kind()


def _written(state: Pace | Concurrency) -> str:
    kind = type(state)
    return _FORMS[kind] % _VALUES[kind](state)
