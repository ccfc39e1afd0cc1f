"""Reads the rows of JSON lines: objects with owner, contact and an optional op; other fields are ignored (pure)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from worker.reconcile.rows import Reject, Row, SourceBroken, read_row, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.reconcile.lines import Line


class _TwiceError(ValueError):
    """An object has the same field twice: either value could be meant."""


def json_rows(lines: Iterable[Line], *, trim: bool = False) -> Iterator[Row | Reject]:
    """Yields every row, or its rejection, in order; blank lines are skipped.

    Args:
        lines: the lines of the source.
        trim: remove blanks around ids and ops.

    Raises:
        SourceBroken: the source is one JSON array, or its last line is cut off.
    """
    for line in lines:
        text = line.text
        if not text or text.isspace():
            continue
        if line.number == 1 and text.lstrip().startswith("["):
            raise SourceBroken("the source is a JSON array: it must be JSON lines, one object per line")
        if line.too_long:
            yield Reject(line.number, "row", "is too long", shown(text))
            continue
        row = _row(line.number, text, trim=trim)
        if not line.whole and isinstance(row, Reject) and row.field == "row":
            raise SourceBroken(f"the source is cut off: line {line.number} is incomplete")
        yield row


def _row(line: int, text: str, *, trim: bool) -> Row | Reject:
    try:
        fields = json.loads(text, object_pairs_hook=_without_repeats)
    except _TwiceError:
        return Reject(line, "row", "must not contain a field twice", shown(text))
    except (ValueError, RecursionError):  # brackets thousands deep
        return Reject(line, "row", "must be a JSON object", shown(text))
    if not isinstance(fields, dict):
        return Reject(line, "row", "must be a JSON object", shown(text))
    return read_row(line, fields.get("owner"), fields.get("contact"), fields.get("op", "upsert"), text, trim=trim)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _TwiceError
    return fields
