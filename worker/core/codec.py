"""Encodes pair states, ledger entries and late marks for Redis, and decodes them.

Pure. The forms are short text: an outage stores one of them per pair, and a person with redis-cli can read them.

    pending    d1795460847757,-3;u1795460847760,0      one part for each side: op, time of the oldest entry, then if
                                                       needed `at` and entry time relative to it, source, suspect
    ledger     u1795460847757,1795460847761            op confirmed last, greatest `at` of deletes and of upserts
    parked     1795460907757;u1795460847760,0          when it is tried next, b if all of it came through the bulk lane,
                                                       and the state
    late       1795460891000,0                         until when an upsert and a delete may still act
    dead:pairs 2;u1795460847757,                       number of letters, and the ledger's form of what is known
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from producers.contract.errors import ContactSyncError
from worker.core.pair import PairState, Refused, Remembered, Side

if TYPE_CHECKING:
    from producers.contract.change import Op

_PART: Final = b"\x1f"  # no source holds a control character
_OPS: Final[dict[bytes, Op]] = {b"d": "delete", b"u": "upsert"}


class Unreadable(ContactSyncError, ValueError):  # noqa: N818 - a name that says what happened needs no suffix
    """What is stored in Redis is not what this project writes there; the line says what, and repeats nothing of it.

    Attributes:
        partition: in which it is, None if that is not known.
    """

    def __init__(self, what: str, partition: int | None = None) -> None:
        super().__init__(f"{what} cannot be read: something else wrote it in Redis; remove it there (HDEL)")
        self._what = what
        self.partition = partition

    def within(self, partition: int) -> Unreadable:
        """The same, with the partition in which it is."""
        return Unreadable(self._what.replace("{P}", f"{{{partition}}}"), partition)


class Mark(NamedTuple):
    """Until when (Unix ms) unanswered requests may still upsert or delete a pair; 0 if none may."""

    upsert_until_ms: int
    delete_until_ms: int

    @property
    def until_ms(self) -> int:
        """When none of them can act any more."""
        return max(self.upsert_until_ms, self.delete_until_ms)

    def differs_from(self, op: Op) -> bool:
        """Whether one of them may have left the pair with another outcome than this op."""
        return bool(self.delete_until_ms if op == "upsert" else self.upsert_until_ms)


class DeadPair(NamedTuple):
    """A pair with dead letters: their number, and what was confirmed of it even if the ledger has forgotten it."""

    letters: int
    confirmed: Remembered | None


def _encode_side(letter: bytes, side: Side) -> bytes:
    first, at, entry_ms, source = side
    parts = [
        b"%b%d" % (letter, first),
        b"%d" % (at - first) if at else b"",
        b"%d" % (entry_ms - first) if entry_ms else b"",
        source,
    ]
    return b",".join(parts).rstrip(b",") if not source else b",".join(parts)


def encode_state(state: PairState) -> bytes:
    """Encodes a pair's state for `pending`."""
    delete, upsert, suspect, refused = state
    if delete is None and not suspect and refused is None and upsert is not None:
        return _encode_side(b"u", upsert)
    parts = [_encode_side(b"d", delete)] if delete is not None else []
    if upsert is not None:
        parts.append(_encode_side(b"u", upsert))
    if suspect:
        parts.append(b"?%d" % suspect)
    if refused is not None:
        since_ms, tries, code, field = refused
        parts.append(b"!%d,%d,%b,%b" % (since_ms, tries, code.encode(), field.encode()))
    return _PART.join(parts)


def _decode_side(part: bytes) -> Side:
    head, *more = part[1:].split(b",", 3)
    first = int(head)
    at = first + int(more[0]) if more and more[0] else 0
    entry_ms = first + int(more[1]) if len(more) > 1 and more[1] else 0
    return Side(first, at, entry_ms, more[2] if len(more) > 2 else b"")


def decode_state(value: bytes) -> PairState:
    """Decodes what `encode_state` wrote.

    Raises:
        Unreadable: it is something else.
    """
    delete = upsert = None
    suspect, refused = 0, None
    try:
        for part in value.split(_PART):
            if part[:1] == b"d":
                delete = _decode_side(part)
            elif part[:1] == b"u":
                upsert = _decode_side(part)
            elif part[:1] == b"?":
                suspect = int(part[1:])
            else:
                since_ms, tries, code, name = part[1:].split(b",")
                refused = Refused(int(since_ms), int(tries), code.decode(), name.decode())
    except ValueError:
        raise Unreadable("a value in NAMESPACE:{P}:pending, or in a key that begins so,") from None
    return PairState(delete, upsert, suspect, refused)


class Parked(NamedTuple):
    """A pair whose record was refused with an unknown code.

    Attributes:
        due_ms: when it is tried next (Unix ms).
        state: its joined changes, and how it was refused.
        bulk: whether all of them came through the bulk lane.
    """

    due_ms: int
    state: PairState
    bulk: bool = False


def encode_parked(parked: Parked) -> bytes:
    """Encodes a parked pair."""
    return b"%d%b;%b" % (parked.due_ms, b"b" if parked.bulk else b"", encode_state(parked.state))


def decode_parked(value: bytes) -> Parked:
    """Decodes what `encode_parked` wrote.

    Raises:
        Unreadable: it is something else.
    """
    head, _, state = value.partition(b";")
    try:
        return Parked(int(head.removesuffix(b"b")), decode_state(state), head.endswith(b"b"))
    except ValueError:
        raise Unreadable("a value in NAMESPACE:{P}:parked") from None


def encode_remembered(confirmed: Remembered) -> bytes:
    """Encodes a ledger entry."""
    op, delete_at, upsert_at = confirmed
    letter = b"d" if op == "delete" else b"u"
    return b"%b%b,%b" % (letter, b"%d" % delete_at if delete_at else b"", b"%d" % upsert_at if upsert_at else b"")


def decode_remembered(value: bytes) -> Remembered:
    """Decodes what `encode_remembered` wrote.

    Raises:
        Unreadable: it is something else.
    """
    delete_at, _, upsert_at = value[1:].partition(b",")
    try:
        return Remembered(_OPS[value[:1]], int(delete_at or 0), int(upsert_at or 0))
    except (KeyError, ValueError):
        raise Unreadable("a value in NAMESPACE:{P}:ledger:new or NAMESPACE:{P}:ledger:old") from None


def decode_mark(value: bytes) -> Mark:
    """Decodes a late mark, which `mark_late.lua` wrote.

    Raises:
        Unreadable: it is something else.
    """
    upsert_until, _, delete_until = value.partition(b",")
    try:
        return Mark(int(upsert_until), int(delete_until))
    except ValueError:
        raise Unreadable("a value in NAMESPACE:{P}:late") from None


def decode_dead_pair(value: bytes) -> DeadPair:
    """Decodes what is kept of a pair with dead letters, which `settle.lua` wrote.

    Raises:
        Unreadable: it is something else.
    """
    letters, _, confirmed = value.partition(b";")
    try:
        return DeadPair(int(letters), decode_remembered(confirmed) if confirmed else None)
    except ValueError:
        raise Unreadable("a value in NAMESPACE:{P}:dead:pairs") from None
