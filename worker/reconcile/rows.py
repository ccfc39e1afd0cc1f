"""One row of a source of truth: a pair and what the source says of it, or the rule that the row breaks (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from producers.contract.change import ID_MAX_BYTES, OPS, Op, id_fault
from producers.contract.errors import ContactSyncError
from producers.contract.keys import PAIR_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producers.contract.change import IdFault

SAID_MAX: Final = 500
"""Most characters of a rejected row that are kept to be shown."""

_ID_RULE: Final = f"must be 1 to {ID_MAX_BYTES} bytes of UTF-8 without control characters"
_FAULTS: Final[dict[IdFault, str]] = {
    "empty": "it is empty",
    "too_long": "it is longer",
    "not_utf8": "it is no UTF-8",
    "control_character": "it holds a control character",
}
_OPS: Final = frozenset(OPS)


class Row(NamedTuple):
    """What a source says of one pair.

    Attributes:
        line: where it stands, counted from 1: of a file the line, of a query or an iterable the row.
        pair: owner and contact, as a pair's hash field has them.
        op: ``upsert`` where the contact is there, ``delete`` where the source says that it is gone.
    """

    line: int
    pair: bytes
    op: Op


class Reject(NamedTuple):
    """A row that is none.

    Attributes:
        line: as of a row.
        field: what breaks the rule: a column, or ``row``.
        rule: the rule, without what the row says.
        said: the row itself, cut to SAID_MAX characters; for whoever owns the source, never for a log.
    """

    line: int
    field: str
    rule: str
    said: str


class SourceBroken(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """A source cannot be read to its end, or is no source at all: nothing that follows from the whole of it is true."""


def read_row(line: int, owner: object, contact: object, op: object, said: object) -> Row | Reject:
    """The row that these fields are, or the first rule that they break.

    Args:
        line: where it stands.
        owner: the owner's XC user id; None where there is none.
        contact: the contact's XC user id, by the same rules.
        op: ``upsert`` or ``delete``.
        said: the whole row as it was read, shown if it is rejected.
    """
    ids = []
    for field, value in (("owner", owner), ("contact", contact)):
        raw = _encoded(value)
        if isinstance(raw, str):
            return Reject(line, field, f"{_ID_RULE}: {raw}", shown(said))
        ids.append(raw)
    if not (isinstance(op, str) and op in _OPS):
        return Reject(line, "op", "must be 'upsert' or 'delete'", shown(said))
    return Row(line, ids[0] + PAIR_SEPARATOR + ids[1], "delete" if op == "delete" else "upsert")


def row_of(line: int, item: Sequence[object] | Mapping[str, object]) -> Row | Reject:
    """The row that a tuple (owner, contact[, op]) or a mapping of these names is, as programs and databases give it."""
    if hasattr(item, "keys"):
        fields: Mapping[str, object] = item  # type: ignore[assignment] # what has keys is a mapping
        return read_row(line, fields.get("owner"), fields.get("contact"), fields.get("op", "upsert"), item)
    if isinstance(item, str | bytes) or not hasattr(item, "__getitem__") or not 2 <= len(item) <= 3:
        return Reject(line, "row", "must be (owner, contact) or (owner, contact, op)", shown(item))
    owner, contact, op = (*item, "upsert")[:3]
    return read_row(line, owner, contact, op, item)


def shown(said: object) -> str:
    """A rejected row as it is shown: text, cut, and writable whatever it holds."""
    text = said if isinstance(said, str) else repr(said)
    return text[:SAID_MAX].encode("utf-8", "backslashreplace").decode()


def _encoded(value: object) -> bytes | str:
    """The id's bytes; or, as text, why it is none."""
    if not isinstance(value, str):
        return "it is missing" if value is None else f"it is not text but {type(value).__name__}"
    try:
        raw = value.encode()
    except UnicodeEncodeError:  # what was no UTF-8 was decoded to halves of surrogate pairs
        return _FAULTS["not_utf8"]
    if raw.isalnum() and len(raw) <= ID_MAX_BYTES:  # nearly all are; ASCII letters and digits only
        return raw
    fault = id_fault(raw)
    return raw if fault is None else _FAULTS[fault]
