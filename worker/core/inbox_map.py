"""The mapping of the inbox: where a row's change stands in a message of change data capture (pure).

It is read from TOML. docs/how-to/change-data-capture.md has one for each tool.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from zlib import crc32

from producers.contract.errors import ContactSyncError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from producers.contract.change import Op

Place = Literal["field", "single", "fields"]
"""Where an entry of the inbox holds the message: as JSON in a field, as JSON in its only field, or as its fields."""

Unit = Literal["s", "ms", "us", "ns"]


class InboxMapError(ContactSyncError):
    """The mapping is invalid. One line names the field and the rule."""


@dataclass(frozen=True, slots=True)
class InboxMap:
    """A mapping.

    Attributes:
        place: where an entry holds the message.
        field: the field that holds it, if `place` is ``field``.
        root: path to what counts of the message, empty for all of it.
        tombstone: the text that stands for a message without a value, None if there is none.
        ops: what an op's word means; None if it says nothing about a contact.
        op: path to the op.
        rows: path to the row, for each op.
        owner: path to the owner in a row.
        contact: path to the contact in a row.
        at: path to the time.
        unit: unit of that time.
        old: path to the row as it was before an upsert, None if the source itself writes a delete of the old key.
        old_is_partial: whether only the columns that changed stand there.
        old_needed: words of upserts that must have it.
        snapshot: words of upserts that a snapshot reads.
        earlier_ms: how much earlier than they say these were read at most.
        digest: of the file, to tell whether all workers have the same.
    """

    place: Place
    field: str
    root: str
    tombstone: str | None
    ops: Mapping[str, Op | None]
    op: str
    rows: Mapping[Op, str]
    owner: str
    contact: str
    at: str
    unit: Unit
    old: str | None
    old_is_partial: bool
    old_needed: frozenset[str]
    snapshot: frozenset[str]
    earlier_ms: int
    digest: str


class _Field(NamedTuple):
    """What a field of the file must be; without a default it is required."""

    rule: str
    fits: Callable[[Any], bool]
    default: Any = ...


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_seconds(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_SECONDS


def _one_of(*words: str) -> _Field:
    return _Field(" or ".join(map(repr, words)), lambda value: value in words if isinstance(value, str) else False)


_MOST_SECONDS: Final = 10 * 365 * 86_400
_PATH: Final = _Field("a path such as 'source.ts_ms'", _is_name)
_ROW: Final = _Field("a path such as 'after', or '' for the message itself", _is_text)
_WORDS: Final = _Field("a list of one or more texts", lambda value: bool(value) and _are_names(value))
_FIELDS: Final[Mapping[str, Mapping[str, _Field]]] = {
    "message": {
        "in": _one_of("field", "single", "fields"),
        "field": _Field("the name of a field", _is_name, None),
        "root": _Field("a path such as 'payload'", _is_name, ""),
        "tombstone": _Field("a text", _is_text, None),
    },
    "row": {"owner": _PATH, "contact": _PATH, "upsert": _ROW, "delete": _ROW},
    "op": {
        "from": _PATH,
        "upsert": _WORDS,
        "delete": _WORDS,
        "ignore": _Field("a list of texts", _are_names, []),
    },
    "at": {"from": _PATH, "unit": _one_of("s", "ms", "us", "ns")},
    "key_change": {
        "by_source": _Field("true or false", lambda value: isinstance(value, bool), default=False),
        "old": _PATH._replace(default=None),
        "columns": _one_of("all", "changed")._replace(default="all"),
        "needed": _Field("a list of texts", _are_names, []),
    },
    "snapshot": {
        "op": _Field("a list of texts", _are_names, []),
        "earlier_seconds": _Field(f"a whole number from 0 to {_MOST_SECONDS}", _is_seconds, 0),
    },
}
"""Each table of the file, with its fields."""

_OPTIONAL: Final = "snapshot"


def read_map(text: str) -> InboxMap:
    """Reads a mapping.

    Args:
        text: the file's content, TOML.

    Raises:
        InboxMapError: it is invalid.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InboxMapError(f"it is not TOML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InboxMapError("it is not TOML that can be read: too deep") from None
    for name in sorted(tables.keys() - _FIELDS.keys()):
        raise InboxMapError(f"{name[:40]!r} is not a table of the mapping: it has {', '.join(_FIELDS)}")
    given = {name: _table(name, tables.get(name)) for name in _FIELDS}
    _check_together(given)
    return _built(given, f"{crc32(text.encode()):08x}")


def _table(name: str, given: object) -> dict[str, Any]:
    if given is None and name != _OPTIONAL:
        raise InboxMapError(f"the table [{name}] is required")
    if not isinstance(given, dict | None):
        raise InboxMapError(f"{name} must be a table: [{name}]")
    fields, found = _FIELDS[name], dict(given or {})
    for key in sorted(found.keys() - fields.keys()):
        raise InboxMapError(f"'{name}.{key[:40]}' is not a field of the mapping: [{name}] has {', '.join(fields)}")
    for key, field in fields.items():
        if key not in found and field.default is ...:
            raise InboxMapError(f"{name}.{key} is required: it must be {field.rule}")
        if key in found and not field.fits(found[key]):
            raise InboxMapError(f"{name}.{key} must be {field.rule}")
        found.setdefault(key, field.default)
    return found


def _check_together(given: Mapping[str, Mapping[str, Any]]) -> None:
    message, op, key_change = given["message"], given["op"], given["key_change"]
    if (message["field"] is None) is (message["in"] == "field"):
        raise InboxMapError("message.field is required if message.in is 'field', and only then")
    words = [*op["upsert"], *op["delete"], *op["ignore"]]
    if twice := next((word for word in words if words.count(word) > 1), None):
        raise InboxMapError(f"op.upsert, op.delete and op.ignore must not share a word: {twice[:40]!r}")
    if (key_change["old"] is None) is not key_change["by_source"]:
        raise InboxMapError(
            "key_change.old must say where the row stands as it was, or key_change.by_source = true that the source "
            "writes a delete of the old key: one of both"
        )
    if key_change["needed"] and key_change["by_source"]:
        raise InboxMapError("key_change.needed is only for key_change.old")
    for name, some in (("key_change.needed", key_change["needed"]), ("snapshot.op", given["snapshot"]["op"])):
        if stray := next((word for word in some if word not in op["upsert"]), None):
            raise InboxMapError(f"{name} must have words of op.upsert alone, not {stray[:40]!r}")


def _built(given: Mapping[str, Mapping[str, Any]], digest: str) -> InboxMap:
    message, row, op, key_change = given["message"], given["row"], given["op"], given["key_change"]
    meanings: tuple[tuple[str, Op | None], ...] = (("upsert", "upsert"), ("delete", "delete"), ("ignore", None))
    return InboxMap(
        place=message["in"],
        field=message["field"] or "",
        root=message["root"],
        tombstone=message["tombstone"],
        ops={word: meaning for name, meaning in meanings for word in op[name]},
        op=op["from"],
        rows={"upsert": row["upsert"], "delete": row["delete"]},
        owner=row["owner"],
        contact=row["contact"],
        at=given["at"]["from"],
        unit=given["at"]["unit"],
        old=key_change["old"],
        old_is_partial=key_change["columns"] == "changed",
        old_needed=frozenset(key_change["needed"]),
        snapshot=frozenset(given["snapshot"]["op"]),
        earlier_ms=1000 * given["snapshot"]["earlier_seconds"],
        digest=digest,
    )
