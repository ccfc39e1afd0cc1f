"""Compares an entry that a producer wrote with each rule of section 2 of the contract, and a message with a mapping.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from producers.contract.change import (
    AT_AHEAD_MS,
    AT_MIN_MS,
    ID_MAX_BYTES,
    OPS,
    SOURCE_MAX_BYTES,
    characters_fit,
    id_fault,
    limit_rule,
    partition_of,
    traceparent_fits,
)
from worker.core.entry import Malformed, entry_time_ms, read_entry
from worker.core.row_change import Misfit, RowChange, read_row_changes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producers.contract.change import Lane
    from worker.core.inbox_map import InboxMap

RULES: Final[Mapping[str, str]] = {
    "owner": "owner is 1 to 256 bytes of UTF-8 without control characters",
    "contact": "contact is 1 to 256 bytes of UTF-8 without control characters",
    "op": "op is upsert or delete",
    "at": "at, if present, is Unix milliseconds, at most 5 minutes ahead of the entry",
    "partition": "the entry is in its owner's partition: CRC-32 of the owner, modulo the number of partitions",
    "once": "no field appears twice",
}
"""An entry that breaks one becomes a dead letter."""

ADVICE: Final[Mapping[str, str]] = {
    "stamped": "at is present, so that the order of arrival does not matter",
    "source": "source has at most 64 bytes; a longer one is ignored",
    "traceparent": "traceparent is W3C trace context; anything else is ignored",
    "known": "every field is in the contract; others are ignored",
}
"""An entry that does not follow one is still delivered."""

_FIELDS: Final = (b"owner", b"contact", b"op", b"at", b"source", b"traceparent")


def faults(  # noqa: PLR0913, PLR0917 - an entry, and what its rules depend on
    entry_id: bytes,
    flat: Sequence[bytes],
    partition: int,
    partitions: int,
    lane: Lane = "live",
    id_max: int = ID_MAX_BYTES,
) -> dict[str, str]:
    """Returns the rules and advice that an entry does not follow, each with what is wrong, without ids.

    Args:
        entry_id: the entry's id.
        flat: its fields and values, alternating.
        partition: the partition that it is in.
        partitions: the number of partitions.
        lane: the lane of its log; the bulk lane needs `at`.
        id_max: most characters of an id.
    """
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    found = {}
    for name in ("owner", "contact"):
        raw = fields.get(name.encode())
        fault: str | None = "missing" if raw is None else id_fault(raw)
        if raw is not None and fault is None and not characters_fit(raw, id_max):
            fault = f"more than {id_max} characters (CONTACT_SYNC_ID_MAX_CHARACTERS)"
        if fault:
            found[name] = fault
    if fields.get(b"op", b"").decode("utf-8", "replace") not in OPS:
        found["op"] = "another value" if b"op" in fields else "missing"
    if at := _at_fault(fields.get(b"at"), entry_time_ms(entry_id)):
        found["at"] = at
    if lane == "bulk" and b"at" not in fields:
        found["at"] = "missing, and the bulk lane needs it"
    home = partition_of(fields.get(b"owner", b""), partitions)
    if b"owner" in fields and home != partition:
        # The inbox puts what breaks another rule into any partition, so that a mistake does not fill one with letters.
        beside = ", unless it came through the inbox" if found else ""
        found["partition"] = f"in {partition}, its owner belongs in {home}{beside}"
    twice = [name.decode() for name in _FIELDS[:4] if flat[::2].count(name) > 1]
    if twice:
        found["once"] = ", ".join(twice)
    reads = read_entry(entry_id, list(flat), partition, partitions, lane, id_max)
    if isinstance(reads, Malformed) and not found:
        found["once"] = reads.reason  # the reader decides
    return found | _advice_not_followed(fields)


def _at_fault(at: bytes | None, entry_ms: int) -> str | None:
    if at is None:
        return None
    if not at.isdigit():
        return "other characters than digits"
    if len(at) > 20 or int(at) > entry_ms + AT_AHEAD_MS:
        return "too far ahead"
    return "not milliseconds; perhaps seconds" if int(at) < AT_MIN_MS else None


def _advice_not_followed(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    found = {}
    if b"at" not in fields:
        found["stamped"] = "missing"
    source = fields.get(b"source", b"-")
    if source and (len(source) > SOURCE_MAX_BYTES or id_fault(source)):
        found["source"] = "ignored"
    trace = fields.get(b"traceparent")
    if trace is not None and not traceparent_fits(trace.decode("utf-8", "replace")):
        found["traceparent"] = "ignored"
    others = sorted(name.decode("utf-8", "replace")[:40] for name in fields if name not in _FIELDS)
    if others:
        found["known"] = "ignored: " + ", ".join(others)
    return found


class Tried(NamedTuple):
    """What a message becomes by a mapping.

    Attributes:
        changes: the changes that it says.
        why_none: why it says none although it fits, empty if it says some.
        field: the field of the mapping, or of the change, that it does not fit; None if it fits.
        rule: what is wrong with it, in words that follow the field.
    """

    changes: tuple[RowChange, ...] = ()
    why_none: str = ""
    field: str | None = None
    rule: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The form in JSON."""
        return {
            "changes": [each._asdict() for each in self.changes],
            "why_none": self.why_none or None,
            "field": self.field,
            "rule": self.rule,
        }


def try_message(line: bytes, now_ms: int, by: InboxMap, id_max: int = ID_MAX_BYTES) -> Tried:
    """Returns what a message becomes if it is appended to the inbox now.

    Args:
        line: what the entry's field holds; the fields of the entry as a JSON object if the message is its fields.
        now_ms: the present (Unix ms).
        by: the mapping.
        id_max: most characters of an id.
    """
    raw = line.strip()
    flat = [b"key", raw]
    if by.place == "field":
        flat = [by.field.encode(), raw]
    elif by.place == "fields":
        fields = _fields(raw)
        if fields is None:
            return Tried(field="message", rule="is not a JSON object with the fields of an entry")
        flat = fields
    said = read_row_changes(flat, now_ms, by)
    if isinstance(said, Misfit):
        return Tried(field=said.field, rule=said.rule)
    for each in said.changes:
        for name in ("owner", "contact"):
            if not characters_fit(getattr(each, name).encode(), id_max):
                return Tried(field=name, rule=limit_rule(id_max))
    return Tried(said.changes, said.why_none)


def _fields(raw: bytes) -> list[bytes] | None:
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    texts = (part if isinstance(part, str) else orjson.dumps(part).decode() for pair in fields.items() for part in pair)
    return [text.encode() for text in texts]
