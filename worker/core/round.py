"""What one round of the loop has before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.core.gate import GateSnapshot
    from worker.core.lease import Lease
    from worker.core.slice import PartitionSlice


@dataclass(frozen=True, slots=True)
class Round:
    """The partitions of one round, and when it began.

    Attributes:
        view: the gate as this round found it, with the time by Redis' clock.
        looked: when it was asked for (monotonic, seconds).
        seen: when the answer was there; Redis' clock was read at some moment between the two.
        leases: of the partitions in it.
        stretches: what they hold, in the same order.
    """

    view: GateSnapshot
    looked: float
    seen: float
    leases: list[Lease]
    slices: list[PartitionSlice]

    def at_ms(self, monotonic: float) -> int:
        """Redis' clock (Unix ms) at a time of this process' monotonic clock, in seconds: that or up to a look later."""
        return self.view.now_ms + math.ceil((monotonic - self.looked) * 1000) + 1

    def at_least_ms(self, monotonic: float) -> int:
        """The same, but that or up to a look earlier."""
        return self.view.now_ms + int((monotonic - self.seen) * 1000)
