"""The gate in Redis: one hash for the whole fleet, so that eight workers in an outage make one probe and not eight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.core.gate import CLOCK_BACK_MS, FIELDS, SINGLE_REJECTIONS_MAX, Permit, read_snapshot, read_state
from worker.store import scripts
from worker.store.client import round_trip
from worker.store.replies import all_checked, time_ms

if TYPE_CHECKING:
    from worker.core.gate import GateSnapshot, State, What
    from worker.store.namespace import Namespace


class Gate:
    """The gate of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._key = namespace.client, namespace.keys.gate

    def snapshot(self) -> GateSnapshot:
        """The gate as it is, and the time by Redis' clock; moves nothing.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        found, time = all_checked(round_trip(self._client, [("HMGET", self._key, *FIELDS), ("TIME",)]))
        return read_snapshot(dict(zip(FIELDS, found, strict=True)), time_ms(time))

    def enter(self, token: str, probe_seconds: float) -> Permit:
        """Asks to send; a closed gate lets one probe at a time through.

        Args:
            token: names the caller in the gate's hash.
            probe_seconds: how long the right to probe lasts if its holder dies with it.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        reply = self._run(scripts.GATE_ENTER, [token, int(probe_seconds * 1000), CLOCK_BACK_MS])
        answer, generation, attempts, single_rejections, _ = reply
        return Permit(answer != b"closed", answer == b"probe", generation, attempts, single_rejections)

    def pause(self) -> int:
        """Lets no request out in the whole fleet until `resume`; requests that are under way end as they do.

        Returns:
            Since when deliveries were paused already (Unix ms), 0 if they were not.
        """
        return int(self._run(scripts.PAUSE, ["pause"]))

    def resume(self) -> int:
        """Lets requests out again, as far as the gate's state allows; returns since when they were paused, or 0."""
        return int(self._run(scripts.PAUSE, ["resume"]))

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
        """Reports what became of a request; returns the gate's state after it.

        Only a report of the gate's present generation moves its state.

        Raises:
            redis.RedisError: Redis does not answer, or refuses; it is not certain that the gate moved.
        """
        args: list[int | str] = [generation, what, int(delay_seconds * 1000), reason, error, limit]
        return read_state(self._run(scripts.GATE_REPORT, [*args, SINGLE_REJECTIONS_MAX]))

    def _run(self, script: scripts.Script, args: list[Any]) -> Any:
        return scripts.run_one(self._client, scripts.Call(script, [self._key], args))
