"""Reads an entry of the log: a change, or the rule that it breaks (contract, section 2).

Pure. Entries come as Redis' raw replies (field and value in turn): at a hundred thousand entries a second, a dict and a
model for each would cost more than everything else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from producers.contract.change import (
    AT_AHEAD_MS,
    AT_MIN_MS,
    ID_MAX_BYTES,
    SOURCE_MAX_BYTES,
    Op,
    characters_fit,
    id_fault,
    partition_of,
)
from producers.contract.keys import PAIR_SEPARATOR

if TYPE_CHECKING:
    from producers.contract.change import Lane
    from worker.core.reasons import Reason

_OPS: Final[dict[bytes, Op]] = {b"upsert": "upsert", b"delete": "delete"}
_AT_DIGITS: Final = 20  # more than any time has; so a megabyte of digits is never turned into a number
_ORDINARY_ID: Final = re.compile(rb"[0-9A-Za-z_.:@+=/-]{1,256}")
_IDS: Final[tuple[tuple[bytes, Reason, Reason], ...]] = (
    (b"owner", "missing_owner", "bad_owner"),
    (b"contact", "missing_contact", "bad_contact"),
)
_REPEATED: Final[dict[bytes, Reason]] = {
    b"owner": "repeated_owner",
    b"contact": "repeated_contact",
    b"op": "repeated_op",
    b"at": "repeated_at",
}
UNMAPPED: Final = b"unmapped"
"""The field of an entry that holds a message of the inbox which does not fit the mapping, and why."""

_KNOWN: Final[tuple[bytes, ...]] = (b"owner", b"contact", b"op", b"at", b"source", UNMAPPED)


class Change(NamedTuple):
    """An entry that keeps the rules; `at` is 0 if it carries none."""

    pair: bytes
    op: Op
    at: int
    entry_ms: int
    source: bytes


class Malformed(NamedTuple):
    """An entry that breaks a rule, with its known fields as they came."""

    entry_id: bytes
    reason: Reason
    fields: dict[bytes, bytes]
    lane: Lane = "live"


def entry_time_ms(entry_id: bytes) -> int:
    """The time that Redis gave an entry (Unix ms): the first part of its id, but at least 1, because 0 means none."""
    return max(1, int(entry_id.partition(b"-")[0]))


def pair_of(owner: bytes, contact: bytes) -> bytes:
    """The hash field of a pair."""
    return owner + PAIR_SEPARATOR + contact


def split_pair(pair: bytes) -> tuple[bytes, bytes]:
    """Owner and contact of a pair's hash field."""
    owner, _, contact = pair.partition(PAIR_SEPARATOR)
    return owner, contact


def is_id(raw: bytes, most: int = ID_MAX_BYTES) -> bool:
    """Returns whether these bytes are a valid id of at most `most` characters.

    Nearly all are ASCII, which is checked first because it is fast.
    """
    if _ORDINARY_ID.fullmatch(raw) is None and id_fault(raw) is not None:
        return False
    return characters_fit(raw, most)


def fields_of(flat: list[bytes]) -> tuple[bytes, bytes, bytes, bytes | None, bytes]:
    """Returns owner, contact, op, `at` (None if there is none) and source of an entry, in any order of its fields.

    A missing owner, contact or op is empty. All of them are empty if a field appears twice, which no rule allows.
    """
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    if 2 * len(fields) != len(flat):
        return b"", b"", b"", None, b""
    source = fields.get(b"source", b"")
    owner, contact, op = fields.get(b"owner", b""), fields.get(b"contact", b""), fields.get(b"op", b"")
    return owner, contact, op, fields.get(b"at"), _source(source) if source else b""


def _at_fault(at: bytes, entry_ms: int) -> Reason | None:
    if not at.isdigit():  # bytes.isdigit knows ASCII digits only, as the rule does
        return "bad_at"
    if len(at) > _AT_DIGITS or not AT_MIN_MS <= int(at) <= entry_ms + AT_AHEAD_MS:
        return "at_out_of_range"
    return None


def _id_faults(fields: dict[bytes, bytes]) -> Reason | None:
    for name, missing, bad in _IDS:
        if name not in fields:
            return missing
        if id_fault(fields[name]) is not None:
            return bad
    return None


def _source(raw: bytes) -> bytes:
    """The source, or nothing if it is invalid: an invalid source is ignored."""
    return raw if len(raw) <= SOURCE_MAX_BYTES and is_id(raw) else b""


def _without_owner(fields: dict[bytes, bytes]) -> Reason:
    """What is wrong with an entry without an owner: it may have come through the inbox as something else."""
    if UNMAPPED in fields:
        return "unmapped"
    return "bad_data" if b"data" in fields else "missing_owner"  # not a JSON object, or nothing at all


def _read_slowly(  # noqa: PLR0913, PLR0917 - an entry, and what its rules depend on
    entry_id: bytes, flat: list[bytes], partition: int, partitions: int, lane: Lane, id_max: int
) -> Change | Malformed:
    """Reads any entry; finds the first rule that it breaks."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    readable = {name: fields[name] for name in _KNOWN if name in fields}
    entry_ms = entry_time_ms(entry_id)
    reason = _id_faults(fields)
    if reason == "missing_owner":
        reason = _without_owner(fields)
    if reason is None and b"op" not in fields:
        reason = "missing_op"
    if reason is None and fields[b"op"] not in _OPS:
        reason = "bad_op"
    if reason is None and lane == "bulk" and b"at" not in fields:
        reason = "missing_at"
    if reason is None and b"at" in fields:
        reason = _at_fault(fields[b"at"], entry_ms)
    if reason is None and partition_of(fields[b"owner"], partitions) != partition:
        reason = "wrong_partition"
    if reason is None:
        # A repeated field has two values; to take either would be a guess.
        reason = next((repeated for name, repeated in _REPEATED.items() if flat[::2].count(name) > 1), None)
    if reason is None and not all(characters_fit(fields[name], id_max) for name in (b"owner", b"contact")):
        reason = "id_too_long"  # the last of all rules: it alone leaves a change that can be redriven
    if reason is not None:
        return Malformed(entry_id, reason, readable, lane)
    pair = pair_of(fields[b"owner"], fields[b"contact"])
    at = int(fields.get(b"at", b"0"))
    return Change(pair, _OPS[fields[b"op"]], at, entry_ms, _source(fields.get(b"source", b"")))


def read_entry(  # noqa: PLR0913, PLR0917 - an entry, and what its rules depend on
    entry_id: bytes,
    flat: list[bytes],
    partition: int,
    partitions: int,
    lane: Lane = "live",
    id_max: int = ID_MAX_BYTES,
) -> Change | Malformed:
    """Returns the change in an entry of this partition, or what is wrong with it.

    Args:
        entry_id: the entry's id, as Redis gave it.
        flat: its fields and values in turn.
        partition: the partition whose log holds it.
        partitions: number of partitions.
        lane: the lane of that log; the bulk lane's changes must carry `at`.
        id_max: most characters of an id.
    """
    # Producers write owner, contact, op, at in this order, and most ids are letters and digits: those need no dict.
    if len(flat) == 8 and flat[0] == b"owner" and flat[2] == b"contact" and flat[4] == b"op" and flat[6] == b"at":
        owner, contact, op, at = flat[1], flat[3], _OPS.get(flat[5]), flat[7]
        entry_ms = int(entry_id[: entry_id.index(b"-")])
        simple = owner.isalnum() and contact.isalnum() and len(owner) <= id_max and len(contact) <= id_max
        if simple and op is not None and at.isdigit() and len(at) <= _AT_DIGITS:
            stamp = int(at)
            fits = AT_MIN_MS <= stamp <= entry_ms + AT_AHEAD_MS
            if fits and partition_of(owner, partitions) == partition:
                return Change(owner + PAIR_SEPARATOR + contact, op, stamp, entry_ms, b"")
    return _read_slowly(entry_id, flat, partition, partitions, lane, id_max)
