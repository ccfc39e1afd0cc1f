"""The gate, the fleet-wide circuit breaker before the endpoint: its values, its limits, and what a stored one means.

Pure. `worker.store.gate` reads and moves the gate in Redis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from worker.core.codec import Unreadable
from worker.core.flow import in_flight_limit, read_flow, read_limits
from worker.core.rate import LONG_WAIT_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

SINGLE_REJECTIONS_MAX: Final = 20
"""If this many records in a row are rejected alone, and none is confirmed, they are not poison: it refuses all."""

PAUSED: Final = "paused"
"""Reason of a hold that no probe lifts: an operator paused all deliveries."""

PAUSE_RECHECK_MS: Final = 1_000
"""How soon the end of a pause is noticed."""

LIMIT_DOUBLES_SECONDS: Final = 10
"""A batch size that had to be halved doubles this often. An endpoint that accepted little for a moment costs the
fleet a minute; one whose limit is below the configured size costs it one refused request in that time."""

_LIMIT_DOUBLES_MAX: Final = 20

QUICK_RECORDS: Final = 20_000.0
"""An endpoint that takes this many records a second takes more than a core reads, joins and stores for later."""

CLOCK_BACK_MS: Final = 1_000
"""If the gate moved this far ahead of Redis' clock, the clock went back and the times to wait for mean nothing."""

FIELDS: Final = (
    *("state", "generation", "attempts", "not_before", "probe_until", "moved"),
    *("limit", "limit_at", "reason", "error", "lone", "paused"),
    *("pace", "flight", "requests", "seen", "limits", "suppression"),
)
"""The fields of the stored gate that `read_snapshot` needs, as gate_ask.lua returns them. `lone` counts single
rejections in a row: workers of an earlier version, which may run beside this one, know it by that name."""

State = Literal["ok", "backing_off", "held"]

What = Literal["confirmed", "answered", "single_rejection", "retry", "limited", "hold", "too_large", "unused"]
"""What became of a request, as it is reported to the gate: `single_rejection` is a record that was rejected alone,
`limited` a 429, `unused` a place that no request took."""


class GateSnapshot(NamedTuple):
    """The gate at one moment.

    Attributes:
        now_ms: that moment, by Redis' clock (Unix ms).
        state: `ok`, `backing_off` or `held`; `backing_off` too while it is open but for a long wait that was asked for.
        generation: rises whenever the state moves; an outcome is reported with that of its request.
        wait_ms: time until a request may go out, 0 if one may now: until the next probe of a closed gate, until the
            next request of the fleet's rate, or until it is worth asking again for a place among those under way.
        limit: most records a request may have, None if the endpoint never refused one as too large.
        reason: why it is held, empty if it is not.
        error: what the last failed request met, without ids or secrets.
        not_before_ms: when the next probe may go out (Unix ms), 0 if there is no such time.
        attempts: failed attempts in a row.
        single_rejections: records that were rejected alone in a row, without a confirmation.
        paused_ms: since when an operator has paused all deliveries (Unix ms), 0 if nobody has. Then the gate is `held`,
            whatever lies beneath, and `wait_ms` is the time until the next look.
        rate: most requests a second, None if there is no limit.
        in_flight_limit: most requests under way at once in the fleet, None if there is no limit yet.
        in_flight: requests under way.
        rate_bound_ms: since when the rate has bound without a pause (Unix ms), 0 if it does not bind.
        suppression: names the state of the list of people who were erased, empty if there never was one.
        throughput: requests a second that the endpoint takes, by their latency and how many may be under way; None
            while it is not known, 0 if a fixed number of them keeps it from being learned.
    """

    now_ms: int
    state: State
    generation: int
    wait_ms: int
    limit: int | None
    reason: str
    error: str
    not_before_ms: int
    attempts: int
    single_rejections: int = 0
    paused_ms: int = 0
    rate: float | None = None
    in_flight_limit: int | None = None
    in_flight: int = 0
    rate_bound_ms: int = 0
    suppression: str = ""
    throughput: float | None = None

    @property
    def doubtful(self) -> bool:
        """Whether so many records were rejected in a row that a confirmation must be sought elsewhere first."""
        return self.single_rejections >= SINGLE_REJECTIONS_MAX // 2

    def takes_all(self, records: int) -> bool:
        """Whether it is the workers that bound what is delivered, rather than the endpoint or its rate.

        Args:
            records: most records of a request.
        """
        quick = self.throughput is None or self.throughput * records >= QUICK_RECORDS
        return self.rate is None and self.state == "ok" and quick

    @property
    def opens_by_itself(self) -> bool:
        """Whether it is open but for a long wait that was asked for: what closes it is an attempt."""
        return self.state == "backing_off" and not self.attempts

    @property
    def closed(self) -> bool:
        """Whether nothing may go out now."""
        return self.wait_ms > 0


class Place(NamedTuple):
    """The answer to a worker that begins a round.

    Attributes:
        gate: as it is; closed if there is no place for a request now.
        token: names the place that was taken for the round's request, empty if none was.
        next_ms: time until the next request may go out after this one; 0 if there is no rate.
        start_ms: time until the round's request may go out.
        absorbs: whether logs are to be absorbed meanwhile: if the rate binds. A place among those under way is free
            again before that would pay.
    """

    gate: GateSnapshot
    token: str
    next_ms: int = 0
    start_ms: int = 0
    absorbs: bool = True


class Permit(NamedTuple):
    """The gate's answer to a worker that wants to send.

    Attributes:
        go: whether the request may go out.
        probe: whether it goes out to see if the endpoint is back.
        generation: the gate's generation; the outcome is reported with it.
        attempts: failed attempts in a row.
        single_rejections: records that were rejected alone in a row.
    """

    go: bool
    probe: bool
    generation: int
    attempts: int
    single_rejections: int


def read_snapshot(stored: Mapping[str, bytes | None], now_ms: int) -> GateSnapshot:
    """What the stored gate means at this time.

    Args:
        stored: each of `FIELDS` with its value, None if it is missing.
        now_ms: the present by Redis' clock (Unix ms).

    Raises:
        Unreadable: a field holds something else.
    """

    def number(name: str) -> int:
        try:
            return int(stored[name] or 0)
        except ValueError:
            raise Unreadable(f"the field {name} of NAMESPACE:gate") from None

    wait_ms = max(number("not_before"), number("probe_until")) - now_ms
    if number("moved") > now_ms + CLOCK_BACK_MS:
        wait_ms = 0
    paused_ms = number("paused")
    if paused_ms:
        wait_ms = PAUSE_RECHECK_MS
    state = "held" if paused_ms else read_state(stored["state"])
    if state == "ok" and wait_ms > LONG_WAIT_MS:  # a late answer asked for it; a shorter one is as a rest of the pace
        state = "backing_off"
    limit = number("limit")
    try:
        flow, limits = read_flow(stored, now_ms, CLOCK_BACK_MS), read_limits(stored["limits"])
    except ValueError:
        raise Unreadable("a field of the rate in NAMESPACE:gate") from None
    if state == "ok":
        wait_ms = max(wait_ms, math.ceil(flow.pace.wait_ms(now_ms, limits.rate)))
    return GateSnapshot(
        now_ms=now_ms,
        state=state,
        generation=number("generation"),
        wait_ms=max(0, wait_ms),
        limit=_grown(limit, now_ms - number("limit_at")) if limit else None,
        reason=PAUSED if paused_ms else _text(stored["reason"]),
        error=_text(stored["error"]),
        not_before_ms=number("not_before"),
        attempts=number("attempts"),
        single_rejections=number("lone"),
        paused_ms=paused_ms,
        rate=flow.pace.limit(limits.rate) or None,
        in_flight_limit=in_flight_limit(flow, limits),
        in_flight=flow.under_way(),
        rate_bound_ms=flow.pace.bound_since(now_ms),
        suppression=_text(stored["suppression"]),
        throughput=flow.throughput(limits),
    )


def read_state(raw: bytes | None) -> State:
    """The stored state; a gate that was never moved is `ok`."""
    return "held" if raw == b"held" else "backing_off" if raw == b"backing_off" else "ok"


def _grown(limit: int, age_ms: int) -> int | None:
    """The limit by now; None if it passed every size that can be configured, or if the clock went back."""
    doubled = age_ms // (LIMIT_DOUBLES_SECONDS * 1000)
    return limit << max(0, doubled) if age_ms >= -CLOCK_BACK_MS and doubled < _LIMIT_DOUBLES_MAX else None


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
