"""What became of the changes of one call: accepted, refused, or perhaps accepted. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from producers.contract.errors import NotAccepted, SpoolError, SpoolFull

if TYPE_CHECKING:
    from producers.contract.change import ContactChange
    from producers.send.chunk import Chunk


class Replies(NamedTuple):
    """What came back for one chunk.

    Attributes:
        replies: per command, in order: an entry id, or the error that Redis answered instead.
        broken: what ended the exchange before all replies came, if anything did.
        written: whether any byte of the commands may have reached Redis.
        spool: why the spool did not take what Redis did not accept, where there is a spool and it did not.
    """

    replies: list[Any]
    broken: Exception | None = None
    written: bool = True
    spool: SpoolError | None = None

    @property
    def connection_suspect(self) -> bool:
        """Whether what was agreed with Redis may hold no more: it may be another one, or have other partitions.

        A log that is closed for another number of partitions is no stream any more.
        """
        return self.broken is not None or any(
            isinstance(reply, Exception) and "WRONGTYPE" in str(reply) for reply in self.replies
        )

    def of(self, index: int) -> Replies:
        """The same, as if that command had been the only one."""
        if index < len(self.replies):
            reply = self.replies[index]
            return Replies([reply], None, self.written, self.spool if isinstance(reply, Exception) else None)
        return Replies([], self.broken, self.written, self.spool)


class Forwarded(NamedTuple):
    """What became of the spool.

    Attributes:
        accepted: changes that went from the spool into the log.
        left: changes that are still spooled; where another process forwards, it has them in hand.
        cause: why some are left: what Redis, the connection or the spool said; None if nothing failed.
    """

    accepted: int
    left: int
    cause: Exception | None = None


class SendReport:
    """The account of one call, chunk by chunk.

    Attributes:
        broken: the connection's failure, once there is one: from then on nothing is sent any more, because a Redis
            that is away would be waited for once per chunk.
    """

    def __init__(self) -> None:
        self.broken: Exception | None = None
        self._ids: list[str] = []
        self._unaccepted: list[tuple[ContactChange, bool]] = []
        self._cause: Exception | None = None

    def record(self, chunk: Chunk, answer: Replies) -> None:
        """Note what came back for a chunk: with a reply it is certain, without one only if nothing was written."""
        for index, reply in enumerate(answer.replies):
            if isinstance(reply, Exception):
                self._cause = self._cause or reply
                self._unaccepted.append((chunk.stamped(index), True))
            else:
                self._ids.append(reply if isinstance(reply, str) else reply.decode())
        broken = answer.spool or answer.broken
        if broken is not None:
            self.broken = broken
            self._cause = answer.spool or self._cause or broken
            unanswered = range(len(answer.replies), len(chunk))
            self._unaccepted.extend((chunk.stamped(index), not answer.written) for index in unanswered)

    def refuse(self, chunk: Chunk) -> None:
        """Note a chunk that is not sent, because the connection was lost before, or the spool took no more."""
        self._cause = self._cause or self.broken
        self._unaccepted.extend((chunk.stamped(index), True) for index in range(len(chunk)))

    def conclude(self, interrupted: Exception | None) -> list[str]:
        """The ids of the entries, in order.

        Args:
            interrupted: what ended the iterable before its end, if anything did.

        Raises:
            NotAccepted: some changes are not in the log, or perhaps not.
            Exception: ``interrupted`` itself, where Redis accepted all that came before it.
        """
        if self._cause is not None:
            full = isinstance(self._cause, SpoolError) and self._cause.full
            raise (SpoolFull if full else NotAccepted)(
                self._unaccepted, accepted=len(self._ids), cause=self._cause, interrupted=interrupted
            ) from self._cause
        if interrupted is not None:
            raise interrupted
        return self._ids
