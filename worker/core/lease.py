"""The right to work on one partition, for a time (DESIGN "Lease")."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Lease:
    """A lease that this worker took, and what it learned with it.

    Only steps that make progress renew it; there is no helper thread, because a worker that hangs must lose it.

    Attributes:
        partition: the partition's number.
        token: rises with every lease of the partition; Redis compares it before anything moves.
        seq: settles done under this partition so far, so that a repeated one is known.
        until: when it ends at the latest, on this process' monotonic clock, in seconds.
        waiting: entries in the log.
        pending: pairs that were read and are not confirmed.
        late: pairs with a late mark.
        late_due_ms: when the next of them can be judged, 0 where there is none.
        dead: dead letters.
        dead_pairs: pairs with dead letters.
        late_until_ms: until when an earlier holder, whose lease expired, may still act.
        late_to_ms: the newest entry time that it can have known.
        position: the last entry that was settled.
        replaced: the log was not the one that the position was of, and is read from its start.
        pending_cursor: from where to look on for pairs that wait.
        late_cursor: from where to look on for late marks.
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
        """Whether the lease still holds at that time."""
        return self.until > monotonic_seconds

    def has_work(self, now_ms: int) -> bool:
        """Whether anything of the partition is left to do at this time (Unix ms)."""
        return bool(self.waiting or self.pending or (self.late and self.late_due_ms <= now_ms))
