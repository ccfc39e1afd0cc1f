"""Which changes go into the spool, and which leave it, so that the order of each pair is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import partition_of
from producers.contract.errors import SpoolError
from producers.receipt import SPOOLED
from producers.send.chunk import CHUNK_SIZE, Chunk
from producers.send.errors import others_may_go_on
from producers.send.report import Replies

if TYPE_CHECKING:
    from producers.contract.change import ContactChange
    from producers.spool.store import Spool, Spooled

BEHIND: Final = SpoolError("it waits behind older changes of its owner")
"""In place of a reply to a change that was not sent."""


class SpoolDrain:
    """Forwards the spool once, from the oldest change on.

    A refused change stays, and so do all later changes of its pair, so that none overtakes another; those of its
    partition are not even tried. Time may run out on the way: it goes on where it was when it gets more.

    Args:
        spool: the spool, claimed whenever this is used.
        partitions: how many the log has.
        cluster: whether a refusal says nothing of other partitions.

    Attributes:
        accepted: how many changes Redis accepted and the spool no longer holds.
        cause: the first error from Redis or the connection, None if there was none.
        over: whether all of the spool was tried, or nothing more is to be tried.
        whole: whether the cause concerns all partitions.
    """

    def __init__(self, spool: Spool, partitions: int, *, cluster: bool) -> None:
        self.accepted = 0
        self.cause: Exception | None = None
        self.over = False
        self.whole = False
        self.partitions: Final = partitions
        self._spool = spool
        self._cluster = cluster
        self._ends: float | None = None
        self._last = 0
        self._batch: list[Spooled] = []
        self._held: set[tuple[str, str]] = set()
        self._held_partitions: set[int] = set()

    def give(self, seconds: float | None) -> None:
        """Gives this much time to begin round trips in; None to go on until nothing is left."""
        self._ends = None if seconds is None else time.monotonic() + seconds

    def take(self) -> Chunk:
        """Returns the changes of the next round trip; an empty chunk at the end, or if the time is over.

        Raises:
            SpoolError: the spool cannot be read.
        """
        chunk = Chunk()
        while not self.over and not chunk and (self._ends is None or time.monotonic() < self._ends):
            spooled = self._spool.after(self._last, CHUNK_SIZE)
            if not spooled:
                self.over = True
                break
            self._last = spooled[-1].seq
            self._batch = [each for each in spooled if self._partition_of(each) not in self._held_partitions]
            chunk = chunk_of([each.change for each in self._batch])
        return chunk

    def record(self, answer: Replies) -> None:
        """Removes what Redis accepted.

        Raises:
            SpoolError: it could not be removed. It will be sent again, which has no effect.
        """
        accepted = []
        for index, each in enumerate(self._batch):
            reply = answer.replies[index] if index < len(answer.replies) else answer.broken
            if isinstance(reply, Exception):
                self._held.add(pair_of(each.change))
                self._held_partitions.add(self._partition_of(each))
                self.cause = self.cause or reply
                self.whole = self.whole or not others_may_go_on(reply, cluster=self._cluster)
            elif pair_of(each.change) not in self._held:
                accepted.append(each.seq)
        self.whole = self.whole or answer.broken is not None
        self.over = self.over or self.whole
        if accepted:
            self._spool.remove(accepted)
            self.accepted += len(accepted)

    def _partition_of(self, spooled: Spooled) -> int:
        return partition_of(spooled.change.owner, self.partitions)


def spool_unaccepted(spool: Spool, chunk: Chunk, answer: Replies) -> Replies:
    """Puts what Redis did not accept into the spool, and returns the replies with "spooled" for each such change.

    If nothing was sent, the whole chunk is spooled.

    An accepted change is spooled as well if an earlier change of the same pair was not accepted: it is then sent twice,
    which has no effect, and the earlier change does not arrive last.
    """
    replies: list[Any] = []
    behind, held = [], set()
    for index, change in enumerate(chunk.changes):
        reply = answer.replies[index] if index < len(answer.replies) else None
        failed = reply is None or isinstance(reply, Exception)
        if failed:
            held.add(pair_of(change))
        if pair_of(change) in held:
            behind.append(chunk.stamped(index))
        replies.append(SPOOLED if failed else reply)
    try:
        spool.append(behind)
    except SpoolError as error:
        return answer._replace(spool=_with_cause(error, answer))
    return Replies(replies)


def _with_cause(error: SpoolError, answer: Replies) -> SpoolError:
    refusals = (each for each in answer.replies if isinstance(each, Exception) and each is not BEHIND)
    cause = next(refusals, answer.broken)
    return error if cause is None else SpoolError(f"{error}; Redis: {str(cause).rstrip('.')}", full=error.full)


def chunk_of(changes: list[ContactChange]) -> Chunk:
    """Returns a chunk of changes that already have their ``at``."""
    chunk = Chunk()
    chunk.changes = changes
    chunk.stamps = [change.at or 0 for change in changes]
    return chunk


def pair_of(change: ContactChange) -> tuple[str, str]:
    """Returns the pair of a change: changes of one pair are kept in order."""
    return change.owner, change.contact
