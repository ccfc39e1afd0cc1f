"""What waits in the partitions, and when each of them is due (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from worker.core.dead_letter import DEAD_CAP
from worker.core.gate import DEAD_LETTERS_FULL, PAUSED

if TYPE_CHECKING:
    from worker.core.gate import GateSnapshot
    from worker.core.linger import Linger

ABSORB_ENTRIES: Final = 1_000
"""While the endpoint is away a log as long as this is read and joined, so that memory grows by pairs, not by events."""

ABSORB_SECONDS: Final = 5.0
"""And so is one whose oldest entry is as old as this, so that malformed entries do not wait for the endpoint."""


ABSORB_READ: Final = 5_000
"""Entries read at once from each log while the endpoint is away, or while more pairs wait than a batch holds."""


@dataclass(slots=True)
class PartitionBacklog:
    """What waits in one partition.

    Attributes:
        partition: its number.
        leased: somebody works on it.
        oldest_ms: time of the oldest entry in its log, 0 where it is empty; 1 where the clock went back behind it.
        delete_ms: time of the oldest delete in its log, 0 where none was found: only logs that linger are searched.
        entries: how many entries its log holds.
        pending: how many pairs were read and are not confirmed.
        dead: how many dead letters it has, as far as entries wait that may become more.
        late_due_ms: when its next late mark can be judged, 0 where there is none.
    """

    partition: int
    leased: bool = False
    oldest_ms: int = 0
    delete_ms: int = 0
    entries: int = 0
    pending: int = 0
    dead: int = 0
    late_due_ms: int = 0

    def due_ms(self, view: GateSnapshot, linger: Linger, batch_size: int) -> int | None:
        """When the partition is due by itself (Unix ms, in the past if it is now), None while nothing makes it so.

        Due is: the oldest entry is older than linger, or the oldest delete than its own, or a full batch waits, or
        something is pending or to be repaired and the gate is not closed; while it is closed, a log that wants to be
        absorbed.
        """
        if view.closed:
            full = view.reason in {DEAD_LETTERS_FULL, PAUSED} and self.dead > DEAD_CAP - ABSORB_READ
            if full or not self.oldest_ms:
                return None  # where a read might not fit into the dead letters, only probes find out
            return (
                0
                if self.entries >= ABSORB_ENTRIES
                else self.oldest_ms + max(linger.change_ms, int(ABSORB_SECONDS * 1000))
            )
        times = [self.late_due_ms] if self.late_due_ms else []
        if self.oldest_ms:
            times.append(0 if self.entries >= batch_size else self.oldest_ms + linger.change_ms)
        if self.delete_ms:
            times.append(self.delete_ms + linger.delete_ms)
        if self.pending:
            times.append(0)
        return min(times, default=None)


@dataclass(slots=True)
class Survey:
    """One look over all partitions.

    Attributes:
        now_ms: when it was taken, by Redis' clock (Unix ms); 0 where nothing waits.
        waiting: the partitions in which something waits.
        strange: partitions in which a key of another type stands in the log's place.
        inbox: an entry lies in the inbox; only a look that may block asks for it.
    """

    now_ms: int
    waiting: list[PartitionBacklog]
    wrong_type: list[int] = field(default_factory=list)
    inbox: bool = False
