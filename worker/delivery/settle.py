"""Settles a round: late marks first, then each partition by one fenced script, then a line in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from worker.core.backoff import PARK_SECONDS
from worker.core.counters import OUTCOMES, request_counter
from worker.core.dead_letter import DEAD_CAP
from worker.core.outcome import Confirmed, Hold, Rejected, Retry, TooLarge, loggable_code
from worker.core.settlement import BatchResult, Fate, Refusal, Settlement, gives_up, settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.config.settings import WorkerSettings
    from worker.core.events import Log
    from worker.core.lease import Lease
    from worker.core.round import Round
    from worker.core.slice import PartitionSlice
    from worker.delivery.request import RequestSender, Sent
    from worker.store.partitions import Partitions


_POSTPONE_MS: Final = 500
_PACED_MS: Final = 20
"""If the next request may only go out this much later, the leases are released meanwhile, for other workers to take."""

_POSTPONE_REQUESTS: Final = 20
"""Half of a rejected batch of repairs waits until the other half was halved to the end. For 10,000 records that takes
at most 14 requests, each as long as the rejected one."""


_FULL_MS: Final = 60_000
"""How long logs are left alone whose next entry becomes a dead letter for which their partition has no room. They
continue at once when there is room."""

_OUTCOMES: Final[Mapping[type, str]] = dict(zip((Confirmed, Retry, Rejected, Hold, TooLarge), OUTCOMES, strict=True))


class Settler:
    """Settles partitions by the outcome of a batch."""

    def __init__(
        self,
        settings: WorkerSettings,
        partitions: Partitions,
        requests: RequestSender,
        monotonic: Callable[[], float],
        log: Log,
    ) -> None:
        self._settings = settings
        self._partitions = partitions
        self._requests = requests
        self._monotonic = monotonic
        self._log = log
        self._said_garbage = False

    def settle(self, this: Round, slices: Sequence[PartitionSlice], sent: Sent) -> list[Lease]:
        """Reports the outcome to the gate and settles every partition of the round.

        Returns:
            The leases that have work left.

        Raises:
            redis.RedisError: it is not certain what was settled; the leases must be left to expire.
        """
        fate = self._requests.report(sent, absorbed=any(map(this.absorbs, this.leases)))
        leases, now_ms = this.leases, this.at_ms(self._monotonic())
        settlements = self._settlements(slices, sent, fate, now_ms)
        _count(settlements, sent)
        late = [each.late for each in settlements]
        if isinstance(sent.outcome, Retry) and sent.outcome.ambiguous:
            # Marked before anything else is written: whatever happens from here on, the request may still act.
            until_ms = sent.deadline_ms + int(self._settings.late_seconds * 1000)
            for i, part in enumerate(slices):
                late[i] += _marks(part, sent, i, until_ms)
        elif isinstance(sent.outcome, Rejected) and not any(sent.batch.chosen):
            for i, more in enumerate(_postpone(slices, sent, now_ms, known=sent.outcome.known)):
                late[i] += more
        self._partitions.mark_late([(each.partition, flat) for each, flat in zip(slices, late, strict=True)])
        renew = [
            not sent.stopped and this.next_ms < _PACED_MS and _has_more(lease, part, each, closed=this.gate.closed)
            for lease, part, each in zip(leases, slices, settlements, strict=True)
        ]
        blocked = [part.partition for part in slices if part.log.blocked]
        along = [self._partitions.leave_alone(p, now_ms + _FULL_MS) for p in blocked]
        along += self._requests.leaving(sent)
        results = self._partitions.settle(leases, settlements, renew, along)
        if blocked:
            self._log.error("dead_letters_full", partitions=blocked, most=DEAD_CAP)
        self._log_outcome(sent, slices, settlements, results.count("fenced"))
        for i, result in enumerate(results):
            if result == "fenced" and sent.posted:
                # The worker that holds the partition now does not know of this request, which was answered and is over.
                self._partitions.mark_late([(slices[i].partition, _marks(slices[i], sent, i, now_ms))])
        self._partitions.release([lease for lease, each in zip(leases, results, strict=True) if each == "full"])
        return [lease for lease, stays, each in zip(leases, renew, results, strict=True) if stays and each == "settled"]

    def _settlements(
        self, slices: Sequence[PartitionSlice], sent: Sent, fate: Fate | None, now_ms: int
    ) -> list[Settlement]:
        if fate is None:
            return [Settlement() for _ in slices]
        outcome = sent.outcome
        refusal = None
        if isinstance(outcome, Rejected):
            refusal = Refusal(outcome.code, outcome.field, outcome.message, outcome.known)
        result = BatchResult(
            fate,
            sent.begun_ms,
            now_ms,
            suspect=(sent.batch.records + 1) // 2,
            refusal=refusal,
            parks=self._partitions.parks(),
        )
        return [
            settlement(part, chosen, repairs, result)
            for part, chosen, repairs in zip(slices, sent.batch.chosen, sent.batch.repairs, strict=True)
        ]

    def _log_outcome(
        self, sent: Sent, slices: Sequence[PartitionSlice], settlements: Sequence[Settlement], fenced: int
    ) -> None:
        self._warn_of(sent)
        malformed = sum(len(part.log.malformed) for part in slices)
        if malformed:
            self._log.warning("entries_malformed", entries=malformed)
        if fenced:
            self._log.warning("lease_lost", partitions=fenced, records=sent.batch.records, posted=sent.posted)
        if sent.outcome is None:
            return
        fields: dict[str, Any] = {
            "records": sent.batch.records,
            "partitions": len(slices),
            "entries": sum(part.log.read for part in slices),
            "repairs": sum(each.totals["repairs"] for each in settlements),
        }
        match sent.outcome:
            case Confirmed(inserted=inserted, deleted=deleted):
                self._log.info("batch_confirmed", **fields, inserted=inserted, deleted=deleted)
            case Retry(error=error, ambiguous=ambiguous):
                attempt = sent.attempts + 1
                self._log.warning("batch_retry", **fields, error=error, ambiguous=ambiguous, attempt=attempt)
            case Rejected(code=code, field=field):
                self._log.warning("batch_rejected", **fields, code=loggable_code(code), field=loggable_code(field))
            case Hold(reason=reason, error=error):
                self._log.error("endpoint_held", **fields, reason=reason, error=error)
            case TooLarge(error=error):
                self._log.warning("batch_too_large", **fields, error=error)

    def _warn_of(self, sent: Sent) -> None:
        if sent.garbage and not self._said_garbage:
            self._said_garbage = True
            self._log.warning("rate_limit_headers_unreadable", heeded="none of them")
        if sent.excess and isinstance(sent.outcome, Confirmed):
            said = {"inserted": sent.outcome.inserted, "deleted": sent.outcome.deleted}
            self._log.warning("counts_exceed_records", records=sent.batch.records, **said)


def _count(settlements: Sequence[Settlement], sent: Sent) -> None:
    """Counts what belongs to the request in the first of its partitions."""
    totals = settlements[0].totals
    totals["requests"] += sent.posted
    if sent.posted and sent.outcome is not None:
        totals["records_sent"] += sent.batch.records
        totals[request_counter(_OUTCOMES[type(sent.outcome)])] += 1
    if isinstance(sent.outcome, Retry):
        totals["retries"] += 1
    elif isinstance(sent.outcome, Confirmed):
        totals["inserted"] += sent.outcome.inserted
        totals["deleted"] += sent.outcome.deleted


def _marks(part: PartitionSlice, sent: Sent, i: int, until_ms: int) -> list[bytes | int]:
    """A late mark for each record of one partition, with the op that was sent."""
    part.materialize()
    flat: list[bytes | int] = []
    for pair in sent.batch.chosen[i]:
        flat += (pair, until_ms, 0) if part.verdicts[pair].op == "upsert" else (pair, 0, until_ms)
    for pair in sent.batch.repairs[i]:
        flat += (pair, until_ms, 0) if part.repairs[pair] == "upsert" else (pair, 0, until_ms)
    return flat


def _postpone(slices: Sequence[PartitionSlice], sent: Sent, now_ms: int, *, known: bool) -> list[list[bytes | int]]:
    """Late marks that make half of a rejected batch of repairs wait, so that the refused one ends up alone.

    A repair has no state that could be suspect or parked; its mark is moved instead, for the ops that it has. One that
    is refused alone is tried again later, unless it is given up.
    """
    until_ms = now_ms + max(_POSTPONE_MS, _POSTPONE_REQUESTS * (now_ms - sent.begun_ms))
    waiting = [(i, pair) for i, pairs in enumerate(sent.batch.repairs) for pair in sorted(pairs)]
    late: list[list[bytes | int]] = [[] for _ in slices]
    if len(waiting) == 1 and not any(gives_up(slices[i], pair, known=known) for i, pair in waiting):
        until_ms = now_ms + PARK_SECONDS[1] * 1000
    else:
        waiting = waiting[(len(waiting) + 1) // 2 :]
    for i, pair in waiting:
        mark = slices[i].marks[pair][1]
        late[i] += (pair, until_ms if mark.upsert_until_ms else 0, until_ms if mark.delete_until_ms else 0)
    return late


def _has_more(lease: Lease, part: PartitionSlice, each: Settlement, *, closed: bool) -> bool:
    unread = lease.waiting > part.log.entries or lease.bulk_waiting > part.log.bulk_entries
    if unread and not part.log.blocked:
        return True
    return not closed and bool(each.keeps or lease.pending > each.drops)
