"""The loop: claim, read, join, fill, send, settle. One flush is one batch, from the log to what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.core.backlog import ABSORB_READ
from worker.core.batch import Batch, fill
from worker.core.round import Round
from worker.core.slice import PartitionSlice, coalesce_prefix
from worker.delivery.claims import Claims, FlushRun
from worker.store.partitions import Partitions, ReadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.settings import WorkerSettings
    from worker.core.gate import GateSnapshot
    from worker.core.lease import Lease
    from worker.delivery.request import RequestSender
    from worker.delivery.settle import Settler
    from worker.delivery.tracing import Tracing
    from worker.store.gate import Gate


class Flusher:
    """Flushes batches while there is work. One for each process; each run has its own leases."""

    def __init__(  # noqa: PLR0913 - everything the loop touches is handed in, by name
        self,
        settings: WorkerSettings,
        *,
        partitions: Partitions,
        claims: Claims,
        gate: Gate,
        requests: RequestSender,
        settler: Settler,
        monotonic: Callable[[], float],
        stopping: Callable[[], bool],
        tracing: Tracing | None = None,
    ) -> None:
        self._settings = settings
        self._partitions = partitions
        self._claims = claims
        self._gate = gate
        self._requests = requests
        self._settler = settler
        self._monotonic = monotonic
        self._stopping = stopping
        self._tracing = tracing

    def run(self, budget_seconds: float) -> int:
        """Flushes batch after batch while something is due and the time lasts; returns how many rounds that took.

        A process that stops begins no further round: what it sent is settled, and its leases are given back.

        Raises:
            redis.RedisError: Redis went away; what was in hand is in the log still, and leases expire.
        """
        ends = self._monotonic() + budget_seconds
        turn = FlushRun()
        rounds = 0
        while self._monotonic() < ends and not self._stopping():
            looked = self._monotonic()
            view = self._gate.snapshot()
            seen = self._monotonic()
            if not self._claims.take(turn, view, self._limit(view)):
                break
            self._flush(turn, view, looked, seen)
            rounds += 1
        self._claims.give_back(turn.leases)
        return rounds

    def _flush(self, turn: FlushRun, view: GateSnapshot, looked: float, seen: float) -> None:
        """One batch, from the log to what became of it; the turn keeps the leases that have work left."""
        self._claims.drop_short(turn, self._settings.request_timeout_seconds)
        if not turn.leases:
            return
        this = Round(view, looked, seen, turn.leases, self._read(turn, view))
        sent = self._requests.send(this, self._fill(this))
        fate = self._requests.report(sent, absorbed=any(self._absorbs(lease, view) for lease in turn.leases))
        turn.leases = self._settler.settle(this, sent, fate)

    def _limit(self, view: GateSnapshot) -> int:
        return min(self._settings.batch_size, view.limit or self._settings.batch_size)

    def _absorbs(self, lease: Lease, view: GateSnapshot) -> bool:
        """Whether the whole log is read into pending: a retry is built from the newest state of its pairs."""
        return view.state != "ok" or lease.pending > self._limit(view)

    def _read(self, turn: FlushRun, view: GateSnapshot) -> list[PartitionSlice]:
        """Entries, what waits and what is remembered of their pairs; joined and judged."""
        limit = self._limit(view)
        asked = [
            ReadRequest(
                entries=ABSORB_READ if self._absorbs(lease, view) else int(limit * turn.reach),
                pairs=limit if lease.pending and not view.closed else 0,
                now_ms=view.now_ms,
                marks=limit if lease.late and lease.late_due_ms <= view.now_ms and not view.closed else 0,
            )
            for lease in turn.leases
        ]
        reads = self._partitions.read(turn.leases, asked)
        room = limit - sum(len(read.pending) + len(read.marks) for read in reads)
        logs = []
        for lease, read in zip(turn.leases, reads, strict=True):
            absorbs = self._absorbs(lease, view)
            size = ABSORB_READ if absorbs else max(0, room)
            logs.append(
                coalesce_prefix(read.raw, lease.partition, self._partitions.namespace.partitions, size, fast=True)
            )
            room -= 0 if absorbs else logs[-1].pairs
        turn.learn(logs, room)
        if self._tracing is not None:
            self._tracing.read((read.raw, log.entries) for read, log in zip(reads, logs, strict=True))
        slices = self._partitions.recall(turn.leases, logs, reads)
        for part in slices:
            part.judge(self._settings.readd, view.now_ms)
        return slices

    def _fill(self, this: Round) -> Batch:
        """The next request's records; none while the gate is closed or a log that must be known whole is not."""
        unread = any(
            self._absorbs(lease, this.view) and lease.waiting > part.log.entries
            for lease, part in zip(this.leases, this.slices, strict=True)
        )
        limit = 0 if this.view.closed or unread else self._limit(this.view)
        return fill(this.slices, limit, doubtful=this.view.doubtful)
