"""One entry of the log, read: a change, or the reason why it is none.

Pure. The rules are CONTRACT section 2's. Entries come as redis-py's raw replies (field and value in turn), because
at a hundred thousand entries a second a dict and a model for each would cost more than all the rest.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from producers.contract.change import AT_AHEAD_MS, AT_MIN_MS, SOURCE_MAX_BYTES, Op, id_fault, partition_of
from producers.contract.keys import PAIR_SEPARATOR

_OPS: Final[dict[bytes, Op]] = {b"upsert": "upsert", b"delete": "delete"}
_AT_DIGITS: Final = 20  # more digits than any time has; spares turning a megabyte of digits into a number
_PLAIN_ID: Final = re.compile(rb"[0-9A-Za-z_.:@+=/-]{1,256}")
_KNOWN: Final[tuple[bytes, ...]] = (b"owner", b"contact", b"op", b"at", b"source")


class Change(NamedTuple):
    """An entry that keeps the rules; `at` is 0 where it carries none."""

    pair: bytes
    op: Op
    at: int
    entry_ms: int
    source: bytes


class Malformed(NamedTuple):
    """An entry that breaks a rule, with what of it was readable."""

    entry_id: bytes
    reason: str
    fields: dict[bytes, bytes]


def entry_time_ms(entry_id: bytes) -> int:
    """The time Redis gave an entry: the first part of its id, 1 at least, because 0 stands for none."""
    return max(1, int(entry_id.partition(b"-")[0]))


def pair_of(owner: bytes, contact: bytes) -> bytes:
    """The hash field of a pair."""
    return owner + PAIR_SEPARATOR + contact


def split_pair(pair: bytes) -> tuple[bytes, bytes]:
    """Owner and contact of a pair's hash field."""
    owner, _, contact = pair.partition(PAIR_SEPARATOR)
    return owner, contact


def is_ordinary_id(raw: bytes) -> bool:
    """Whether these bytes are certainly an id; what is no plain one may be one all the same."""
    return _PLAIN_ID.fullmatch(raw) is not None


def _at_fault(at: bytes, entry_ms: int) -> str | None:
    if not at.isdigit():  # bytes.isdigit knows ASCII digits only, as the rule does
        return "bad_at"
    if len(at) > _AT_DIGITS or not AT_MIN_MS <= int(at) <= entry_ms + AT_AHEAD_MS:
        return "at_out_of_range"
    return None


def _id_faults(fields: dict[bytes, bytes]) -> str | None:
    for name in (b"owner", b"contact"):
        if name not in fields:
            return f"missing_{name.decode()}"
        if id_fault(fields[name]) is not None:
            return f"bad_{name.decode()}"
    return None


def _source(raw: bytes) -> bytes:
    """The source where it fits, else nothing: one that does not fit is ignored."""
    return raw if len(raw) <= SOURCE_MAX_BYTES and id_fault(raw) is None else b""


def _read_slowly(entry_id: bytes, flat: list[bytes], partition: int, partitions: int) -> Change | Malformed:
    """Any entry whatsoever, with the first rule it breaks."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    readable = {name: fields[name] for name in _KNOWN if name in fields}
    entry_ms = entry_time_ms(entry_id)
    reason = _id_faults(fields)
    if reason == "missing_owner" and b"data" in fields:  # it came by the inbox, and is no JSON object
        reason = "bad_data"
    if reason is None and b"op" not in fields:
        reason = "missing_op"
    if reason is None and fields[b"op"] not in _OPS:
        reason = "bad_op"
    if reason is None and b"at" in fields:
        reason = _at_fault(fields[b"at"], entry_ms)
    if reason is None and partition_of(fields[b"owner"], partitions) != partition:
        reason = "wrong_partition"
    if reason is None:
        # A field that stands twice says two things; taking either would be a guess.
        twice = next((name for name in _KNOWN[:4] if flat[::2].count(name) > 1), None)
        reason = f"repeated_{twice.decode()}" if twice else None
    if reason is not None:
        return Malformed(entry_id, reason, readable)
    pair = pair_of(fields[b"owner"], fields[b"contact"])
    at = int(fields.get(b"at", b"0"))
    return Change(pair, _OPS[fields[b"op"]], at, entry_ms, _source(fields.get(b"source", b"")))


def read_entry(entry_id: bytes, flat: list[bytes], partition: int, partitions: int) -> Change | Malformed:
    """The change that an entry of this partition states, or what is wrong with it.

    Args:
        entry_id: the entry's id, as Redis gave it.
        flat: its fields and values in turn.
        partition: the partition whose log holds it.
        partitions: how many there are.
    """
    # Producers write owner, contact, op, at in this order, and most ids are letters and digits: that needs no dict.
    if len(flat) == 8 and flat[0] == b"owner" and flat[2] == b"contact" and flat[4] == b"op" and flat[6] == b"at":
        owner, contact, op, at = flat[1], flat[3], _OPS.get(flat[5]), flat[7]
        entry_ms = int(entry_id[: entry_id.index(b"-")])
        plain = owner.isalnum() and contact.isalnum() and len(owner) <= 256 and len(contact) <= 256
        if plain and op is not None and at.isdigit() and len(at) <= _AT_DIGITS:
            stamp = int(at)
            fits = AT_MIN_MS <= stamp <= entry_ms + AT_AHEAD_MS
            if fits and partition_of(owner, partitions) == partition:
                return Change(owner + PAIR_SEPARATOR + contact, op, stamp, entry_ms, b"")
    return _read_slowly(entry_id, flat, partition, partitions)
