"""Reads the changes in a message of change data capture, by the mapping of the inbox (pure).

A message is one entry of the inbox. It says one change; two if the key of the row changed: a delete of the old pair and
an upsert of the new one; or none. All of it is read or nothing, and its time is its own: so however often and in
whatever order messages come, their pairs end the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from producers.contract.change import AT_AHEAD_MS, AT_MIN_MS, IdFault, Op, id_fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.core.inbox_map import InboxMap, Unit

_DATA: Final = b"data"  # a change in JSON as our own producers may write it
_OWNER: Final = b"owner"
_DIGITS: Final = 20  # more than any time has
_AT_TOLD: Final = 2**63
"""A time from here on is not told: JSON that others read has no such number, and no dead letter could hold it."""
_SHOWN: Final = 20
_NOTHING: Final = frozenset({"0", "null"})

_ID_FAULTS: Final[Mapping[IdFault, str]] = {
    "empty": "is empty",
    "too_long": "has more than 256 bytes",
    "not_utf8": "is not UTF-8",
    "control_character": "has a control character",
}
_IN_MS: Final[Mapping[Unit, tuple[int, int]]] = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
"""By what a time is multiplied, and then divided, to have milliseconds."""


class RowChange(NamedTuple):
    """One change that a message says; `at` in Unix milliseconds."""

    owner: str
    contact: str
    op: Op
    at: int

    def entry(self) -> list[bytes]:
        """The fields and values of its entry in the log."""
        at = b"%d" % self.at
        return [b"owner", self.owner.encode(), b"contact", self.contact.encode(), b"op", self.op.encode(), b"at", at]


class RowChanges(NamedTuple):
    """What a message says: one change or two; none for a tombstone, or for an op that the mapping ignores.

    Attributes:
        changes: in the order in which they happened.
        why_none: why there are none, empty if there are.
    """

    changes: tuple[RowChange, ...]
    why_none: str = ""


class Misfit(NamedTuple):
    """A message that does not fit the mapping.

    Attributes:
        field: the field of the mapping that it does not fit.
        rule: what is wrong, in words that follow the field.
        owner, contact, op, at: of the change, each as far as it was readable.
    """

    field: str
    rule: str
    owner: str | None = None
    contact: str | None = None
    op: str | None = None
    at: int | None = None


class _Unfit(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, field: str, rule: str) -> None:
        super().__init__()
        self.field, self.rule = field, rule


class _Missing:
    """In the place of a value that is not there; null is a value."""


_MISSING: Final = _Missing()


def is_mapped(flat: Sequence[bytes], by: InboxMap) -> bool:
    """Whether an entry of the inbox is a message for the mapping, and not a change as our own producers write it.

    Args:
        flat: the entry's fields and values in turn.
        by: the mapping.
    """
    names = flat[::2]
    if by.place == "field" and by.field.encode() in names:
        return True
    if by.place == "fields" or len(names) == 1:
        return names != [_DATA]
    return _OWNER not in names


def read_row_changes(flat: Sequence[bytes], entry_ms: int, by: InboxMap) -> RowChanges | Misfit:
    """Returns what a message says, or why it does not fit the mapping.

    Args:
        flat: the entry's fields and values in turn.
        entry_ms: time of the entry (Unix ms).
        by: the mapping.
    """
    readable: dict[str, Any] = {}
    try:
        return _read(flat, entry_ms, by, readable)
    except _Unfit as unfit:
        return Misfit(unfit.field, unfit.rule, **readable)


def _read(flat: Sequence[bytes], entry_ms: int, by: InboxMap, readable: dict[str, Any]) -> RowChanges:
    message = _found(_message(flat, by), by.root)
    if message is None:
        return RowChanges((), "a tombstone: it repeats a delete")
    if not isinstance(message, dict):
        raise _Unfit("message", "is not a JSON object" if not by.root else f"has no object at {by.root!r}")
    word = _word(_found(message, by.op))
    if word not in by.ops:
        raise _Unfit("op", _unknown_op(word, by.op))
    op = by.ops[word]
    if op is None:
        return RowChanges((), f"op {word[:_SHOWN]!r} is ignored")
    readable["op"] = op
    row = _found(message, by.rows[op])
    if not isinstance(row, dict):
        raise _Unfit(f"row.{op}", f"{by.rows[op]!r} has no row in the message")
    for name, path in (("owner", by.owner), ("contact", by.contact)):
        readable[name] = _id(f"row.{name}", path, _found(row, path), by)
    at = _at(_found(message, by.at), by)
    if word in by.snapshot:
        at -= by.earlier_ms
    readable["at"] = at if at < _AT_TOLD else None
    if not AT_MIN_MS <= at <= entry_ms + AT_AHEAD_MS:
        when = "before 2001" if at < AT_MIN_MS else "more than 5 minutes ahead of the entry"
        raise _Unfit("at", f"{by.at!r} is {when} in {by.unit!r}: is at.unit right?")
    change = RowChange(readable["owner"], readable["contact"], op, at)
    before = _old_pair(message, row, word, by) if op == "upsert" else None
    if before is None or before == (change.owner, change.contact):
        return RowChanges((change,))
    return RowChanges((RowChange(*before, "delete", at), change))


def _message(flat: Sequence[bytes], by: InboxMap) -> Any:
    names = list(flat[::2])
    if by.place == "fields":
        if len(set(names)) != len(names):
            raise _Unfit("message", "has a field twice")
        try:
            texts = [part.decode() for part in flat]
        except UnicodeDecodeError:
            raise _Unfit("message", "is not UTF-8") from None
        return dict(zip(texts[::2], texts[1::2], strict=True))
    if by.place == "single":
        if len(names) != 1:
            raise _Unfit("message", f"has {len(names)} fields and not one, as message.in = 'single' says")
        raw = flat[1]
    else:
        there = names.count(by.field.encode())
        if there != 1:
            raise _Unfit("message", f"has the field {by.field!r} {there} times and not once")
        raw = flat[2 * names.index(by.field.encode()) + 1]
    if by.tombstone is not None and raw == by.tombstone.encode():
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _Unfit("message", "is not JSON") from None


def _found(value: Any, path: str) -> Any:
    """What stands at a path; a name may hold dots itself."""
    if not path:
        return value
    if value is None:
        return None  # null has no parts, and a tombstone may lie at any depth
    if not isinstance(value, dict):
        return _MISSING
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return _found(value[head], rest) if dot and head in value else _MISSING


def _word(value: object) -> str:
    """An op as text: it may be a word, a number, true or false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""


def _unknown_op(word: str, path: str) -> str:
    if not word:
        return f"{path!r} is missing"
    return f"{path!r} is {word[:_SHOWN]!r}, which is in none of op.upsert, op.delete and op.ignore"


def _id(field: str, path: str, value: object, by: InboxMap) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        kind = "missing" if value is None or value is _MISSING else f"{type(value).__name__}, not text or whole number"
        raise _Unfit(field, f"{path!r} is {kind}")
    text = str(value)
    # Debezium writes 0 for a number of the old row that PostgreSQL does not log, Kafka Connect's sink null as text.
    if value == 0 or (by.place == "fields" and text in _NOTHING):
        raise _Unfit(field, f"{path!r} is {text}, which stands for a value that the source does not have")
    fault = id_fault(text.encode())
    if fault is not None:
        raise _Unfit(field, f"{path!r} {_ID_FAULTS[fault]}")
    if text != text.strip():
        raise _Unfit(field, f"{path!r} has blanks around it")
    return text


def _at(value: object, by: InboxMap) -> int:
    text = "" if isinstance(value, bool) else str(value) if isinstance(value, str | int) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        missing = value is None or value is _MISSING
        raise _Unfit("at", f"{by.at!r} is missing" if missing else f"{by.at!r} is not a whole number")
    times, parts = _IN_MS[by.unit]
    return int(text) * times // parts


def _old_pair(message: Any, row: Mapping[str, Any], word: str, by: InboxMap) -> tuple[str, str] | None:
    """The pair of the row as it was, None if that is not known and need not be."""
    if by.old is None:
        return None
    old = _found(message, by.old)
    if not isinstance(old, dict):
        if word in by.old_needed:
            raise _Unfit("key_change", f"{by.old!r} is missing, and op {word[:_SHOWN]!r} needs it")
        return None
    found = []
    for path in (by.owner, by.contact):
        value = _found(old, path)
        if by.old_is_partial and value is _MISSING:
            value = _found(row, path)
        found.append(_id("key_change", f"{by.old}.{path}", value, by))
    return found[0], found[1]
