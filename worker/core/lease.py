"""A lease: the right to work on one partition for a limited time (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from worker.core.dead_letter import DEAD_CAP
from worker.core.lane import BULK, CLASSES, LIVE, LIVE_DELETES

UNTOLD: Final = ("untold_replaced", "untold_trimmed")
"""Fields of a partition that stay until an alarm is logged: the answer to a claim that asks for it may never come."""


class ClockReading(NamedTuple):
    """A server's clock, read at some moment between two of this process' own.

    Attributes:
        now_ms: what it said (Unix ms).
        asked: before it was read (monotonic, seconds).
        answered: after it was read.
    """

    now_ms: int
    asked: float
    answered: float


@dataclass(slots=True)
class Lease:
    """A lease that this worker took, and what it learned about the partition.

    Only a settle renews it. No helper thread does, because a worker that hangs must lose its lease.

    Attributes:
        partition: the partition's number.
        token: rises with every lease of the partition; each script compares it before it writes.
        seq: number of settles of this partition so far, by which a repeated settle is recognized.
        until: when it ends at the latest, by this process' monotonic clock (seconds).
        waiting: entries in the log.
        bulk_waiting: entries in the log of the bulk lane.
        late: pairs with a late mark.
        late_due_ms: when the next of them can be judged (Unix ms), 0 if there is none.
        dead: dead letters.
        dead_pairs: pairs with dead letters.
        late_until_ms: until when an earlier holder whose lease expired may still change pairs (Unix ms).
        late_to_ms: the newest entry time that this holder can have known (Unix ms).
        position: id of the last entry of the log that was settled.
        bulk_position: the same of the bulk lane's log.
        replaced: 1 if a log was replaced by another, which is read from its start.
        parked: pairs whose record was refused with an unknown code.
        parked_due_ms: when the next of them is tried again (Unix ms), 0 if there is none.
        classes: pairs that were read and are not confirmed, by class.
        cursors: where to continue the scan for pairs that wait, by class.
        late_cursor: where to continue the scan for late marks.
        crowded: whether an owner crowds one of the logs.
        hurries: whether a live delete lies deep in the log.
        clock: that of its node of a cluster, as the lease was taken; None for one server, which has the gate's.
    """

    partition: int
    token: bytes
    seq: int
    until: float
    position: bytes
    bulk_position: bytes
    waiting: int
    bulk_waiting: int
    late: int
    late_due_ms: int
    dead: int
    dead_pairs: int
    late_until_ms: int
    late_to_ms: int
    replaced: int = 0
    parked: int = 0
    parked_due_ms: int = 0
    classes: list[int] = field(default_factory=lambda: [0] * CLASSES)
    cursors: list[int] = field(default_factory=lambda: [0] * CLASSES)
    late_cursor: int = 0
    crowded: bool = False
    hurries: bool = False
    clock: ClockReading | None = None

    @property
    def pending(self) -> int:
        """Pairs that were read and are not confirmed."""
        return sum(self.classes)

    @property
    def letters_room(self) -> int:
        """How many more dead letters the partition has room for."""
        return max(0, DEAD_CAP - self.dead)

    @property
    def has_bulk(self) -> bool:
        """Whether anything of the bulk lane waits."""
        return bool(self.bulk_waiting or any(self.classes[each] for each in BULK))

    @property
    def has_live(self) -> bool:
        """Whether anything of the live lane waits."""
        return bool(self.waiting or any(self.classes[each] for each in LIVE))

    @property
    def live_deletes(self) -> int:
        """Live deletes that were read and are not confirmed."""
        return sum(self.classes[each] for each in LIVE_DELETES)

    def share(self, entries: int) -> int:
        """Entries to read of each log if this many are read of the partition."""
        return entries // 2 if self.waiting and self.bulk_waiting else entries

    def outlives(self, monotonic_seconds: float) -> bool:
        """Whether the lease still holds at that time (monotonic, seconds)."""
        return self.until > monotonic_seconds

    def has_work(self, now_ms: int) -> bool:
        """Whether anything of the partition is left to do at this time (Unix ms)."""
        late = self.late and self.late_due_ms <= now_ms
        return bool(self.waiting or self.bulk_waiting or self.pending or late or self.retries(now_ms))

    def retries(self, now_ms: int) -> bool:
        """Whether a parked pair is to be tried again by this time (Unix ms)."""
        return bool(self.parked and self.parked_due_ms <= now_ms)
