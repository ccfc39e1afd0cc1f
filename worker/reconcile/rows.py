"""One row of a source of truth: a pair with its op, or the rule that the row breaks (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from producers.contract.change import ID_MAX_BYTES, OPS, Op, characters_fit, id_fault, limit_rule
from producers.contract.errors import ContactSyncError
from producers.contract.keys import PAIR_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producers.contract.change import IdFault

SAID_MAX: Final = 500
"""Most characters of a rejected row that are kept."""

_ID_RULE: Final = f"must be 1 to {ID_MAX_BYTES} bytes of UTF-8 without control characters"
_FAULTS: Final[dict[IdFault, str]] = {
    "empty": "it is empty",
    "too_long": "it is longer",
    "not_utf8": "it is not UTF-8",
    "control_character": "it contains a control character",
}
_BLANKS: Final = "it has blanks around it, which --trim removes"
_OPS: Final = frozenset(OPS)


class Row(NamedTuple):
    """One pair in a source.

    Attributes:
        line: its position, counted from 1: the line of a file, the row of a query or an iterable.
        pair: owner and contact, encoded as a pair's hash field in Redis.
        op: ``upsert`` if the contact exists, ``delete`` if the source says that it is gone.
    """

    line: int
    pair: bytes
    op: Op


class Reject(NamedTuple):
    """A rejected row.

    Attributes:
        line: its position, as in a row.
        field: the column that breaks the rule, or ``row``.
        rule: the rule, without the row's content.
        said: the row itself, cut to SAID_MAX characters; only for the owner of the source, never for a log.
    """

    line: int
    field: str
    rule: str
    said: str


class SourceBroken(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The source is invalid or cannot be read to its end, so nothing can be concluded from it."""


def read_row(  # noqa: PLR0913 - the parts of one row, and how to read it
    line: int, owner: object, contact: object, op: object, said: object, *, trim: bool = False
) -> Row | Reject:
    """Returns the row with these fields, or its rejection with the first rule that they break.

    Args:
        line: its position.
        owner: the owner's XC user id; None if it is missing.
        contact: the contact's XC user id; None if it is missing.
        op: ``upsert`` or ``delete``.
        said: the whole row as it was read, kept if it is rejected.
        trim: remove blanks around the fields. Otherwise an id with blanks around it is rejected: it is far more often
            a blank after a comma, or the padding of a CHAR column, than a part of the id.
    """
    ids = []
    for field, given in (("owner", owner), ("contact", contact)):
        value = given.strip() if trim and isinstance(given, str) else given
        raw = _encoded(value)
        if isinstance(raw, str):
            return Reject(line, field, f"{_ID_RULE}: {raw}", shown(said))
        ids.append(raw)
    if trim and isinstance(op, str):
        op = op.strip()
    if not (isinstance(op, str) and op in _OPS):
        return Reject(line, "op", "must be 'upsert' or 'delete'", shown(said))
    return Row(line, ids[0] + PAIR_SEPARATOR + ids[1], "delete" if op == "delete" else "upsert")


def row_of(line: int, item: Sequence[object] | Mapping[str, object], *, trim: bool = False) -> Row | Reject:
    """Returns the row of a tuple (owner, contact[, op]) or of a mapping with these names, or its rejection."""
    if hasattr(item, "keys"):
        fields: Mapping[str, object] = item  # type: ignore[assignment] # an object with keys is a mapping
        return read_row(line, fields.get("owner"), fields.get("contact"), fields.get("op", "upsert"), item, trim=trim)
    if isinstance(item, str | bytes) or not hasattr(item, "__getitem__") or not 2 <= len(item) <= 3:
        return Reject(line, "row", "must be (owner, contact) or (owner, contact, op)", shown(item))
    owner, contact, op = (*item, "upsert")[:3]
    return read_row(line, owner, contact, op, item, trim=trim)


def limited(row: Row | Reject, id_max: int) -> Row | Reject:
    """Returns the row, or its rejection if an id has more characters than allowed."""
    if isinstance(row, Row) and len(row.pair) > id_max:
        ids = row.pair.split(PAIR_SEPARATOR)
        for field, raw in zip(("owner", "contact"), ids, strict=True):
            if not characters_fit(raw, id_max):
                return Reject(row.line, field, limit_rule(id_max), shown(b" ".join(ids).decode()))
    return row


def shown(said: object) -> str:
    """Returns a rejected row as text that is cut and can be encoded as UTF-8."""
    text = said if isinstance(said, str) else repr(said)
    return text[:SAID_MAX].encode("utf-8", "backslashreplace").decode()


def _encoded(value: object) -> bytes | str:
    """Returns the id's bytes or, as text, why the id is invalid."""
    if not isinstance(value, str):
        return "it is missing" if value is None else f"it is {type(value).__name__}, not text"
    try:
        raw = value.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 were decoded to lone surrogates
        return _FAULTS["not_utf8"]
    if raw.isalnum() and len(raw) <= ID_MAX_BYTES:  # nearly all are ASCII letters and digits
        return raw
    fault = id_fault(raw)
    if fault is not None:
        return _FAULTS[fault]
    return raw if value == value.strip() else _BLANKS
