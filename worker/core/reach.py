"""How many entries of the logs fill a request: more than it has records if they join into few pairs (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from worker.core.lane import BULK, LIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.core.lease import Lease

ENTRIES_A_PAIR_MAX: Final = 10.0
"""Entries that are read for one record at most, so that a round stays short however often few pairs change."""

_WEIGHT: Final = 0.5
"""Weight of the newest round that read as many entries as a request has records, or more."""


@dataclass(slots=True)
class Reach:
    """Learned from what was joined; the runs of a process share it.

    Attributes:
        entries_a_pair: moving mean of the entries that joined into one pair.
    """

    entries_a_pair: float = 1.0

    def entries(self, records: int) -> int:
        """How many entries to read for this many records."""
        return int(records * self.entries_a_pair)

    def learn(self, records: int, entries: int, pairs: int) -> None:
        """Takes what a round has joined into account; few entries say little.

        Args:
            records: most records of its request.
            entries: how many it joined.
            pairs: how many pairs they were of.
        """
        if pairs <= 0:
            return
        newest = min(ENTRIES_A_PAIR_MAX, max(1.0, entries / pairs))
        self.entries_a_pair += _WEIGHT * min(1.0, entries / records) * (newest - self.entries_a_pair)


class Room(NamedTuple):
    """What partitions are claimed for.

    Attributes:
        records: most records of the request.
        bulk: how many of them bulk gets while live waits as well.
        entries_a_record: how many unread entries are worth claiming for each of them.
    """

    records: int
    bulk: int
    entries_a_record: float

    def left(self, leases: Sequence[Lease], *, live_waits: bool) -> float:
        """How much of it partitions leave.

        Args:
            leases: of the partitions.
            live_waits: whether anything live waits elsewhere: then bulk in these counts for its share alone.
        """
        live = sum(each.waiting for each in leases) / self.entries_a_record
        bulk = sum(each.bulk_waiting for each in leases) / self.entries_a_record
        live += sum(each.classes[which] for each in leases for which in LIVE)
        bulk += sum(each.classes[which] for each in leases for which in BULK)
        return self.records - live - (min(bulk, self.bulk) if live_waits else bulk)
