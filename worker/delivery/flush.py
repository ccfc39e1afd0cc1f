"""The flush loop: claim, read, coalesce, fill, send, settle. One round is one batch, from the log to its outcome."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from producers.nodes.trip import NodeAwayError
from worker.core.batch import fill
from worker.core.codec import Unreadable
from worker.core.round import Round
from worker.core.slice import assemble, coalesce, pairs_of
from worker.delivery.claims import Claims, FlushRun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.config.settings import WorkerSettings
    from worker.core.batch import Batch
    from worker.core.read import ReadResult
    from worker.core.slice import PartitionSlice
    from worker.core.suppression import Suppression
    from worker.delivery.request import RequestSender
    from worker.delivery.settle import Settler
    from worker.delivery.tracing import Tracing
    from worker.store.partitions import Partitions


class Flusher:
    """Flushes batches while something is due. One for each process; each run has its own leases."""

    def __init__(  # noqa: PLR0913 - the steps of the loop, by name
        self,
        settings: WorkerSettings,
        *,
        partitions: Partitions,
        claims: Claims,
        requests: RequestSender,
        settler: Settler,
        suppressed: Callable[[str], Suppression],
        monotonic: Callable[[], float],
        stopping: Callable[[], bool],
        wait: Callable[[float], None] = time.sleep,
        tracing: Tracing | None = None,
    ) -> None:
        self._readd = settings.readd
        self._id_max = settings.id_max
        self._partitions = partitions
        self._claims = claims
        self._requests = requests
        self._settler = settler
        self._suppressed = suppressed
        self._monotonic = monotonic
        self._stopping = stopping
        self._wait = wait
        self._tracing = tracing

    def run(self, budget_seconds: float) -> int:
        """Flushes batch after batch while something is due and the budget lasts; returns the number of rounds.

        A process that is stopping begins no further round: what it sent is settled, and its leases are released.

        Raises:
            redis.RedisError: Redis went away; unsettled changes are still in the log, and leases expire.
        """
        ends = self._monotonic() + budget_seconds
        run = FlushRun()
        rounds = 0
        while self._monotonic() < ends and not self._stopping():
            this = self._claims.claim(run)
            if this is None:
                break
            if isinstance(this, Round):
                try:
                    self._flush(run, this)
                except NodeAwayError:
                    run.leases = []  # they expire; partitions of other nodes go on
                rounds += 1
            elif self._monotonic() + this.seconds < ends:
                self._wait(this.seconds)
            else:
                break
        self._claims.release(run.leases)
        return rounds

    def _flush(self, run: FlushRun, this: Round) -> None:
        """Flushes one batch, from the log to its outcome."""
        try:
            this, slices = self._known(this)
        except (NodeAwayError, Unreadable) as error:
            self._claims.give_up(run, this, error)
            return
        batch = self._fill(this, slices)
        sent = self._requests.send(this, batch)
        run.leases = self._settler.settle(this, slices, sent)
        held = {each.partition for each in run.leases}
        self._claims.note_released(each for each in this.leases if each.partition not in held)

    def _known(self, this: Round) -> tuple[Round, list[PartitionSlice]]:
        """What is known of the pairs that may be sent now, and the round by the clock of their node."""
        asked = self._monotonic()
        reads = self._read(this)
        this = this.by_clock(reads[0].now_ms, asked, self._monotonic())
        return this, self._coalesce(this, reads)

    def _read(self, this: Round) -> list[ReadResult]:
        """Reads the logs, and of what waits already as much as fits into the batch."""
        return self._partitions.read(this.leases, this.requests(self._claims.reach))

    def _coalesce(self, this: Round, reads: Sequence[ReadResult]) -> list[PartitionSlice]:
        """Joins what was read, pair by pair, with what is stored about each pair, and reaches the verdicts."""
        prefixes = coalesce(this, reads, self._partitions.namespace.partitions, self._id_max)
        self._claims.reach.learn(this.limit, sum(each.read for each in prefixes), sum(each.pairs for each in prefixes))
        if self._tracing is not None:
            both = list(zip(reads, prefixes, strict=True))
            lanes = [(read.entries, prefix.entries) for read, prefix in both]
            self._tracing.read(lanes + [(read.bulk, prefix.bulk_entries) for read, prefix in both])
        pairs = [pairs_of(prefix, read) for prefix, read in zip(prefixes, reads, strict=True)]
        recalled = self._partitions.recall(this.leases, reads, pairs)
        suppression = self._suppressed(this.gate.suppression)
        slices = []
        for lease, prefix, read, known in zip(this.leases, prefixes, reads, recalled, strict=True):
            try:
                part = assemble(lease, prefix, read, known)
                part.judge(self._readd, this.now_ms, suppression)
            except Unreadable as error:
                raise error.within(lease.partition) from None
            slices.append(part)
        return slices

    @staticmethod
    def _fill(this: Round, slices: Sequence[PartitionSlice]) -> Batch:
        """Chooses the records of the request."""
        limit = this.records_max(slices)
        return fill(slices, limit, doubtful=this.gate.doubtful, bulk_share=this.bulk_share, turn=this.turn)
