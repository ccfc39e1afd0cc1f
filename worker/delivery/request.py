"""One request: through the gate, out, and what its outcome means for the gate and for its records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from producers.contract.errors import SettingsError
from worker.core.backoff import full_jitter
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.settings import WorkerSettings
    from worker.core.batch import Batch
    from worker.core.round import Round
    from worker.core.settlement import Fate
    from worker.store.gate import Gate

HOLD_SECONDS: Final = 15.0
"""Time between two probes of an endpoint that is held, unless the longest backoff is shorter."""


class Sender(Protocol):
    """What delivers a body; never raises for the network's weather."""

    def send(self, body: bytes, server_key: str, deadline_monotonic: float | None = None) -> Answer | NoAnswer:
        """Sends it, and waits for the answer until the deadline."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch, and what became of it.

    Attributes:
        batch: its records.
        begun_ms: when it began, if not a little later (Unix ms, Redis' clock).
        deadline_ms: when it was over for us, if not a little earlier; 0 where no request went out.
        outcome: None where there was nothing to send, or nothing was let through.
        generation: of the gate it passed.
        attempts: failed attempts before it.
        clears: whether its confirmation has something to clear at the gate.
        posted: whether a request went out.
    """

    batch: Batch
    begun_ms: int
    deadline_ms: int = 0
    outcome: Outcome | None = None
    generation: int = 0
    attempts: int = 0
    clears: bool = False
    posted: bool = False

    @property
    def stopped(self) -> bool:
        """Whether nothing more should be tried now: the gate let nothing through, or has just closed."""
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
        server_key: Callable[[int], str],
        monotonic: Callable[[], float],
        epoch: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._endpoint = endpoint
        self._server_key = server_key
        self._monotonic = monotonic
        self._epoch = epoch
        self._draw = draw

    def send(self, this: Round, batch: Batch) -> Sent:
        """Sends the batch, if the gate lets it through and every lease outlives its deadline.

        Args:
            this: the round, whose leases are those of the partitions in the batch.
            batch: the records; none sends nothing.
        """
        nothing = Sent(batch, this.at_least_ms(self._monotonic()))
        if not batch.records:
            return nothing
        permit = self._gate.enter(this.leases[0].token.decode(), self._settings.lease_seconds)
        if not permit.go:
            return nothing
        clears = permit.probe or permit.single_rejections > 0
        passed = replace(nothing, generation=permit.generation, attempts=permit.attempts, clears=clears)
        try:
            key = self._server_key(permit.generation)
        except SettingsError as error:
            return replace(passed, outcome=Hold("credentials", str(error)))
        body = batch.body()
        # The last look at the clock before the first byte: whoever paused until here must not send.
        deadline = self._monotonic() + self._settings.request_timeout_seconds
        if not all(lease.outlives(deadline) for lease in this.leases):
            return passed
        answer = self._endpoint.send(body, key, deadline)
        outcome = decide(answer, batch.records, self._epoch())
        return replace(passed, outcome=outcome, posted=True, deadline_ms=this.at_ms(deadline))

    def report(  # noqa: PLR0911 - one clause an outcome; that is the whole of it
        self, sent: Sent, *, absorbed: bool
    ) -> Fate | None:
        """Maps the outcome to what happens at the gate and to the records; None where nothing moves.

        Args:
            sent: the batch and its outcome.
            absorbed: what was read is kept as pending, whatever became of the request.
        """
        report, hold = self._gate.report, min(HOLD_SECONDS, self._settings.backoff_max_seconds)
        kept: Fate | None = "kept" if absorbed or not sent.batch.records else None
        match sent.outcome:
            case None:
                return kept
            case Confirmed():
                if sent.clears:
                    report(sent.generation, "confirmed")
                return "confirmed"
            case Retry(after_seconds=after, error=error):
                report(sent.generation, "retry", delay_seconds=self._backoff(sent.attempts + 1, after), error=error)
                return kept
            case Rejected() if sent.batch.records > 1:
                report(sent.generation, "answered", delay_seconds=hold)
                return "suspect"
            case Rejected(code=code, field=field):
                error = f"code {loggable_code(code)}, field {loggable_code(field)}"
                state = report(sent.generation, "lone", delay_seconds=hold, error=error)
                return "refused" if state != "held" else kept
            case Hold(reason=reason, error=error):
                report(sent.generation, "hold", delay_seconds=hold, reason=reason, error=error)
                return kept
            case TooLarge():
                report(sent.generation, "too_large", limit=max(1, sent.batch.records // 2))
                return kept

    def hold(self, reason: str, error: str) -> None:
        """Closes the gate for a reason that lies on our side, whoever has moved it meanwhile: a probe may just have."""
        delay = min(HOLD_SECONDS, self._settings.backoff_max_seconds)
        self._gate.report(self._gate.snapshot().generation, "hold", delay_seconds=delay, reason=reason, error=error)

    def _backoff(self, attempt: int, after_seconds: float | None) -> float:
        """Full jitter; what the endpoint asked for is a floor, capped as every wait is."""
        base, most = self._settings.backoff_base_seconds, self._settings.backoff_max_seconds
        return max(full_jitter(attempt, base, most, self._draw()), min(after_seconds or 0.0, most))
