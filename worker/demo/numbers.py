"""What the demo shows and judges by: the state of the log and the endpoint's own counts, read together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.admin.status import read_status

if TYPE_CHECKING:
    import redis

    from producers.contract.keys import Keys
    from worker.admin.status import Status
    from worker.standin.client import StandInClient
    from worker.standin.views import Counts


@dataclass(frozen=True, slots=True)
class Numbers:
    """One look at the whole system.

    Attributes:
        emitted: changes that the log accepted.
        status: what `contact-sync status` would say.
        late: pairs that an unanswered request may still change, and that are looked at again.
        counts: the endpoint's counters.
    """

    emitted: int
    status: Status
    late: int
    counts: Counts

    @property
    def joined(self) -> int:
        """Changes that needed no record of their own, because another one of the same pair says it all."""
        return self.status.totals["coalesced"] + self.status.totals["superseded"]

    @property
    def unaccounted(self) -> int:
        """Changes that neither wait nor ended in one of the ways there are (CONTRACT section 6)."""
        ends = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered")
        return self.emitted - sum(self.status.totals[end] for end in ends) - self.status.waiting_changes

    def unfinished(self) -> list[str]:
        """What is still to be done until all is delivered, in words; nothing if all is."""
        left = {
            "changes wait in the log": self.status.backlog_events,
            "pairs are not confirmed": self.status.pending_pairs,
            "pairs may still be changed by an unanswered request": self.late,
            "requests are not answered yet": self.counts["in_flight"],
            "requests will still act late": self.counts["late"],
        }
        return [f"{number:,} {what}" for what, number in left.items() if number]


class Reader:
    """Reads the numbers of one namespace and one stand-in endpoint."""

    def __init__(self, client: redis.Redis, keys: Keys, partitions: int, stand_in: StandInClient) -> None:
        self._client = client
        self._keys = keys
        self._partitions = partitions
        self._stand_in = stand_in

    def read(self, emitted: int) -> Numbers:
        """One look; the late pairs are counted after the rest, so that none on its way from it to them is missed.

        Args:
            emitted: how many changes the log has accepted.

        Raises:
            redis.RedisError: Redis does not answer.
            httpx.HTTPError: the stand-in does not answer.
        """
        status = read_status(self._client, self._keys, self._partitions)
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._partitions):
            pipe.hlen(self._keys.late(partition))
        return Numbers(emitted, status, sum(pipe.execute()), self._stand_in.counts())
