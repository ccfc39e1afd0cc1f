"""A producer with a spool: what Redis does not accept waits in a local file, and nothing said later overtakes it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from producers.contract.errors import ContactSyncError, Repartitioning, SpoolError
from producers.cooldown import Cooldown
from producers.send.report import Forwarded, Replies, SendReport
from producers.spool.drain import SpoolDrain, spool_unaccepted
from producers.spool.store import SPOOL_BYTES, Spool

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from producers.send.chunk import Chunk, XaddEncoder

FORWARD_SECONDS: Final = 0.5
"""Longest that a call forwards what others left, beside its own changes; `forward` and `close` forward all."""


class Spooling:
    """The spool of one producer, and the way out of it.

    Args:
        path: the file.
        namespace: of the log.
        max_bytes: largest size of the file; None for the default.
        agree: what packs for the log, None where Redis is away, which the account then says.
        exchange: one round trip with packed commands.

    Raises:
        SettingsError: the file cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        namespace: str,
        max_bytes: int | None,
        *,
        agree: Callable[[SendReport], XaddEncoder | None],
        exchange: Callable[[bytes, int], Replies],
    ) -> None:
        self._spool = Spool(path, namespace, SPOOL_BYTES if max_bytes is None else max_bytes)
        self._agree = agree
        self._exchange = exchange
        self._pause = Cooldown()

    def begin(self, delivery: SendReport) -> XaddEncoder | None:
        """What packs changes that may be sent straight; None where they go behind what is spooled.

        Raises:
            PartitionsMismatch: the log was begun with another number of partitions than configured.
        """
        try:
            waits = self._spool.holds_any()
            if waits and self._pause.over():
                waits = self.forward(FORWARD_SECONDS).left > 0
        except SpoolError as error:
            delivery.broken = error
            return None
        return None if waits or not self._pause.over() else self._encoder(delivery)

    def answer(self, chunk: Chunk, encoder: XaddEncoder | None, broken: Exception | None) -> Replies:
        """What became of a chunk: entry ids, and "spooled" for what is in the spool now.

        Args:
            chunk: the changes.
            encoder: as `begin` gave it.
            broken: what ended the call's way to Redis or to the spool before.
        """
        unsent = Replies([], broken, written=False)
        if isinstance(broken, SpoolError):
            return unsent._replace(spool=broken)
        try:
            straight = encoder is not None and broken is None and not self._spool.holds_any()
        except SpoolError as error:
            return unsent._replace(spool=error)
        return spool_unaccepted(self._spool, chunk, self._sent(encoder, chunk) if encoder and straight else unsent)

    def forward(self, seconds: float | None = None) -> Forwarded:
        """Sends what is in the spool, oldest first.

        Args:
            seconds: how long it may begin new round trips; None for as long as there is anything.

        Raises:
            PartitionsMismatch: the log was begun with another number of partitions than configured.
            SpoolError: the spool cannot be read.
        """
        with self._spool.claim() as claimed:
            if not claimed:
                return Forwarded(0, len(self._spool))
            delivery, way = SendReport(), SpoolDrain(self._spool, seconds)
            encoder = self._encoder(delivery)
            if encoder is None:
                return Forwarded(0, len(self._spool), delivery.broken)
            while chunk := way.take():
                way.record(self._sent(encoder, chunk))
        if way.cause is not None:
            self._pause.begin(0.0)
        return Forwarded(way.accepted, len(self._spool), way.cause)

    def close(self) -> None:
        """Forwards what Redis takes, and closes the file; the rest stays for the next producer that is given it."""
        with suppress(ContactSyncError):  # it is safe where it is, and who forwards it next is told what is wrong
            if self._spool.holds_any():
                self.forward()
        self._spool.close()

    def _encoder(self, delivery: SendReport) -> XaddEncoder | None:
        began = time.monotonic()
        encoder = None
        try:
            encoder = self._agree(delivery)
        except Repartitioning as error:
            delivery.broken = error  # it passes, and until then changes are safe in the spool
        if encoder is None:
            self._pause.begin(time.monotonic() - began)
        return encoder

    def _sent(self, encoder: XaddEncoder, chunk: Chunk) -> Replies:
        began = time.monotonic()
        answer = self._exchange(encoder.pack(chunk), len(chunk))
        if answer.broken is not None:
            self._pause.begin(time.monotonic() - began)
        return answer
