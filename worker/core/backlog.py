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
"""While the endpoint is away, a log of this length is read and joined, so that memory grows by pairs, not by events."""

ABSORB_SECONDS: Final = 5.0
"""And so is a log whose oldest entry is this old, so that malformed entries do not wait for the endpoint."""

ABSORB_READ: Final = 5_000
"""Entries read at once from each log while the endpoint is away, or while more pairs wait than a batch holds."""


@dataclass(slots=True)
class PartitionBacklog:
    """What waits in one partition.

    Attributes:
        partition: its number.
        leased: whether a worker holds it.
        oldest_ms: time of the oldest entry in its log (Unix ms), 0 if the log is empty; 1 if the clock went back
            behind it.
        delete_ms: time of the oldest delete in its log (Unix ms), 0 if none was found: only lingering logs are
            searched.
        entries: number of entries in its log.
        pending: number of pairs that were read and are not confirmed.
        dead: number of its dead letters; counted only if its log has entries.
        late_due_ms: when its next late mark can be judged (Unix ms), 0 if there is none.
    """

    partition: int
    leased: bool = False
    oldest_ms: int = 0
    delete_ms: int = 0
    entries: int = 0
    pending: int = 0
    dead: int = 0
    late_due_ms: int = 0

    def due_ms(self, gate: GateSnapshot, linger: Linger, batch_size: int) -> int | None:
        """When the partition is due by itself (Unix ms, in the past if it is due now), None if nothing makes it due.

        It is due if its oldest entry has lingered, if its oldest delete has, if a full batch waits, or if something is
        pending or to be repaired. While the gate is closed, it is due only if its log must be absorbed.
        """
        if gate.closed:
            full = gate.reason in {DEAD_LETTERS_FULL, PAUSED} and self.dead > DEAD_CAP - ABSORB_READ
            if full or not self.oldest_ms:
                return None  # what is read might not fit into the dead letters: only a probe finds out
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
    """One scan over all partitions.

    Attributes:
        now_ms: when it was taken, by Redis' clock (Unix ms); 0 if nothing waits.
        waiting: the partitions in which something waits.
        wrong_type: partitions whose log's key has the wrong type.
        inbox: whether the inbox has an entry; only a scan that may block looks for it.
    """

    now_ms: int
    waiting: list[PartitionBacklog]
    wrong_type: list[int] = field(default_factory=list)
    inbox: bool = False
