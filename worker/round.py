"""What one round of the loop has before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.gate import View
    from worker.lease import Lease
    from worker.stretch import Stretch


@dataclass(frozen=True, slots=True)
class Round:
    """The partitions of one round, and when it began.

    Attributes:
        view: the gate as this round found it, with the time by Redis' clock.
        looked: when that was (monotonic, seconds).
        leases: of the partitions in it.
        stretches: what they hold, in the same order.
    """

    view: View
    looked: float
    leases: list[Lease]
    stretches: list[Stretch]

    def at_ms(self, monotonic: float) -> int:
        """Redis' clock (Unix ms) at a time of this process' monotonic clock, in seconds."""
        return self.view.now_ms + int((monotonic - self.looked) * 1000)
