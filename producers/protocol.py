"""What both producers do: one I/O-free logic, which each runs with a driver of its own (producers/send/steps.py)."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING

import redis

from producers.contract.errors import SettingsError
from producers.contract.partitions import agreement
from producers.nodes.trip import NodeAwayError
from producers.receipt import ReceiptLookup, SentReceipt, lookups, status_from, waits
from producers.send.chunk import Chunk, XaddEncoder
from producers.send.pressure import MEASURED_SECONDS, Load, Throughput, load_of, load_query
from producers.send.report import Forwarded, Replies, SendReport
from producers.send.stamp import Stamper
from producers.send.steps import Exchange, Sleep, Take
from producers.send.trace import current_traceparent

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from producers.contract.change import ContactChange
    from producers.receipt import DeliveryStatus, Receipt
    from producers.send.intake import AsyncIntake, Intake
    from producers.send.steps import Steps
    from producers.settings import ProducerSettings
    from producers.spool.sender import SpoolSender


class ProducerProtocol:
    """The logic of one producer. Every method that yields steps is run by a driver.

    Args:
        settings: all settings.
        spool: path of the spool, None for no spool.
        spool_bytes: its largest size, None for the default.
        clock: returns the Unix time in seconds, for stamping.
        cluster: whether Redis is a cluster.

    Raises:
        SettingsError: the spool cannot be used.
    """

    def __init__(
        self,
        settings: ProducerSettings,
        spool: str | os.PathLike[str] | None,
        spool_bytes: int | None,
        clock: Callable[[], float],
        *,
        cluster: bool,
    ) -> None:
        self._settings = settings
        self.id_max = settings.id_max
        self.stamper = Stamper(clock)
        self._throughput = Throughput()
        self._encoder: XaddEncoder | None = None
        self._known: XaddEncoder | None = None
        self._spool = self._open_spool(spool, spool_bytes, cluster=cluster)

    @property
    def partitions(self) -> int | None:
        """The number of partitions, as it was agreed last; None before."""
        return None if self._known is None else self._known.partitions

    def send_one(self, change: ContactChange) -> Steps[SentReceipt]:
        """Appends one change."""
        report, encoder = SendReport(), self._encoder
        if encoder is None or self._spool is not None:
            encoder = yield from self._begin(report)
        chunk = self.chunk()
        self.admit(chunk, change)
        if seconds := self.stamper.ahead_seconds():
            yield Sleep(seconds)
        report.record(chunk, (yield from self._answer(chunk, encoder, report.broken)))
        return SentReceipt.of(report.conclude(None)[0], change, chunk.stamps[0])

    def send(self, intake: Intake | AsyncIntake) -> Steps[list[str]]:
        """Appends what the intake gives, chunk by chunk."""
        report = SendReport()
        encoder = yield from self._begin(report)
        while chunk := (yield Take(intake)):
            if seconds := self.stamper.ahead_seconds():
                yield Sleep(seconds)
            report.record(chunk, (yield from self._answer(chunk, encoder, report.broken)))
        return report.conclude(intake.failure)

    def deliver(self, chunk: Chunk) -> Steps[Replies]:
        """Appends one chunk, and returns the replies instead of raising an error."""
        report = SendReport()
        encoder = yield from self._begin(report)
        if seconds := self.stamper.ahead_seconds():
            yield Sleep(seconds)
        return (yield from self._answer(chunk, encoder, report.broken))

    def forward(self) -> Steps[Forwarded]:
        """Sends what is in the spool."""
        return Forwarded(0, 0) if self._spool is None else (yield from self._spool.forward())

    def status_of(self, receipt: Receipt) -> Steps[DeliveryStatus]:
        """Asks Redis for the status of a change."""
        encoder = yield from self._agreed()
        replies = yield lookups(receipt, self._settings.keys, encoder.partitions)
        return status_from(receipt, ReceiptLookup.of(replies))

    def wait(self, receipt: Receipt, timeout: float) -> Steps[DeliveryStatus]:
        """Asks again and again, ever less often, until the change is no longer waiting or the time is over."""
        ends = time.monotonic() + timeout
        for seconds in waits(iter(random.random, None)):
            yield from self._forward(receipt)
            status = yield from self.status_of(receipt)
            left = ends - time.monotonic()
            if status != "waiting" or left <= 0:
                return status
            yield Sleep(min(seconds, left))
        raise AssertionError  # the waits never end

    def load(self) -> Steps[Load]:
        """Asks Redis how much waits, and how full it is."""
        encoder = yield from self._agreed()
        replies = yield load_query(self._settings.keys, encoder.partitions)
        load = load_of(replies, encoder.partitions)
        self._throughput.note(load.confirmed)
        return load

    def eta(self, receipt: Receipt) -> Steps[float]:
        """Estimates how long a change still waits, in seconds."""
        still_spooled = yield from self._forward(receipt)
        if (yield from self.status_of(receipt)) != "waiting":
            return 0.0
        if still_spooled:
            return math.inf
        load = yield from self.load()
        if self._throughput.per_second is None:
            yield Sleep(MEASURED_SECONDS)
            load = yield from self.load()
        # It waits itself, perhaps in a partition that was not read for the load.
        return self._throughput.seconds_for(max(1, load.before(receipt.lane)))

    def _forward(self, receipt: Receipt) -> Steps[bool]:
        """Sends what is spooled for a moment, if the change is there; returns whether it may still be there.

        Whoever waits for it makes no other call meanwhile that would.
        """
        if self._spool is None or not receipt.spooled or not (yield from self._spool.forward_a_while()):
            return False
        return (yield from self._spool.holds(receipt.owner))

    def close(self) -> Steps[None]:
        """Forwards what is spooled, if Redis accepts it, and closes the spool."""
        if self._spool is not None:
            yield from self._spool.close()

    def chunk(self) -> Chunk:
        """Returns an empty chunk."""
        return Chunk(id_max=self.id_max)

    def admit(self, chunk: Chunk, change: ContactChange) -> None:
        """Adds a change of the current trace to the chunk, checked and stamped now.

        Raises:
            InvalidChange: its ``at`` is too far ahead, or an id is longer than the settings allow.
        """
        trace = current_traceparent()
        if trace is not None and change.traceparent is None:
            change = change.model_copy(update={"traceparent": trace})
        chunk.admit(change, self.stamper)

    def _begin(self, report: SendReport) -> Steps[XaddEncoder | None]:
        return self._agree(report) if self._spool is None else self._spool.begin(report)

    def _agree(self, report: SendReport) -> Steps[XaddEncoder | None]:
        # The caller keeps the encoder for its call: another thread that loses its connection clears it here.
        encoder = self._encoder
        if encoder is None:
            keys = self._settings.keys
            try:
                agreed = yield from agreement(keys, self._settings.partitions)
                encoder = self._known = XaddEncoder(keys, agreed.partitions, lanes=agreed.lanes)
            except NodeAwayError as error:
                encoder = self._known  # the node with the configuration is away, and not those with the partitions
                if encoder is None:
                    report.broken = error
                return encoder
            except (redis.RedisError, OSError) as error:
                report.broken = error
            self._encoder = encoder
        return encoder

    def _agreed(self) -> Steps[XaddEncoder]:
        report = SendReport()
        encoder = yield from self._agree(report)
        if encoder is None:
            raise report.broken or redis.ConnectionError("Redis did not answer")
        return encoder

    def _answer(self, chunk: Chunk, encoder: XaddEncoder | None, broken: Exception | None) -> Steps[Replies]:
        # No generator itself: a single change notices each.
        if self._spool is not None:
            return self._spool.answer(chunk, encoder, broken)
        if encoder is None or broken is not None:
            return _not_sent(broken)
        return self._exchange(encoder, chunk)

    def _exchange(self, encoder: XaddEncoder, chunk: Chunk) -> Steps[Replies]:
        answer: Replies = yield Exchange(encoder, chunk)
        if answer.connection_suspect:
            self._encoder = None  # so that the number of partitions is agreed again
        return answer

    def _open_spool(
        self, path: str | os.PathLike[str] | None, max_bytes: int | None, *, cluster: bool
    ) -> SpoolSender | None:
        if path is None:
            if max_bytes is not None:
                raise SettingsError("spool_bytes is the size of a spool, but no spool is given")
            return None
        from producers.spool.sender import SpoolSender  # noqa: PLC0415 - a Python without SQLite can still produce

        return SpoolSender(
            path, self._settings.namespace, max_bytes, agree=self._agree, exchange=self._exchange, cluster=cluster
        )


def _not_sent(broken: Exception | None) -> Steps[Replies]:
    yield from ()
    return Replies([], broken, written=False)
