"""The gate: what the whole fleet knows of the endpoint, and who may send (DESIGN "Gate").

The state lies in one Redis hash, so that eight workers in an outage make one probe at a time and not eight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from worker.store import scripts
from worker.store.client import round_trip

if TYPE_CHECKING:
    import redis

    from producers.contract.keys import Keys

SINGLE_REJECTIONS_MAX: Final = 20
"""So many lone rejections in a row without one confirmation are no poison: the endpoint refuses everything."""

DEAD_LETTERS_FULL: Final = "dead_letters_full"
"""Reason of a hold: a partition has no room for another dead letter, and none may be dropped."""

PAUSED: Final = "paused"
"""Reason of a hold that no probe lifts: an operator paused all deliveries."""

PAUSE_LOOK_MS: Final = 1_000
"""How soon the end of a pause is noticed."""

LIMIT_DOUBLES_SECONDS: Final = 10
"""A batch size that had to be halved doubles every so often: an endpoint that took little for a moment costs the fleet
a minute, and one whose limit is lower than the configured size costs it one refused request in that time."""

_LIMIT_DOUBLES_MAX: Final = 20

CLOCK_BACK_MS: Final = 1_000
"""Redis' clock went back, if the gate moved so far ahead of it: what was to be waited for is not known any more."""

_FIELDS: Final = (
    *("state", "generation", "attempts", "not_before", "probe_until", "moved"),
    *("limit", "limit_at", "reason", "error", "lone", "paused"),
)

State = Literal["ok", "backing_off", "held"]
What = Literal["confirmed", "answered", "lone", "retry", "hold", "too_large"]


class GateSnapshot(NamedTuple):
    """The gate as it was looked at.

    Attributes:
        now_ms: when that was, by Redis' clock (Unix ms).
        state: `ok`, `backing_off` or `held`.
        generation: rises whenever the state moves; an outcome is reported with that of its request.
        wait_ms: until a probe may go out, 0 where one may now (or none is needed).
        limit: most records a request may have, None where that was never more than the endpoint takes.
        paused_ms: since when an operator has paused all deliveries (Unix ms), 0 where nobody has. Then it is `held`,
            whatever lies beneath, and `wait_ms` is until the next look.
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

    @property
    def doubtful(self) -> bool:
        """So many records were rejected one after another that a confirmation must be sought elsewhere first."""
        return self.single_rejections >= SINGLE_REJECTIONS_MAX // 2

    @property
    def closed(self) -> bool:
        """Nothing may go out now."""
        return self.state != "ok" and self.wait_ms > 0


class Permit(NamedTuple):
    """The answer to one who wants to send.

    Attributes:
        go: whether the request may go out.
        probe: it goes out to see whether the endpoint is back.
        generation: the gate's generation, which the outcome is reported with.
        attempts: failed attempts so far.
        lone: lone rejections in a row so far.
    """

    go: bool
    probe: bool
    generation: int
    attempts: int
    single_rejections: int


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


class Gate:
    """The gate of one namespace."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._key = keys.gate

    def look(self) -> GateSnapshot:
        """The gate as it is, and the time by Redis' clock; moves nothing."""
        found, time = round_trip(self._client, [("HMGET", self._key, *_FIELDS), ("TIME",)])
        if isinstance(found, Exception):
            raise found
        seconds, micros = time
        state, generation, attempts, not_before, probe_until, moved, *more = found
        limit, limit_at, reason, error, single_rejections, paused = more
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        wait_ms = max(int(not_before or 0), int(probe_until or 0)) - now_ms
        if int(moved or 0) > now_ms + CLOCK_BACK_MS:
            wait_ms = 0
        paused_ms = int(paused or 0)
        known = "held" if paused_ms else _state(state)
        if paused_ms:
            wait_ms = PAUSE_LOOK_MS
        return GateSnapshot(
            now_ms=now_ms,
            state=known,
            generation=int(generation or 0),
            wait_ms=max(0, wait_ms) if known != "ok" else 0,
            limit=None if limit is None else _grown(int(limit), now_ms - int(limit_at or 0)),
            reason=PAUSED if paused_ms else _text(reason),
            error=_text(error),
            not_before_ms=int(not_before or 0),
            attempts=int(attempts or 0),
            single_rejections=int(single_rejections or 0),
            paused_ms=paused_ms,
        )

    def enter(self, token: str, probe_seconds: float) -> Permit:
        """Asks to send; a closed gate lets one probe at a time through.

        Args:
            token: names who asks, in the gate's hash.
            probe_seconds: how long the right to probe lasts, if its holder dies with it.
        """
        call = scripts.Call(scripts.GATE_ENTER, [self._key], [token, int(probe_seconds * 1000), CLOCK_BACK_MS])
        reply = scripts.run(self._client, [call])[0]
        if isinstance(reply, Exception):
            raise reply
        answer, generation, attempts, single_rejections, _ = reply
        return Permit(answer != b"closed", answer == b"probe", generation, attempts, single_rejections)

    def pause(self) -> int:
        """Lets no request out any more, in the whole fleet, until `resume`; those on their way end as they do.

        Returns:
            Since when they were paused already (Unix ms), 0 if they were not.
        """
        return self._switch("pause")

    def resume(self) -> int:
        """Lets requests out again, as far as the gate's state allows; returns since when they were paused, or 0."""
        return self._switch("resume")

    def _switch(self, to: str) -> int:
        reply = scripts.run(self._client, [scripts.Call(scripts.PAUSE, [self._key], [to])])[0]
        if isinstance(reply, Exception):
            raise reply
        return int(reply)

    def report(  # noqa: PLR0913 - the fields of one report; all but the first two by name
        self,
        generation: int,
        what: What,
        *,
        delay_seconds: float = 0.0,
        reason: str = "",
        error: str = "",
        limit: int = 0,
    ) -> State:
        """Says what became of a request; moves the gate only while it is the one that the request went through."""
        args: list[int | str] = [generation, what, int(delay_seconds * 1000), reason, error, limit]
        args.append(SINGLE_REJECTIONS_MAX)
        reply = scripts.run(self._client, [scripts.Call(scripts.GATE_REPORT, [self._key], args)])[0]
        if isinstance(reply, Exception):
            raise reply
        return _state(reply)


def _grown(limit: int, age_ms: int) -> int | None:
    """The size by now; none where it is past any that can be configured, or the clock went back."""
    doubled = age_ms // (LIMIT_DOUBLES_SECONDS * 1000)
    return limit << max(0, doubled) if age_ms >= -CLOCK_BACK_MS and doubled < _LIMIT_DOUBLES_MAX else None


def _state(raw: bytes | None) -> State:
    return "held" if raw == b"held" else "backing_off" if raw == b"backing_off" else "ok"
