"""The numbers that the demo shows and checks: the state of the log and the endpoint's own counts, read together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.admin.status import read_status
from worker.core.numbers import are, many

if TYPE_CHECKING:
    from worker.admin.status import Status
    from worker.standin.client import StandInClient
    from worker.standin.views import Counts
    from worker.store.namespace import Namespace


@dataclass(frozen=True, slots=True)
class Numbers:
    """The state of the whole system at one moment.

    Attributes:
        emitted: changes that the log accepted.
        status: the status, as shown by `contact-sync status`.
        late: pairs that an unanswered request may still change, and that will be checked again.
        counts: the endpoint's counters.
    """

    emitted: int
    status: Status
    late: int
    counts: Counts

    @property
    def joined(self) -> int:
        """Changes that needed no record of their own, because another change of the same pair covers them."""
        return self.status.totals["coalesced"] + self.status.totals["superseded"]

    @property
    def unaccounted(self) -> int:
        """Changes that neither wait nor have one of the outcomes (docs/reference/contract.md, section 6)."""
        ends = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered")
        return self.emitted - sum(self.status.totals[end] for end in ends) - self.status.waiting_changes

    def unfinished(self) -> list[str]:
        """Returns what is still to be done, in words; empty if everything is delivered."""
        waiting, pending = self.status.backlog_events, self.status.pending_pairs
        unanswered, late = self.counts["in_flight"], self.counts["late"]
        left = (
            (waiting, "change", f"{are(waiting)} waiting in the log"),
            (pending, "pair", f"{are(pending)} not confirmed"),
            (self.late, "pair", "may still be changed by an unanswered request"),
            (unanswered, "request", f"{are(unanswered)} not answered yet"),
            (late, "request", f"{are(late)} still to be applied late"),
        )
        return [f"{many(number, noun)} {what}" for number, noun, what in left if number]


class Reader:
    """Reads the numbers of one namespace and one stand-in endpoint."""

    def __init__(self, namespace: Namespace, stand_in: StandInClient) -> None:
        self._namespace = namespace
        self._stand_in = stand_in

    def read(self, emitted: int) -> Numbers:
        """Reads the numbers. The late pairs are counted last, so that no pair that becomes late meanwhile is missed.

        Args:
            emitted: number of changes that the log has accepted.

        Raises:
            redis.RedisError: Redis does not answer.
            StandInAway: the stand-in does not answer.
        """
        status = read_status(self._namespace)
        client, keys, partitions = self._namespace
        pipe = client.pipeline(transaction=False)
        for partition in range(partitions):
            pipe.hlen(keys.late(partition))
        return Numbers(emitted, status, sum(pipe.execute()), self._stand_in.counts())
