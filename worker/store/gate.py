"""The gate in Redis: one hash for the whole fleet, so that eight workers in an outage make one probe and not eight."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import uuid4

from producers.nodes.trip import NodeAwayError
from worker.core.codec import Unreadable
from worker.core.flow import NO_LIMITS, NOTHING_LEFT, TOKEN_LENGTH, FlowLimits, Left
from worker.core.gate import CLOCK_BACK_MS, FIELDS, SINGLE_REJECTIONS_MAX, Permit, Place, read_snapshot, read_state
from worker.core.local_pace import LocalPace
from worker.store import scripts
from worker.store.client import round_trip
from worker.store.replies import all_checked, time_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from producers.nodes.trip import Replicas
    from worker.core.gate import GateSnapshot, State, What
    from worker.store.namespace import Namespace


PAUSED: Final = "gate_paused"
SUPPRESSION: Final = "gate_suppression"
"""Fields of the configuration that repeat what somebody says of the gate. In a cluster it mostly has another node: a
process that was idle since then learns of it there, while the gate's node is away."""


def copy_beside(namespace: Namespace, field: str, value: str) -> None:
    """Repeats what was said of the gate in a field of the configuration, unless that one's node is away.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    with suppress(NodeAwayError):
        scripts.run_one(namespace.client, scripts.Call(scripts.NOTE, [namespace.keys.config], [field, value]))


def _random_token() -> str:
    return uuid4().hex[:TOKEN_LENGTH]


class Paused(NamedTuple):
    """A pause of all deliveries.

    Attributes:
        since_ms: when it began (Unix ms).
        already: whether deliveries were paused before.
    """

    since_ms: int
    already: bool


class Gate:
    """The gate of one namespace.

    Args:
        namespace: where it lives.
        limits: what is configured of rate and requests under way.
        token: names a request under way, in 8 characters that no other one has.
        monotonic: a clock, in seconds.

    While the gate's node of a cluster is away, a gate that was last seen open stays so: nobody can close it meanwhile,
    or pause. Then each process keeps to the limits by itself. One that was closed, or was never seen, lets nothing out.
    """

    def __init__(
        self,
        namespace: Namespace,
        limits: FlowLimits = NO_LIMITS,
        token: Callable[[], str] = _random_token,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._namespace, self._client, self._key = namespace, namespace.client, namespace.keys.gate
        self._limits = limits
        self._token = token
        self._monotonic = monotonic
        self._seen: tuple[float, GateSnapshot] | None = None
        self._local = LocalPace()
        self._lock = threading.Lock()

    def snapshot(self) -> GateSnapshot:
        """The gate as it is, and the time by Redis' clock; moves nothing.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        try:
            found, now = all_checked(round_trip(self._client, [("HMGET", self._key, *FIELDS), ("TIME",)]))
        except NodeAwayError:
            if (last := self._last_open()) is not None:
                return last
            raise
        return self._note(read_snapshot(dict(zip(FIELDS, found, strict=True)), time_ms(now)))

    def ask(self, life_seconds: float) -> Place:
        """Takes a place for the request of a round that begins; `report` or `leave` must free it.

        Args:
            life_seconds: when the request is over, or its process is dead.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        token = self._token()
        args = [token, int(life_seconds * 1000), *self._limits, CLOCK_BACK_MS]
        try:
            answer, now_ms, wait_ms, found = self._run(scripts.GATE_ASK, args)
        except NodeAwayError:
            if (last := self._last_open()) is not None:
                return self._ask_locally(last, token, life_seconds)
            raise
        gate = self._note(read_snapshot(dict(zip(FIELDS, found, strict=True)), now_ms))
        rest = self._local.rest(self._monotonic())
        if not rest:
            self._local = LocalPace(single_rejections=gate.single_rejections)
        elif answer == b"go":
            # What a request met while the node was away, such as a Retry-After, holds for the whole fleet.
            self.report(gate.generation, "retry", delay_seconds=rest, error=self._local.error, left=Left(token))
            return Place(gate._replace(wait_ms=math.ceil(rest * 1000)), "")
        if answer == b"go":
            interval_ms = int(1000 / gate.rate) if gate.rate else 0
            return Place(gate._replace(wait_ms=0), token, wait_ms + interval_ms, wait_ms)
        return Place(
            gate._replace(wait_ms=max(1, wait_ms, gate.wait_ms if answer == b"closed" else 0)),
            "",
            absorbs=answer != b"in_flight",
        )

    def enter(self, token: str, probe_seconds: float, generation: int | None = None, suppression: str = "") -> Permit:
        """Asks to send; a closed gate lets one probe at a time through.

        Args:
            token: names the caller in the gate's hash.
            probe_seconds: how long the right to probe lasts if its holder dies with it.
            generation: the gate's when a place was taken for the request; an ok gate that has moved since lets it not
                out. None takes it as it is.
            suppression: the gate's when the request was made; if somebody was erased since, it does not go out.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        args = [token, int(probe_seconds * 1000), CLOCK_BACK_MS, "" if generation is None else generation, suppression]
        try:
            reply = self._run(scripts.GATE_ENTER, args)
        except NodeAwayError:
            if (last := self._last_open()) is not None:
                go = last.suppression == suppression and not self._local.closed(self._monotonic())
                return Permit(go, False, last.generation, self._local.attempts, last.single_rejections)
            raise
        answer, generation, attempts, single_rejections, _ = reply
        go = answer != b"closed" and not self._local.closed(self._monotonic())
        return Permit(go, answer == b"probe", generation, attempts, single_rejections)

    def pause(self, wait: Replicas = 0) -> Paused:
        """Lets no request out in the whole fleet until `resume`; requests that are under way end as they do.

        Args:
            wait: how many replicas must have the pause.

        Raises:
            NotReplicatedError: deliveries are paused, and too few replicas have that.
        """
        before_ms, now_ms = self._pause("pause", wait)
        return Paused(now_ms, bool(before_ms))

    def resume(self, wait: Replicas = 0) -> int:
        """Lets requests out again, as far as the gate's state allows; returns since when they were paused, or 0.

        Args:
            wait: how many replicas must have it.

        Raises:
            NotReplicatedError: deliveries continue, and too few replicas have that.
        """
        return self._pause("resume", wait)[0]

    def _pause(self, to: Literal["pause", "resume"], wait: Replicas) -> tuple[int, int]:
        """Since when deliveries were paused before, and are paused now (Unix ms); 0 if they were not, or are not."""
        before_ms, now_ms = self._run(scripts.PAUSE, [to])
        copy_beside(self._namespace, PAUSED, str(now_ms))
        if wait:  # said again once it is repeated: too few replicas may have it, and it holds all the same
            self._run(scripts.PAUSE, [to], wait)
        return int(before_ms), int(now_ms)

    def report(  # noqa: PLR0913 - the fields of one report; all but the first two by name
        self,
        generation: int,
        what: What,
        *,
        delay_seconds: float = 0.0,
        reason: str = "",
        error: str = "",
        limit: int = 0,
        left: Left = NOTHING_LEFT,
    ) -> State:
        """Reports what became of a request; returns the gate's state after it.

        Only a report of the gate's present generation moves its state.

        Raises:
            redis.RedisError: Redis does not answer, or refuses; it is not certain that the gate moved.
        """
        args: list[int | str] = [generation, what, int(delay_seconds * 1000), reason, error, limit]
        try:
            return read_state(self._run(scripts.GATE_REPORT, [*args, *self._flow_args(left)]))
        except NodeAwayError:
            if self._seen is not None and (self._seen[1].state == "ok" or self._seen[1].opens_by_itself):
                return self._report_locally(what, max(delay_seconds, left.wait_ms / 1000), error, limit, left.token)
            raise

    def _ask_locally(self, last: GateSnapshot, token: str, life_seconds: float) -> Place:
        now, (rate, in_flight) = self._monotonic(), self._limits
        known = last.rate if rate <= 0 else min(rate, last.rate or rate)
        with self._lock:
            wait = self._local.ask(token, now, now + life_seconds, known, in_flight or last.in_flight_limit)
        if wait > 0:
            return Place(last._replace(wait_ms=math.ceil(wait * 1000)), "")
        return Place(last, token, int(1000 / known) if known else 0)

    def _report_locally(self, what: What, delay_seconds: float, error: str, limit: int, token: str) -> State:
        until, held = self._monotonic() + delay_seconds, False
        with self._lock:
            self._local.end(token)
            if what in {"retry", "limited", "hold"}:
                self._local.fail(until, error)
            elif what in {"answered", "single_rejection"}:
                held = self._local.reject(until, error, alone=what == "single_rejection")
            elif what != "unused":
                self._local.attempts = 0
        if what == "too_large" and self._seen is not None:
            since, gate = self._seen
            self._seen = since, gate._replace(limit=limit)
        return "held" if held else "ok"  # else nobody can move it: the next report does, once its node answers

    def leave(self, generation: int, what: What, left: Left) -> scripts.Call:
        """The report of a request that moves the gate by nothing else, to be sent along with what is settled."""
        with self._lock:
            self._local.end(left.token)
            if what == "confirmed":
                self._local.succeed()
        return scripts.Call(scripts.GATE_REPORT, [self._key], [generation, what, 0, "", "", 0, *self._flow_args(left)])

    def _flow_args(self, left: Left) -> list[Any]:
        latency = "" if left.latency_ms is None else f"{left.latency_ms:.3f}"
        told = [left.token, latency, int(left.overloaded), left.wait_ms, left.stated, left.rest_ms]
        return [SINGLE_REJECTIONS_MAX, *told, *self._limits, CLOCK_BACK_MS]

    def _note(self, gate: GateSnapshot) -> GateSnapshot:
        self._seen = self._monotonic(), gate
        return gate

    def _last_open(self) -> GateSnapshot | None:
        """The gate as it was seen last, and the time now; None if it was not open, or somebody has paused since.

        Raises:
            Unreadable: something else wrote where a pause is repeated.
        """
        if self._seen is None:
            return None
        since, gate = self._seen
        now_ms = gate.now_ms + int((self._monotonic() - since) * 1000)
        if gate.state != "ok" and not (gate.opens_by_itself and gate.not_before_ms <= now_ms):
            return None
        [copied] = round_trip(self._client, [("HMGET", self._namespace.keys.config, PAUSED, SUPPRESSION)])
        if not isinstance(copied, Exception):
            paused, suppression = copied
            try:
                paused_ms = int(paused or 0)
            except ValueError:
                raise Unreadable(f"the field {PAUSED} of NAMESPACE:config") from None
            # One that began before the gate was seen open is over: the node that repeats it was away at its end.
            if paused_ms > gate.now_ms - CLOCK_BACK_MS:
                return None
            gate = gate._replace(suppression=gate.suppression if suppression is None else suppression.decode())
        rejections = self._local.single_rejections
        return gate._replace(state="ok", now_ms=now_ms, wait_ms=0, single_rejections=rejections)

    def _run(self, script: scripts.Script, args: list[Any], wait: Replicas = 0) -> Any:
        return scripts.run_one(self._client, scripts.Call(script, [self._key], args), wait)
