"""A stretch of changes on its way into the log: checked, stamped, and packed as one round trip's commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from producers.contract.change import AT_AHEAD_MS, ContactChange, partition_of
from producers.contract.errors import InvalidChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from producers.contract.keys import Keys
    from producers.send.stamp import Stamper

CHUNK_SIZE: Final = 1000
"""Changes per round trip (CONTRACT section 7)."""


class Chunk:
    """Changes and, beside each, the ``at`` it goes into the log with, in Unix milliseconds.

    Args:
        traceparent: of the trace they are said in, for those that name none themselves.

    Beside and not inside: a stamped copy of each change would cost more than all the rest of sending it.
    """

    __slots__ = ("changes", "stamps", "traceparent")

    def __init__(self, traceparent: str | None = None) -> None:
        self.traceparent = traceparent
        self.changes: list[ContactChange] = []
        self.stamps: list[int] = []

    @classmethod
    def joined(cls, chunks: Sequence[Chunk]) -> Chunk:
        """One chunk of several; each change keeps its stamp, and the trace it was said in."""
        whole = cls()
        for chunk in chunks:
            whole.changes += [chunk.stamped(index) for index in range(len(chunk))]
            whole.stamps += chunk.stamps
        return whole

    def __len__(self) -> int:
        return len(self.changes)

    def __iter__(self) -> Iterator[tuple[ContactChange, int]]:
        return zip(self.changes, self.stamps, strict=True)

    def admit(self, item: ContactChange | Mapping[str, object], stamper: Stamper) -> None:
        """Check one change and add it, with the caller's ``at`` or a stamp of now.

        Raises:
            InvalidChange: it breaks a rule of CONTRACT section 2; nothing was added.
        """
        change = item if isinstance(item, ContactChange) else _from_mapping(item)
        at = change.at
        if at is None:
            at = stamper.stamp(change.owner, change.contact)
        elif at > stamper.now_ms() + AT_AHEAD_MS:
            raise InvalidChange(f"at must be at most {AT_AHEAD_MS // 60_000} minutes ahead of this machine's clock")
        self.changes.append(change)
        self.stamps.append(at)

    def stamped(self, index: int) -> ContactChange:
        """The change as it went out: sent again, it is no newer."""
        change = self.changes[index]
        update: dict[str, object] = {} if change.at is not None else {"at": self.stamps[index]}
        if self.traceparent is not None and change.traceparent is None:
            update["traceparent"] = self.traceparent
        return change.model_copy(update=update) if update else change


def _from_mapping(item: object) -> ContactChange:
    try:
        return ContactChange(**item)  # type: ignore[arg-type] # what is no mapping of names is refused right here
    except TypeError:
        raise InvalidChange(f"must be a ContactChange or a mapping of its fields, not {type(item).__name__}") from None


class XaddEncoder:
    """Packs changes as XADD commands of the Redis protocol.

    By hand, since all of a command but the values is known beforehand: three fifths of the time that hiredis takes for
    it, which a producer need not have. Values are length-prefixed bytes, so there is nothing to escape.
    """

    def __init__(self, keys: Keys, partitions: int) -> None:
        self.partitions: Final = partitions
        self._heads = [_head(keys.events(partition).encode()) for partition in range(partitions)]

    def pack(self, chunk: Chunk) -> bytes:
        """The commands that append the chunk, fields in the order CONTRACT section 2 lists them."""
        said_in = chunk.traceparent
        return b"".join([self._command(change, at, said_in) for change, at in chunk])

    def _command(self, change: ContactChange, at: int, said_in: str | None) -> bytes:
        owner, contact, time = change.owner.encode(), change.contact.encode(), b"%d" % at
        words, optional = _WORDS, b""
        if change.source is not None or change.traceparent is not None or said_in is not None:
            words, optional = _optional(change.source, change.traceparent or said_in)
        return b"*%d\r\n%b$%d\r\n%b\r\n$7\r\ncontact\r\n$%d\r\n%b\r\n%b$%d\r\n%b\r\n%b" % (
            words,
            self._heads[partition_of(owner, self.partitions)],
            len(owner),
            owner,
            len(contact),
            contact,
            _OPS[change.op],
            len(time),
            time,
            optional,
        )


_WORDS: Final = 11  # XADD, key, *, and four fields with their values
_OPS: Final = {op: b"$2\r\nop\r\n$6\r\n%b\r\n$2\r\nat\r\n" % op.encode() for op in ("upsert", "delete")}


def _head(key: bytes) -> bytes:
    return b"$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$5\r\nowner\r\n" % (len(key), key)


def _optional(source: str | None, traceparent: str | None) -> tuple[int, bytes]:
    words, packed = _WORDS, b""
    for name, text in ((b"source", source), (b"traceparent", traceparent)):
        if text is not None:
            value = text.encode()
            packed += b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(value), value)
            words += 2
    return words, packed
