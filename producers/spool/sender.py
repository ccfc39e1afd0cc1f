"""Sends changes for a producer with a spool: what Redis does not accept waits in a file, and nothing overtakes it."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from producers.contract.errors import ContactSyncError, Repartitioning, SpoolError
from producers.cooldown import Cooldown
from producers.nodes.trip import NodeAwayError
from producers.send.report import Forwarded, Replies, SendReport
from producers.send.steps import Block
from producers.spool.drain import BEHIND, SpoolDrain, chunk_of, spool_unaccepted
from producers.spool.store import SPOOL_BYTES, Spool

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from producers.send.chunk import Chunk, XaddEncoder
    from producers.send.steps import Steps

FORWARD_SECONDS: Final = 0.5
"""Longest time a call forwards what is spooled, besides its own changes. `forward` and `close` forward everything."""


_SLOW_SECONDS: Final = 0.25
"""If the nodes of a cluster that are away cost a call more than this, the next ones do not try any for a moment. One
node that hangs costs a PING now and then, which is less."""


class SpoolSender:
    """The spool of one producer, and the way into the log that goes past or through it. I/O-free: yields steps.

    Args:
        path: the file.
        namespace: of the log.
        max_bytes: largest size of the file; None for the default.
        agree: returns the encoder for the log; None if Redis is unavailable, with the reason in the report.
        exchange: one round trip that appends a chunk.
        cluster: whether Redis is a cluster, so that a refusal says nothing of other partitions.

    Raises:
        SettingsError: the file cannot be used.
    """

    def __init__(  # noqa: PLR0913 - each has its name
        self,
        path: str | os.PathLike[str],
        namespace: str,
        max_bytes: int | None,
        *,
        agree: Callable[[SendReport], Steps[XaddEncoder | None]],
        exchange: Callable[[XaddEncoder, Chunk], Steps[Replies]],
        cluster: bool,
    ) -> None:
        self._spool = Spool(path, namespace, SPOOL_BYTES if max_bytes is None else max_bytes)
        self._agree = agree
        self._exchange = exchange
        self._cluster = cluster
        self._cooldown = Cooldown()
        # While a node is away, its changes stay in the spool, and the other nodes take new ones.
        self._spool_cooldown = Cooldown()
        self._drain: SpoolDrain | None = None

    def begin(self, report: SendReport) -> Steps[XaddEncoder | None]:
        """Returns the encoder if changes may be sent directly; None if they must go into the spool.

        Raises:
            PartitionsMismatch: the log has another number of partitions than configured.
        """
        try:
            waiting = yield from self.forward_a_while()
        except SpoolError as error:
            report.broken = error
            return None
        if not self._cooldown.over() or (waiting and not self._cluster):
            return None
        return (yield from self._encoder(report))

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
            if encoder is not None and broken is None:
                behind: set[str] = yield Block(partial(self._behind, chunk))
                answer = yield from self._send_all_but(behind, encoder, chunk)
        except SpoolError as error:
            return answer._replace(spool=error)
        if answer.accepted(len(chunk)):
            return answer
        spooled: Replies = yield Block(partial(spool_unaccepted, self._spool, chunk, answer))
        return spooled

    def forward_a_while(self) -> Steps[bool]:
        """Sends what is in the spool for a moment, unless Redis failed just now; returns whether any of it is left.

        Raises:
            PartitionsMismatch: the log has another number of partitions than configured.
            SpoolError: the spool cannot be read.
        """
        waiting: bool = yield Block(self._spool.holds_any)
        if waiting and self._cooldown.over() and self._spool_cooldown.over():
            waiting = (yield from self.forward(FORWARD_SECONDS)).left > 0
        return waiting

    def holds(self, owner: str) -> Steps[bool]:
        """Whether the spool holds a change of this owner."""
        found: set[str] = yield Block(partial(self._spool.owners_among, {owner}))
        return bool(found)

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
            report, began = SendReport(), time.monotonic()
            encoder = yield from self._encoder(report)
            if encoder is None:
                return Forwarded(0, (yield Block(self._spool.__len__)), report.broken)
            drain, self._drain = self._drain, None
            if drain is None or seconds is None or drain.partitions != encoder.partitions:
                drain = SpoolDrain(self._spool, encoder.partitions, cluster=self._cluster)
            before = drain.accepted
            drain.give(seconds)
            while chunk := (yield Block(drain.take)):
                answer = yield from self._send(encoder, chunk)
                yield Block(partial(drain.record, answer))
            accepted = drain.accepted - before
            if not drain.over:
                self._drain = drain  # the next call goes on there, so that no one node's changes keep it from the rest
        if drain.whole:
            self._cooldown.begin(0.0)
        elif drain.cause is not None and (drain.over or not accepted):
            self._spool_cooldown.begin(time.monotonic() - began)
        return Forwarded(accepted, (yield Block(self._spool.__len__)), drain.cause)

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
        took = time.monotonic() - began
        if encoder is None:
            self._cooldown.begin(took)
        elif self._cluster and took > _SLOW_SECONDS:
            self._cooldown.begin(0.0)
        return encoder

    def _behind(self, chunk: Chunk) -> set[str]:
        """The owners whose changes wait behind what is spooled: all, or in a cluster those with any there."""
        owners = {change.owner for change in chunk.changes}
        if self._cluster:
            return self._spool.owners_among(owners)
        return owners if self._spool.holds_any() else set()

    def _send_all_but(self, behind: set[str], encoder: XaddEncoder, chunk: Chunk) -> Steps[Replies]:
        """Sends a chunk without the changes of these owners; the reply to each of them is BEHIND."""
        if not behind:
            return (yield from self._send(encoder, chunk))
        free = [index for index, change in enumerate(chunk.changes) if change.owner not in behind]
        replies: list[Any] = [BEHIND] * len(chunk)
        if not free:
            return Replies(replies, written=False)
        answer = yield from self._send(encoder, chunk_of([chunk.stamped(index) for index in free]))
        unanswered = NodeAwayError(str(answer.broken).rstrip("."), written=answer.written)
        for place, index in enumerate(free):
            replies[index] = answer.replies[place] if place < len(answer.replies) else unanswered
        return answer._replace(replies=replies)

    def _send(self, encoder: XaddEncoder, chunk: Chunk) -> Steps[Replies]:
        began = time.monotonic()
        answer = yield from self._exchange(encoder, chunk)
        took = time.monotonic() - began
        if answer.broken is not None:
            self._cooldown.begin(took)
        elif took > _SLOW_SECONDS and all(isinstance(reply, NodeAwayError) for reply in answer.replies):
            self._cooldown.begin(0.0)
        return answer
