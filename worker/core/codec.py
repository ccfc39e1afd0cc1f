"""How pair states, ledger entries and late marks are written in Redis, and read back.

Pure. The forms are short text: an outage keeps one of them per pair, and a person with redis-cli can read them.

    pending    d1795460847757,-3;u1795460847760,0      one part a side: op, time of the oldest entry, then as far as
                                                       needed: `at` and entry time relative to it, source, suspect
    ledger     u1795460847757,1795460847761            op confirmed last, greatest `at` of deletes, of upserts
    late       1795460891000,0                         until when an upsert, a delete may still act
    dead:pairs 2;u1795460847757,                       number of letters, and the ledger's form of what is known
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from worker.core.pair import PairState, Remembered, Side

if TYPE_CHECKING:
    from producers.contract.change import Op

_PART: Final = b"\x1f"  # no source holds a control character
_OPS: Final[dict[bytes, Op]] = {b"d": "delete", b"u": "upsert"}


class Mark(NamedTuple):
    """Until when (Unix ms) unanswered requests may still upsert or delete a pair; 0 where none may."""

    upsert_until_ms: int
    delete_until_ms: int

    @property
    def until_ms(self) -> int:
        """When the last of them can act no more."""
        return max(self.upsert_until_ms, self.delete_until_ms)

    def differs_from(self, op: Op) -> bool:
        """Whether one of them may have brought the pair to another end than this op."""
        return bool(self.delete_until_ms if op == "upsert" else self.upsert_until_ms)


class DeadPair(NamedTuple):
    """A pair with dead letters: how many, and what is known of it whatever the ledger forgets."""

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
    """A pair's state as `pending` keeps it."""
    delete, upsert, suspect = state
    if delete is None and not suspect and upsert is not None:
        return _encode_side(b"u", upsert)
    parts = [_encode_side(b"d", delete)] if delete is not None else []
    if upsert is not None:
        parts.append(_encode_side(b"u", upsert))
    if suspect:
        parts.append(b"?%d" % suspect)
    return _PART.join(parts)


def _decode_side(part: bytes) -> Side:
    head, *more = part[1:].split(b",", 3)
    first = int(head)
    at = first + int(more[0]) if more and more[0] else 0
    entry_ms = first + int(more[1]) if len(more) > 1 and more[1] else 0
    return Side(first, at, entry_ms, more[2] if len(more) > 2 else b"")


def decode_state(value: bytes) -> PairState:
    """The state that `encode_state` wrote."""
    delete = upsert = None
    suspect = 0
    for part in value.split(_PART):
        if part[:1] == b"d":
            delete = _decode_side(part)
        elif part[:1] == b"u":
            upsert = _decode_side(part)
        else:
            suspect = int(part[1:])
    return PairState(delete, upsert, suspect)


def encode_remembered(confirmed: Remembered) -> bytes:
    """A ledger entry."""
    op, delete_at, upsert_at = confirmed
    letter = b"d" if op == "delete" else b"u"
    return b"%b%b,%b" % (letter, b"%d" % delete_at if delete_at else b"", b"%d" % upsert_at if upsert_at else b"")


def decode_remembered(value: bytes) -> Remembered:
    """The ledger entry that `encode_remembered` wrote."""
    delete_at, _, upsert_at = value[1:].partition(b",")
    return Remembered(_OPS[value[:1]], int(delete_at or 0), int(upsert_at or 0))


def decode_mark(value: bytes) -> Mark:
    """A late mark, as `mark_late.lua` wrote it."""
    upsert_until, _, delete_until = value.partition(b",")
    return Mark(int(upsert_until), int(delete_until))


def decode_dead_pair(value: bytes) -> DeadPair:
    """What is kept of a pair with dead letters, as `settle.lua` wrote it."""
    letters, _, confirmed = value.partition(b";")
    return DeadPair(int(letters), decode_remembered(confirmed) if confirmed else None)
