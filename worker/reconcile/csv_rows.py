"""Reads the rows of a CSV with a header: owner, contact and an optional op; other columns are ignored (pure)."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final, NamedTuple

from worker.reconcile.rows import Reject, Row, SourceBroken, read_row, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.reconcile.lines import Line

_DELIMITERS: Final = ",;\t"
_KNOWN: Final = ("owner", "contact", "op")

ROW_MAX: Final = 16 * 1024 * 1024
"""Most characters of one row, over all its lines: a longer one is a quote that somebody forgot to close."""


class _Header(NamedTuple):
    """The delimiter, the number of columns, and the positions of our columns."""

    delimiter: str
    width: int
    owner: int
    contact: int
    op: int | None


def csv_rows(lines: Iterable[Line], *, trim: bool = False) -> Iterator[Row | Reject]:
    """Yields every row, or its rejection, in order; blank lines are skipped.

    Args:
        lines: the lines of the source.
        trim: remove blanks around ids and ops.

    Raises:
        SourceBroken: the header is missing or invalid, or the last line has no line end: it could be cut off, as in
            `1,23` from `1,234`. Or it cannot be known where a row ends, so that a line of somebody's note could be
            taken for a row.
    """
    csv.field_size_limit(ROW_MAX)
    feed = _Feed(lines)
    header = _read_header(feed)
    reader = csv.reader(feed, delimiter=header.delimiter, strict=True)
    while True:
        feed.begin_row()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if feed.ended:
                raise SourceBroken(f"the source is cut off: the quote in line {feed.began} is never closed") from None
            if feed.quotes % 2:
                where = f"line {feed.began}" + (f" to {feed.number}" if feed.number > feed.began else "")
                raise SourceBroken(f"the quotes in {where} do not match, so the end of the row is unknown") from None
            yield Reject(feed.began, "row", f"must be valid CSV: {error}", shown(feed.text))
            continue
        yield from feed.taken_rejects()
        if fields is None:
            return
        if feed.cut:
            raise SourceBroken(_no_line_end(feed.number))
        if fields:
            yield _row(feed.began, fields, header, trim=trim)


def _no_line_end(line: int) -> str:
    return f"the source is cut off: line {line} has no line end"


def _row(line: int, fields: list[str], header: _Header, *, trim: bool) -> Row | Reject:
    if len(fields) != header.width:
        return Reject(line, "row", f"must have {header.width} fields, like the header", shown(fields))
    op = "upsert" if header.op is None else fields[header.op]
    return read_row(line, fields[header.owner], fields[header.contact], op, fields, trim=trim)


class _Feed:
    """Feeds lines to the csv module, and tracks what that cannot tell: line numbers, and lines that are too long."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._rejects: list[Reject] = []
        self.number = 0
        self.began = 0  # first line of the current row; 0 before it is read
        self.quotes = 0  # of the current row
        self._characters = 0
        self.text = ""
        self.cut = False
        self.ended = False

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            self.number, self.text, self.cut = line.number, line.text, not line.whole
            if not line.too_long:
                self.began = self.began or line.number
                self.quotes += line.quotes
                self._characters += len(line.text)
                if self._characters > ROW_MAX:
                    raise SourceBroken(f"the row that begins in line {self.began} is too long: is a quote not closed?")
                return line.text + "\n"
            if self.began or line.quotes % 2:
                # It is a part of a quoted field, or opens one: what follows may be a note, and not rows.
                raise SourceBroken(f"line {line.number} is too long, and part of a quoted field")
            self._rejects.append(Reject(line.number, "row", "is too long", shown(line.text)))
        self.ended = True
        raise StopIteration

    def begin_row(self) -> None:
        """The next line begins a row."""
        self.began = self.quotes = self._characters = 0

    def taken_rejects(self) -> list[Reject]:
        taken, self._rejects = self._rejects, []
        return taken


def _read_header(feed: _Feed) -> _Header:
    text = next(feed, None)
    if text is None:
        raise SourceBroken("the source is empty: a CSV must begin with a header that names owner and contact")
    if feed.cut:
        raise SourceBroken(_no_line_end(feed.number))
    rule = "the header must name the columns owner and contact, and may name op"
    # The error does not repeat the first line: without a header, it holds ids.
    names: list[str] = []
    for delimiter in _DELIMITERS:
        try:
            names = [name.strip().lower() for name in next(csv.reader([text], delimiter=delimiter, strict=True), [])]
        except csv.Error:
            names = []
        if {"owner", "contact"} & set(names):
            break
    missing = [name for name in ("owner", "contact") if name not in names]
    if missing:
        raise SourceBroken(f"{rule}: it has no {' and no '.join(missing)}")
    twice = [name for name in _KNOWN if names.count(name) > 1]
    if twice:
        raise SourceBroken(f"{rule}: it names {twice[0]} twice")
    op = names.index("op") if "op" in names else None
    return _Header(delimiter, len(names), names.index("owner"), names.index("contact"), op)
