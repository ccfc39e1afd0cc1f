"""Sends changes for a producer with a spool: what Redis does not accept waits in a file, and nothing overtakes it."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from producers.contract.errors import ContactSyncError, Repartitioning, SpoolError
from producers.cooldown import Cooldown
from producers.send.report import Forwarded, Replies, SendReport
from producers.send.steps import Block
from producers.spool.drain import SpoolDrain, spool_unaccepted
from producers.spool.store import SPOOL_BYTES, Spool

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from producers.send.chunk import Chunk, XaddEncoder
    from producers.send.steps import Steps

FORWARD_SECONDS: Final = 0.5
"""Longest time a call forwards what is spooled, besides its own changes. `forward` and `close` forward everything."""


class SpoolSender:
    """The spool of one producer, and the way into the log that goes past or through it. I/O-free: yields steps.

    Args:
        path: the file.
        namespace: of the log.
        max_bytes: largest size of the file; None for the default.
        agree: returns the encoder for the log; None if Redis is unavailable, with the reason in the report.
        exchange: one round trip that appends a chunk.

    Raises:
        SettingsError: the file cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        namespace: str,
        max_bytes: int | None,
        *,
        agree: Callable[[SendReport], Steps[XaddEncoder | None]],
        exchange: Callable[[XaddEncoder, Chunk], Steps[Replies]],
    ) -> None:
        self._spool = Spool(path, namespace, SPOOL_BYTES if max_bytes is None else max_bytes)
        self._agree = agree
        self._exchange = exchange
        self._cooldown = Cooldown()

    def begin(self, report: SendReport) -> Steps[XaddEncoder | None]:
        """Returns the encoder if changes may be sent directly; None if they must go into the spool.

        Raises:
            PartitionsMismatch: the log has another number of partitions than configured.
        """
        try:
            waiting: bool = yield Block(self._spool.holds_any)
            if waiting and self._cooldown.over():
                waiting = (yield from self.forward(FORWARD_SECONDS)).left > 0
        except SpoolError as error:
            report.broken = error
            return None
        return None if waiting or not self._cooldown.over() else (yield from self._encoder(report))

    def answer(self, chunk: Chunk, encoder: XaddEncoder | None, broken: Exception | None) -> Steps[Replies]:
        """Sends or spools a chunk; the replies are entry ids, and "spooled" for each change now in the spool.

        Args:
            chunk: the changes.
            encoder: as `begin` returned it.
            broken: the error that earlier in the call ended its way to Redis or to the spool.
        """
        answer = Replies([], broken, written=False)
        if isinstance(broken, SpoolError):
            return answer._replace(spool=broken)
        try:
            if encoder is not None and broken is None and not (yield Block(self._spool.holds_any)):
                answer = yield from self._send(encoder, chunk)
        except SpoolError as error:
            return answer._replace(spool=error)
        if answer.accepted(len(chunk)):
            return answer
        spooled: Replies = yield Block(partial(spool_unaccepted, self._spool, chunk, answer))
        return spooled

    def forward(self, seconds: float | None = None) -> Steps[Forwarded]:
        """Sends what is in the spool, oldest first.

        Args:
            seconds: how long to begin new round trips; None to go on until nothing is left.

        Raises:
            PartitionsMismatch: the log has another number of partitions than configured.
            SpoolError: the spool cannot be read.
        """
        claim = self._spool.claim()
        claimed: bool = yield Block(claim.__enter__)
        with ExitStack() as stack:
            stack.push(claim)
            if not claimed:
                return Forwarded(0, (yield Block(self._spool.__len__)))
            report, drain = SendReport(), SpoolDrain(self._spool, seconds)
            encoder = yield from self._encoder(report)
            if encoder is None:
                return Forwarded(0, (yield Block(self._spool.__len__)), report.broken)
            while chunk := (yield Block(drain.take)):
                answer = yield from self._send(encoder, chunk)
                yield Block(partial(drain.record, answer))
        if drain.cause is not None:
            self._cooldown.begin(0.0)
        return Forwarded(drain.accepted, (yield Block(self._spool.__len__)), drain.cause)

    def close(self) -> Steps[None]:
        """Forwards what Redis accepts, and closes the file. The rest waits for the next producer that opens it."""
        with suppress(ContactSyncError):  # the changes are safe in the file, and the next to forward gets the error
            if (yield Block(self._spool.holds_any)):
                yield from self.forward()
        yield Block(self._spool.close)

    def _encoder(self, report: SendReport) -> Steps[XaddEncoder | None]:
        began = time.monotonic()
        encoder = None
        try:
            encoder = yield from self._agree(report)
        except Repartitioning as error:
            report.broken = error  # it passes, and until then the changes are safe in the spool
        if encoder is None:
            self._cooldown.begin(time.monotonic() - began)
        return encoder

    def _send(self, encoder: XaddEncoder, chunk: Chunk) -> Steps[Replies]:
        began = time.monotonic()
        answer = yield from self._exchange(encoder, chunk)
        if answer.broken is not None:
            self._cooldown.begin(time.monotonic() - began)
        return answer
