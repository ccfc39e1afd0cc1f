"""Which partitions a flush works on: as few as fill a batch, as many as it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from worker.core.settlement import Settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.core.backlog import PartitionBacklog
    from worker.core.gate import GateSnapshot
    from worker.core.lease import Lease
    from worker.core.linger import Linger
    from worker.core.slice import LogPrefix
    from worker.store.backlog import BacklogScanner
    from worker.store.partitions import Partitions

TURN_SECONDS: Final = 1.0
"""Longest that a flush stays with the same partitions while others may be due."""

_REACH_MAX: Final = 10.0  # so many batches' worth of entries are read at once where few pairs change often


@dataclass(slots=True)
class FlushRun:
    """What one run has in hand.

    Attributes:
        leases: partitions it works on.
        ends: when they are given back, so that others get their turn (monotonic, seconds).
        reach: entries read at once, in batches: more where they join into few pairs.
    """

    leases: list[Lease] = field(default_factory=list)
    ends: float = 0.0
    reach: float = 1.0

    def learn(self, logs: Sequence[LogPrefix], room: int) -> None:
        """Adapts the reach to how many entries the last batch took."""
        if room > 0 and any(
            lease.waiting > log.entries and not log.more for lease, log in zip(self.leases, logs, strict=True)
        ):
            self.reach = min(_REACH_MAX, self.reach * 2)
        elif any(log.more for log in logs):
            self.reach = max(1.0, self.reach * 0.75)


class Claims:
    """Takes and gives back leases of the partitions that are due."""

    def __init__(
        self,
        partitions: Partitions,
        scanner: BacklogScanner,
        monotonic: Callable[[], float],
        draw: Callable[[], float],
        *,
        linger: Linger,
    ) -> None:
        self._partitions = partitions
        self._scanner = scanner
        self._monotonic = monotonic
        self._draw = draw
        self._linger = linger

    def take(self, turn: FlushRun, view: GateSnapshot, limit: int) -> bool:
        """Adds partitions to the turn until a batch is full; whether it has any in the end."""
        if self._monotonic() >= turn.ends:
            self.give_back(turn.leases)
            turn.leases = []
        if not turn.leases:
            turn.ends = self._monotonic() + TURN_SECONDS
        filled = sum(lease.waiting + lease.pending for lease in turn.leases)
        if filled < limit and not (turn.leases and view.closed):
            held = {lease.partition for lease in turn.leases}  # one that Redis lost before its time looks free
            chosen = [p for p in self._choose(view, limit, limit - filled) if p not in held]
            turn.leases += self._partitions.claim(chosen)
        return bool(turn.leases)

    def give_back(self, leases: Sequence[Lease]) -> None:
        """Releases leases; nothing of their partitions moves."""
        if leases:
            self._partitions.settle(leases, [Settlement() for _ in leases], [False] * len(leases))

    def drop_short(self, turn: FlushRun, seconds: float) -> None:
        """Gives back the leases that do not outlive a request of this length begun now."""
        deadline = self._monotonic() + seconds
        # Sorted out before they are given back: a settle, which that is, moves the time until which a lease counts.
        short = [lease for lease in turn.leases if not lease.outlives(deadline)]
        turn.leases = [lease for lease in turn.leases if lease.outlives(deadline)]
        self.give_back(short)

    def _choose(self, view: GateSnapshot, limit: int, room: int) -> list[int]:
        """Those that are due, drawn by lot; then what else waits, for company: it makes the request no dearer."""
        survey = self._scanner.scan()
        free = [each for each in survey.waiting if not each.leased]
        # What is due is due alike: ranked by size or age, a quiet partition would wait for as long as others are full.
        # Tasks that look at the same moment would all want the same ones: a draw parts those that are alike.
        ranked = sorted(free, key=lambda each: (max(self._due_ms(each, view, limit), survey.now_ms), self._draw()))
        due = [each for each in ranked if self._due_ms(each, view, limit) <= survey.now_ms]
        chosen: list[int] = []
        company = [] if view.closed or not due else [each for each in ranked if each not in due and each.oldest_ms]
        for each in [*due, *company]:
            if room <= 0:
                break
            chosen.append(each.partition)
            room -= each.entries + each.pending
        return chosen

    def _due_ms(self, waiting: PartitionBacklog, view: GateSnapshot, limit: int) -> float:
        due = waiting.due_ms(view, self._linger, limit)
        return float("inf") if due is None else due
