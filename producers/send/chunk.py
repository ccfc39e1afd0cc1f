"""Changes on their way into the log: checked, stamped, and encoded as the commands of one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis.crc import key_slot

from producers.contract.change import (
    AT_AHEAD_MS,
    ID_MAX_BYTES,
    OPS,
    ContactChange,
    check_id_characters,
    check_lane,
    partition_of,
)
from producers.contract.errors import InvalidChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from producers.contract.change import Lane
    from producers.contract.keys import Keys
    from producers.send.stamp import Stamper

CHUNK_SIZE: Final = 1000
"""Changes per round trip (contract, section 7)."""

_PART: Final = 200
"""Changes that are written at once, of a chunk that is longer: Redis need not wait for all of it to be encoded."""


class Chunk:
    """Changes, and the ``at`` with which each goes into the log, in Unix milliseconds.

    The stamps are kept beside the changes: a stamped copy of each change would cost more than all the rest of sending.

    Args:
        traceparent: the caller's trace, for changes that have none of their own.
        lane: the lane of the call, for changes that have none of their own; None is ``live``.
        id_max: most characters of an id.

    Raises:
        InvalidChange: the lane is invalid.
    """

    __slots__ = ("_latest", "changes", "id_max", "lane", "stamps", "traceparent")

    def __init__(self, traceparent: str | None = None, lane: Lane | None = None, id_max: int = ID_MAX_BYTES) -> None:
        check_lane(lane)
        self.id_max = id_max
        self.traceparent = traceparent
        self.lane = lane
        self.changes: list[ContactChange] = []
        self.stamps: list[int] = []
        self._latest = 0

    def only(self, index: int) -> Chunk:
        """Returns a chunk of one of the changes."""
        chunk = Chunk(self.traceparent, self.lane, self.id_max)
        chunk.changes, chunk.stamps = [self.changes[index]], [self.stamps[index]]
        return chunk

    def __len__(self) -> int:
        return len(self.changes)

    def __iter__(self) -> Iterator[tuple[ContactChange, int]]:
        return zip(self.changes, self.stamps, strict=True)

    def admit(self, item: ContactChange | Mapping[str, object], stamper: Stamper) -> None:
        """Checks one change and adds it, with its own ``at`` or a stamp of now.

        Raises:
            InvalidChange: the change breaks a rule of the contract, section 2; nothing was added.
        """
        change = item if isinstance(item, ContactChange) else _from_mapping(item)
        owner, contact, at = change.owner, change.contact, change.at
        if len(owner) > self.id_max or len(contact) > self.id_max:
            check_id_characters(change, self.id_max)  # which refuses it
        if at is None:
            at = stamper.stamp(owner, contact)
        elif at > self._latest:  # the clock is asked only then: of old changes, once
            self._latest = stamper.now_ms() + AT_AHEAD_MS
            if at > self._latest:
                raise InvalidChange(f"at must be at most {AT_AHEAD_MS // 60_000} minutes ahead of this machine's clock")
        self.changes.append(change)
        self.stamps.append(at)

    def stamped(self, index: int) -> ContactChange:
        """Returns the change as it was sent, with its stamp: sending it again does not make it newer."""
        change = self.changes[index]
        update: dict[str, object] = {} if change.at is not None else {"at": self.stamps[index]}
        if self.traceparent is not None and change.traceparent is None:
            update["traceparent"] = self.traceparent
        if self.lane is not None and change.lane is None:
            update["lane"] = self.lane
        return change.model_copy(update=update) if update else change


def _from_mapping(item: object) -> ContactChange:
    try:
        return ContactChange(**item)  # type: ignore[arg-type] # anything but a mapping of names is refused here
    except TypeError:
        raise InvalidChange(f"must be a ContactChange or a mapping of its fields, not {type(item).__name__}") from None


class XaddEncoder:
    """Encodes changes as XADD commands of the Redis protocol.

    Everything in a command but the values is known beforehand, so this takes three fifths of the time of hiredis, and a
    producer does not need hiredis installed. Values are length-prefixed bytes, so nothing has to be escaped.
    """

    def __init__(self, keys: Keys, partitions: int, *, lanes: bool = True) -> None:
        self.partitions: Final = partitions
        self._live = [_head(keys.events(partition).encode()) for partition in range(partitions)]
        bulk = keys.bulk if lanes else keys.events
        self._bulk = [_head(bulk(partition).encode()) for partition in range(partitions)]
        self._slots: list[int] = []

    def pack(self, chunk: Chunk) -> bytes:
        """Returns the commands that append the chunk, joined."""
        return b"".join(self.commands(chunk))

    def parts(self, chunk: Chunk) -> Iterable[bytes]:
        """Returns the same in parts, each encoded when it is asked for: Redis carries out one during the next."""
        if len(chunk) <= _PART:
            return (self.pack(chunk),)
        return (b"".join(self.commands(chunk, first, first + _PART)) for first in range(0, len(chunk), _PART))

    def commands(self, chunk: Chunk, first: int = 0, end: int | None = None) -> list[bytes]:
        """Returns the commands that append the chunk, with the fields in the order of the contract, section 2.

        Args:
            chunk: the changes.
            first: index of the first of them that is wanted.
            end: index of the first that is not; None if all after that are.
        """
        trace, lane, partitions = chunk.traceparent, chunk.lane, self.partitions
        live, bulk = self._live, self._bulk
        commands = []
        for change, at in zip(chunk.changes[first:end], chunk.stamps[first:end], strict=True):
            owner, contact, time = change.owner.encode(), change.contact.encode(), b"%d" % at
            heads = bulk if (change.lane or lane) == "bulk" else live
            words, optional = _WORDS, b""
            if trace is not None or change.source is not None or change.traceparent is not None:
                words, optional = _optional(change.source, change.traceparent or trace)
            commands.append(
                # Joined, and not formatted: this takes two thirds of the time.
                b"".join(
                    (
                        words,
                        heads[partition_of(owner, partitions)],
                        _LENGTHS[len(owner)],
                        owner,
                        _CONTACTS[len(contact)],
                        contact,
                        _OPS[change.op],
                        _LENGTHS[len(time)],
                        time,
                        b"\r\n",
                        optional,
                    )
                )
            )
        return commands

    def slots(self, chunk: Chunk) -> list[int]:
        """Returns the slot of each command in a Redis Cluster."""
        if not self._slots:
            self._slots = [key_slot(b"%d" % partition) for partition in range(self.partitions)]
        return [self._slots[partition_of(change.owner, self.partitions)] for change in chunk.changes]


_WORDS: Final = b"*11\r\n"  # XADD, key, *, and four fields with their values
_LENGTHS: Final = [b"%d\r\n" % length for length in range(ID_MAX_BYTES + 1)]
_CONTACTS: Final = [b"\r\n$7\r\ncontact\r\n$%b" % length for length in _LENGTHS]
_OPS: Final = {op: b"\r\n$2\r\nop\r\n$6\r\n%b\r\n$2\r\nat\r\n$" % op.encode() for op in OPS}


def _head(key: bytes) -> bytes:
    return b"$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$5\r\nowner\r\n$" % (len(key), key)


def _optional(source: str | None, traceparent: str | None) -> tuple[bytes, bytes]:
    words, packed = 11, b""
    for name, text in ((b"source", source), (b"traceparent", traceparent)):
        if text is not None:
            value = text.encode()
            packed += b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(value), value)
            words += 2
    return b"*%d\r\n" % words, packed
