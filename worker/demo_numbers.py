"""What the demo shows and judges by: the state of the log and the endpoint's own counts, read together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

    from producers.keys import Keys
    from worker.standin_client import StandInClient
    from worker.standin_views import Counts


@dataclass(frozen=True, slots=True)
class Numbers:
    """One look at the whole system.

    Attributes:
        emitted: changes that the log accepted.
        backlog: entries in the log.
        pending: pairs that were read and are not confirmed.
        late: pairs that an unanswered request may still change, and that are looked at again.
        totals: the worker's counters, as `contact-sync status` names them.
        counts: the endpoint's counters.
    """

    emitted: int
    backlog: int
    pending: int
    late: int
    totals: Counter[str]
    counts: Counts

    @property
    def waiting(self) -> int:
        """Changes and pairs that wait."""
        return self.backlog + self.pending

    @property
    def joined(self) -> int:
        """Changes that needed no record of their own, because another one of the same pair says it all."""
        return self.totals["coalesced"] + self.totals["superseded"]

    @property
    def unaccounted(self) -> int:
        """Changes that neither wait nor ended in one of the ways there are (CONTRACT section 6)."""
        ends = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered")
        return self.emitted - sum(self.totals[end] for end in ends)

    def unfinished(self) -> list[str]:
        """What is still to be done until all is delivered, in words; nothing if all is."""
        left = {
            "changes wait in the log": self.backlog,
            "pairs are not confirmed": self.pending,
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
        self._partitions = range(partitions)
        self._stand_in = stand_in

    def read(self, emitted: int) -> Numbers:
        """One look, in one round trip to each.

        Raises:
            redis.RedisError: Redis does not answer.
            httpx.HTTPError: the stand-in does not answer.
        """
        keys = self._keys
        pipe = self._client.pipeline(transaction=True)  # else a change on its way from one to the other is missed
        for partition in self._partitions:
            pipe.xlen(keys.events(partition))
            pipe.hlen(keys.pending(partition))
            pipe.hlen(keys.late(partition))
            pipe.hgetall(keys.totals(partition))
        replies: list[Any] = pipe.execute()
        totals: Counter[str] = Counter()
        for counted in replies[3::4]:
            totals.update({name.decode(): int(number) for name, number in counted.items()})
        return Numbers(
            emitted=emitted,
            backlog=sum(replies[0::4]),
            pending=sum(replies[1::4]),
            late=sum(replies[2::4]),
            totals=totals,
            counts=self._stand_in.counts(),
        )
