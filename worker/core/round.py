"""One round of the flush loop: the partitions in hand, the gate, and what follows from both (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.core.backlog import ABSORB_READ
from worker.core.read import ReadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.core.gate import GateSnapshot
    from worker.core.lease import Lease
    from worker.core.slice import PartitionSlice


@dataclass(frozen=True, slots=True)
class Round:
    """The partitions of one round, and when it began.

    Attributes:
        gate: the gate as this round found it, with the time by Redis' clock.
        asked: when the gate was asked for (monotonic, seconds).
        answered: when the answer came; Redis read its clock at some moment between the two.
        leases: of the partitions in the round.
        limit: most records that its request may have.
        token: names the place that was taken for its request, empty if none was.
        next_ms: time until the fleet's next request may go out after this one.
    """

    gate: GateSnapshot
    asked: float
    answered: float
    leases: list[Lease]
    limit: int
    token: str = ""
    next_ms: int = 0

    def at_ms(self, monotonic: float) -> int:
        """Redis' clock (Unix ms) at a time of this process' monotonic clock (seconds): exact, or up to a look later."""
        return self.gate.now_ms + math.ceil((monotonic - self.asked) * 1000) + 1

    def at_least_ms(self, monotonic: float) -> int:
        """The same, but exact or up to a look earlier."""
        return self.gate.now_ms + int((monotonic - self.answered) * 1000)

    def absorbs(self, lease: Lease) -> bool:
        """Whether the whole log is read into pending, so that a retry is built from the newest state of its pairs."""
        return self.gate.state != "ok" or self.gate.closed or lease.pending > self.limit

    def request_for(self, lease: Lease, reach: float) -> ReadRequest:
        """How much to read of one of its partitions.

        Args:
            lease: the partition's.
            reach: entries to read from its log, in batches.
        """
        sends = not self.gate.closed
        return ReadRequest(
            entries=ABSORB_READ if self.absorbs(lease) else int(self.limit * reach),
            pairs=self.limit if lease.pending and sends else 0,
            marks=self.limit if lease.late and lease.late_due_ms <= self.gate.now_ms and sends else 0,
            now_ms=self.gate.now_ms,
        )

    def records_max(self, slices: Sequence[PartitionSlice]) -> int:
        """Most records to send: none while the gate is closed, or while part of a log to be absorbed is unread."""
        unread = any(
            self.absorbs(lease) and lease.waiting > part.log.entries
            for lease, part in zip(self.leases, slices, strict=True)
        )
        return 0 if self.gate.closed or unread else self.limit
