"""One round of the flush loop: the partitions in hand, the gate, and what follows from both (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from worker.core.backlog import ABSORB_READ
from worker.core.lane import BULK, CLASSES, LIVE, bulk_share, is_heavy
from worker.core.read import ReadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.core.batch import Turn
    from worker.core.gate import GateSnapshot
    from worker.core.lease import Lease
    from worker.core.reach import Reach
    from worker.core.slice import PartitionSlice


SLOW_MS: Final = 20
"""If the fleet may send no sooner than this, there is time to read whole logs: a delete deep in one is found."""


@dataclass(frozen=True, slots=True)
class Round:
    """The partitions of one round, and when it began.

    Attributes:
        gate: the gate as this round found it.
        asked: when the time was asked for (monotonic, seconds).
        answered: when the answer came; Redis read its clock at some moment between the two.
        leases: of the partitions in the round.
        limit: most records that its request may have.
        token: names the place that was taken for its request, empty if none was.
        next_ms: time until the fleet's next request may go out after this one; 0 if there is no rate.
        start: when its request may go out (monotonic, seconds).
        clock_ms: the time by the clock of the server that has the partitions (Unix ms); None while it is not known:
            then that of the gate, which another server of a cluster may have.
    """

    gate: GateSnapshot
    asked: float
    answered: float
    leases: list[Lease]
    limit: int
    token: str = ""
    next_ms: int = 0
    start: float = 0.0
    clock_ms: int | None = None

    @property
    def now_ms(self) -> int:
        """The time by Redis' clock (Unix ms)."""
        return self.gate.now_ms if self.clock_ms is None else self.clock_ms

    def by_clock(self, clock_ms: int, asked: float, answered: float) -> Round:
        """The same round by the clock of the server that has its partitions."""
        return replace(self, clock_ms=clock_ms, asked=asked, answered=answered)

    def at_ms(self, monotonic: float) -> int:
        """Redis' clock (Unix ms) at a time of this process' monotonic clock (seconds): exact or later.

        It is later by no more than it took to read the clock.
        """
        return self.now_ms + math.ceil((monotonic - self.asked) * 1000) + 1

    def at_least_ms(self, monotonic: float) -> int:
        """The same, but exact or earlier."""
        return self.now_ms + int((monotonic - self.answered) * 1000)

    @property
    def bulk_share(self) -> int:
        """Records of the request that are left to bulk while both lanes wait."""
        return bulk_share(self.limit, self.gate.now_ms)

    @property
    def turn(self) -> Turn:
        """Which records that were refused with an unknown code may go although others wait.

        On average one of a newer change may in a fourth of the rounds, so that it does not wait; any in a twentieth.
        """
        if self.gate.now_ms % 4:
            return "none"
        return "newer" if self.gate.now_ms % 20 else "any"

    def absorbs(self, lease: Lease) -> bool:
        """Whether the whole logs are read into pending.

        So a retry is built from the newest state of its pairs, and what goes next is known of all that waits.
        """
        if self.next_ms >= SLOW_MS and sum(each.waiting + each.bulk_waiting for each in self.leases) > self.limit:
            return True
        if (lease.crowded or lease.hurries) and max(lease.waiting, lease.bulk_waiting) > self.limit:
            return True
        # Without room for what is unread, a delete in the log would wait until the last waiting pair is sent. A long
        # log is searched for deletes, and would itself become pairs that wait.
        full = sum(each.pending for each in self.leases) >= self.limit
        return self._reads_first(lease) or (full and 0 < lease.waiting <= self.limit)

    def _reads_first(self, lease: Lease) -> bool:
        """Whether nothing is sent before the logs were read to their ends."""
        return self.gate.state != "ok" or self.gate.closed or lease.pending > self.limit

    def requests(self, reach: Reach) -> list[ReadRequest]:
        """How much to read of each of its partitions.

        Args:
            reach: how many entries of a log fill the request.
        """
        sends = not self.gate.closed
        busy = any(lease.waiting or lease.bulk_waiting or lease.pending for lease in self.leases)
        retries = sends and (self.turn == "any" or not busy)
        pairs = self._pairs() if sends else [[0] * CLASSES for _ in self.leases]
        most = [lease.share(ABSORB_READ) if self.absorbs(lease) else reach.entries(self.limit) for lease in self.leases]
        return [
            ReadRequest(
                entries=entries,
                # A retry is built from the newest state, so it looks for entries that came since the claim.
                bulk=entries if lease.bulk_waiting or self.gate.state != "ok" else 0,
                pairs=some,
                marks=self.limit if lease.late and lease.late_due_ms <= self.now_ms and sends else 0,
                parked=retries and lease.retries(self.now_ms),
            )
            for lease, entries, some in zip(self.leases, most, pairs, strict=True)
        ]

    def _pairs(self) -> list[list[int]]:
        """As many waiting pairs as fill the request, class by class through all partitions.

        Owners with very many pairs get what the others leave, and at least a tenth: these all have a turn in it.
        """
        wanted = [[0] * CLASSES for _ in self.leases]
        room = self.limit
        for each in (*LIVE, *BULK):
            if each == BULK[0]:
                room = max(room, self.bulk_share)
            left = max(room, self.limit // 10, 1) if is_heavy(each) else room
            for lease, some in zip(self.leases, wanted, strict=True):
                some[each] = min(lease.classes[each], left)
                left -= some[each]
                room = max(0, room - some[each])
        return wanted

    def records_max(self, slices: Sequence[PartitionSlice]) -> int:
        """Most records to send: none while the gate is closed, or while part of a log to be absorbed is unread."""
        unread = any(
            self._reads_first(lease)
            and not part.log.blocked
            and (lease.waiting > part.log.entries or lease.bulk_waiting > part.log.bulk_entries)
            for lease, part in zip(self.leases, slices, strict=True)
        )
        return 0 if self.gate.closed or unread else self.limit
