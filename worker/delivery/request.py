"""Sends one request past the gate, and reports its outcome: what it means for the gate and for the records."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from producers.contract.errors import SettingsError
from worker.core.backoff import full_jitter
from worker.core.flow import NOTHING_LEFT, Left
from worker.core.outcome import (
    Answer,
    Confirmed,
    Hold,
    NoAnswer,
    Outcome,
    Rejected,
    Retry,
    TooLarge,
    decide,
    loggable_code,
)
from worker.core.rate_headers import NOTHING, Stated, read_rate_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.settings import WorkerSettings
    from worker.core.batch import Batch
    from worker.core.gate import Permit, What
    from worker.core.round import Round
    from worker.core.settlement import Fate
    from worker.store import scripts
    from worker.store.gate import Gate

HOLD_SECONDS: Final = 15.0
"""Time between two probes while the endpoint is held, unless the longest backoff is shorter."""

DOUBT_SECONDS: Final = 0.5
"""The same while an endpoint is held because it refused so many records: each probe tries records that were refused
less often, so an innocent one is found within seconds."""

DOUBT_REJECTIONS_MAX: Final = 100
"""After this many records that were refused alone in a row, the probes of such an endpoint come as rarely as others."""


class Sender(Protocol):
    """Delivers a body; never raises for what happens on the network."""

    def send(self, body: bytes, server_key: str, deadline_monotonic: float | None = None) -> Answer | NoAnswer:
        """Sends the body, and waits for the answer until the deadline."""

    def distrust(self) -> None:
        """Stops using the connection of this thread's last answer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch and its outcome.

    Attributes:
        batch: its records.
        begun_ms: when it began, or a little earlier (Unix ms, Redis' clock).
        deadline_ms: its deadline, or a little later (Unix ms, Redis' clock); 0 if no request went out.
        outcome: None if there was nothing to send, or the gate let nothing through.
        generation: the gate's generation that it went through.
        attempts: failed attempts before it.
        single_rejections: records that were rejected alone in a row before it.
        posted: whether a request went out.
        left: what it tells of the flow as it leaves its place.
        garbage: whether the answer stated a limit that cannot be read.
        excess: whether the answer counts more changes than records were sent.
    """

    batch: Batch
    begun_ms: int
    deadline_ms: int = 0
    outcome: Outcome | None = None
    generation: int = 0
    attempts: int = 0
    single_rejections: int = 0
    posted: bool = False
    left: Left = NOTHING_LEFT
    garbage: bool = False
    excess: bool = False

    @property
    def stopped(self) -> bool:
        """Whether to stop for now: the gate let nothing through, or has just closed."""
        barred = self.outcome is None and self.batch.records > 0
        return barred or isinstance(self.outcome, (Retry, Hold))


class RequestSender:
    """Sends batches through the gate."""

    def __init__(  # noqa: PLR0913 - everything a request touches is handed in, by name
        self,
        settings: WorkerSettings,
        *,
        gate: Gate,
        endpoint: Sender,
        server_key: Callable[[Permit], str],
        monotonic: Callable[[], float],
        draw: Callable[[], float],
        parks: Callable[[], bool],
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._endpoint = endpoint
        self._server_key = server_key
        self._monotonic = monotonic
        self._draw = draw
        self._parks = parks
        self._wait = wait

    def send(self, this: Round, batch: Batch) -> Sent:
        """Sends the batch at its time if the gate lets it through and every lease outlives its deadline.

        Args:
            this: the round, with the leases of the partitions in the batch.
            batch: the records; without any, nothing is sent.
        """
        token, gate = this.token, this.gate
        unused = Left(token, unused=bool(token))
        nothing = Sent(batch, this.at_least_ms(self._monotonic()), generation=gate.generation, left=unused)
        if not batch.records or not token:
            return nothing
        body = batch.body()  # before the gate is asked: what it says is young when the request goes out
        early = this.start - self._monotonic()
        if early > 0:
            self._wait(early)
        unmoved = gate.generation if gate.state == "ok" else None
        permit = self._gate.enter(token, self._settings.lease_seconds, unmoved, gate.suppression)
        if not permit.go:
            return nothing
        passed = replace(
            nothing,
            generation=permit.generation,
            attempts=permit.attempts,
            single_rejections=permit.single_rejections,
        )
        try:
            key = self._server_key(permit)
        except SettingsError as error:
            return replace(passed, outcome=Hold("credentials", str(error)))
        # The last look at the clock before the first byte: a process that was paused until here must not send.
        begun = self._monotonic()
        deadline = begun + self._settings.request_timeout_seconds
        if not all(lease.outlives(deadline) for lease in this.leases):
            return passed
        answer = self._endpoint.send(body, key, deadline)
        latency_ms = (self._monotonic() - begun) * 1000
        # A Retry-After that is a date counts by Redis' clock: this machine's may be far off.
        outcome = decide(answer, batch.records, this.at_ms(self._monotonic()) / 1000)
        if isinstance(outcome, Rejected) and self._holds(this, batch, outcome):
            full = ", and its partition has no room for a dead letter" if outcome.known else ""
            outcome = Hold("endpoint_refuses", _of(outcome) + full, outcome.after_seconds)
        excess = isinstance(outcome, Confirmed) and outcome.inserted + outcome.deleted > batch.records
        if excess:
            self._endpoint.distrust()
        stated = NOTHING
        if isinstance(answer, Answer):
            stated = read_rate_headers(answer.rate_headers, self._settings.retry_after_max_seconds)
        limited = isinstance(outcome, Retry) and outcome.limited
        left = Left(
            token,
            latency_ms=latency_ms if isinstance(outcome, Confirmed) else None,
            overloaded=isinstance(outcome, Retry) and not limited,
            wait_ms=0 if isinstance(outcome, Confirmed) else self._heeded_ms(outcome, stated),
            stated=stated.rate,
            rest_ms=int(stated.rest_seconds * 1000),
        )
        sent = replace(passed, outcome=outcome, posted=True, deadline_ms=this.at_ms(deadline))
        return replace(sent, left=left, garbage=stated.garbage, excess=excess)

    def _holds(self, this: Round, batch: Batch, refusal: Rejected) -> bool:
        """Whether a refusal holds the endpoint: what it refuses may neither be parked nor become a dead letter."""
        if not refusal.known and self._settings.unknown_refusal == "hold":
            return True
        if self._parks():
            return False
        alone = zip(this.leases, batch.chosen, strict=True) if batch.records == 1 else ()
        return not refusal.known or any(chosen and lease.letters_room <= 0 for lease, chosen in alone)

    def leaving(self, sent: Sent) -> list[scripts.Call]:
        """What frees the request's place if `report` has not done so: to be sent along with what is settled."""
        if not sent.left.token or not (sent.outcome is None or isinstance(sent.outcome, Confirmed)):
            return []
        what: What = "confirmed" if sent.outcome is not None else "unused"
        return [self._gate.leave(sent.generation, what, sent.left)]

    def report(  # noqa: PLR0911 - one clause for each outcome; that is all of it
        self, sent: Sent, *, absorbed: bool
    ) -> Fate | None:
        """Reports the outcome to the gate; returns what becomes of the records, None if nothing does.

        Args:
            sent: the batch and its outcome.
            absorbed: whether what was read is kept as pending, whatever the outcome.
        """
        report, hold, left = self._gate.report, min(HOLD_SECONDS, self._settings.backoff_max_seconds), sent.left
        doubt = min(hold, DOUBT_SECONDS) if sent.single_rejections < DOUBT_REJECTIONS_MAX else hold
        floor = left.wait_ms / 1000
        kept: Fate | None = "kept" if absorbed or not sent.batch.records else None
        match sent.outcome:
            case None:
                return kept
            case Confirmed():
                return "confirmed"
            case Retry(error=error, limited=limited):
                delay = max(self._backoff(sent.attempts + 1), floor)
                report(sent.generation, "limited" if limited else "retry", delay_seconds=delay, error=error, left=left)
                return kept
            case Rejected() if sent.batch.records > 1:
                report(sent.generation, "answered", delay_seconds=max(doubt, floor), left=left)
                return "suspect"
            case Rejected() as refusal:
                # One that was refused before says nothing new: it must not hold the endpoint.
                again = sent.batch.retried and not refusal.known
                what: What = "answered" if again else "single_rejection"
                state = report(sent.generation, what, delay_seconds=max(doubt, floor), error=_of(refusal), left=left)
                return "refused" if again or state != "held" else "doubted"
            case Hold(reason=reason, error=error):
                report(sent.generation, "hold", delay_seconds=max(hold, floor), reason=reason, error=error, left=left)
                return kept
            case TooLarge():
                report(sent.generation, "too_large", limit=max(1, sent.batch.records // 2), left=left)
                return kept

    def _backoff(self, attempt: int) -> float:
        base, most = self._settings.backoff_base_seconds, self._settings.backoff_max_seconds
        return full_jitter(attempt, base, most, self._draw())

    def _heeded_ms(self, outcome: Outcome, stated: Stated) -> int:
        """What the endpoint asked to wait in either way, as far as we do so."""
        asked = outcome.after_seconds if isinstance(outcome, (Retry, Rejected, Hold)) else None
        return int(max(min(asked or 0.0, self._settings.retry_after_max_seconds), stated.rest_seconds) * 1000)


def _of(refusal: Rejected) -> str:
    """Code and field of a refusal; not the message, which may echo user ids."""
    named = (("code", refusal.code), ("field", refusal.field))
    return ", ".join(f"{name} {loggable_code(value)}" for name, value in named if value) or "no code"
