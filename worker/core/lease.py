"""A lease: the right to work on one partition for a limited time (pure)."""

from __future__ import annotations

from dataclasses import dataclass


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
        pending: pairs that were read and are not confirmed.
        late: pairs with a late mark.
        late_due_ms: when the next of them can be judged (Unix ms), 0 if there is none.
        dead: dead letters.
        dead_pairs: pairs with dead letters.
        late_until_ms: until when an earlier holder whose lease expired may still change pairs (Unix ms).
        late_to_ms: the newest entry time that this holder can have known (Unix ms).
        position: id of the last entry that was settled.
        replaced: 1 if the log was replaced by another, which is read from its start.
        pending_cursor: where to continue the scan for pairs that wait.
        late_cursor: where to continue the scan for late marks.
    """

    partition: int
    token: bytes
    seq: int
    until: float
    position: bytes
    waiting: int
    pending: int
    late: int
    late_due_ms: int
    dead: int
    dead_pairs: int
    late_until_ms: int
    late_to_ms: int
    replaced: int = 0
    pending_cursor: int = 0
    late_cursor: int = 0

    def outlives(self, monotonic_seconds: float) -> bool:
        """Whether the lease still holds at that time (monotonic, seconds)."""
        return self.until > monotonic_seconds

    def has_work(self, now_ms: int) -> bool:
        """Whether anything of the partition is left to do at this time (Unix ms)."""
        return bool(self.waiting or self.pending or (self.late and self.late_due_ms <= now_ms))
