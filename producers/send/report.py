"""What happened to the changes of one call: accepted, refused or uncertain. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from producers.contract.errors import SpoolError
from producers.nodes.exchange import is_demoted
from producers.nodes.trip import NodeAwayError
from producers.send.errors import NotAccepted, SpoolFull

if TYPE_CHECKING:
    from producers.contract.change import ContactChange
    from producers.send.chunk import Chunk


class Replies(NamedTuple):
    """The replies to one chunk.

    Attributes:
        replies: one for each command, in order: an entry id, or the error that Redis replied with. In a cluster it is a
            `NodeAwayError` if the command's node did not answer.
        broken: the error that ended the exchange before all replies came, if there was one.
        written: whether any byte of the commands may have reached Redis.
        spool: why the spool could not take the changes that Redis did not accept, if it could not.
    """

    replies: list[Any]
    broken: Exception | None = None
    written: bool = True
    spool: SpoolError | None = None

    @property
    def connection_suspect(self) -> bool:
        """Whether the number of partitions must be agreed again: it may be another Redis, or have other partitions.

        A log that was closed for another number of partitions is no longer a stream, so Redis replies WRONGTYPE. A
        server that is no longer a primary has a successor elsewhere.
        """
        return self.broken is not None or any(
            isinstance(reply, NodeAwayError) or "WRONGTYPE" in str(reply) or is_demoted(reply)
            for reply in self.replies
            if isinstance(reply, Exception)
        )

    def accepted(self, count: int) -> bool:
        """Returns whether Redis accepted all of ``count`` changes."""
        return len(self.replies) == count and not any(isinstance(reply, Exception) for reply in self.replies)

    def entry_id(self, index: int) -> str | None:
        """Returns the id of a change's entry; None if Redis did not accept it, or may not have."""
        reply = self.replies[index] if index < len(self.replies) else None
        return reply.decode() if isinstance(reply, bytes) else reply if isinstance(reply, str) else None

    def of(self, index: int) -> Replies:
        """Returns the same for one command, as if it had been sent alone."""
        if index < len(self.replies):
            reply = self.replies[index]
            return Replies([reply], None, self.written, self.spool if isinstance(reply, Exception) else None)
        return Replies([], self.broken, self.written, self.spool)


class Forwarded(NamedTuple):
    """The result of forwarding the spool.

    Attributes:
        accepted: how many changes went from the spool into the log.
        left: how many changes are still spooled. If another process is forwarding, it handles these.
        cause: why some are left: an error from Redis, the connection or the spool; None if nothing failed.
    """

    accepted: int
    left: int
    cause: Exception | None = None


class SendReport:
    """What happened in one call, chunk by chunk.

    Attributes:
        broken: the connection's error, once there is one. From then on the call sends nothing more: it would wait for
            an unavailable Redis once per chunk.
    """

    def __init__(self) -> None:
        self.broken: Exception | None = None
        self._ids: list[str] = []
        self._unaccepted: list[tuple[ContactChange, bool]] = []
        self._cause: Exception | None = None

    def record(self, chunk: Chunk, answer: Replies) -> None:
        """Notes the replies to a chunk. A change without a reply is certainly refused only if nothing was written."""
        for index, reply in enumerate(answer.replies):
            if isinstance(reply, Exception):
                self._cause = self._cause or reply
                certain = not (isinstance(reply, NodeAwayError) and reply.written)
                self._unaccepted.append((chunk.stamped(index), certain))
            else:
                self._ids.append(reply if isinstance(reply, str) else reply.decode())
        broken = answer.spool or answer.broken
        if broken is not None:
            self.broken = broken
            self._cause = answer.spool or self._cause or broken
            unanswered = range(len(answer.replies), len(chunk))
            self._unaccepted.extend((chunk.stamped(index), not answer.written) for index in unanswered)

    def conclude(self, interrupted: Exception | None) -> list[str]:
        """Returns the ids of the entries, in order.

        Args:
            interrupted: the error that ended the iterable early, if there was one.

        Raises:
            NotAccepted: some changes are not in the log, or may not be; SpoolFull if the spool had no room for them.
            Exception: ``interrupted`` itself, if Redis accepted all changes before it.
        """
        if self._cause is not None:
            full = isinstance(self._cause, SpoolError) and self._cause.full
            raise (SpoolFull if full else NotAccepted)(
                self._unaccepted, accepted=len(self._ids), cause=self._cause, interrupted=interrupted
            ) from self._cause
        if interrupted is not None:
            raise interrupted
        return self._ids
