"""Rows of a CSV with a header: owner, contact and, if there is one, op; other columns are passed over (pure)."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final, NamedTuple

from worker.reconcile.rows import Reject, Row, SourceBroken, read_row, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.reconcile.lines import Line

_DELIMITERS: Final = ",;\t"
_KNOWN: Final = ("owner", "contact", "op")


class _Header(NamedTuple):
    """Which columns there are: how many, and where ours stand."""

    delimiter: str
    width: int
    owner: int
    contact: int
    op: int | None


def csv_rows(lines: Iterable[Line]) -> Iterator[Row | Reject]:
    """Every row or why it is none, in order; blank lines are passed over.

    Raises:
        SourceBroken: there is no header that fits, or the last row is not whole: without a line end nobody can tell
            `1,23` from what is left of `1,234`.
    """
    feed = _Feed(lines)
    header = _read_header(feed)
    reader = csv.reader(feed, delimiter=header.delimiter, strict=True)
    while True:
        feed.began = 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if feed.ended:
                raise SourceBroken(
                    f"the source ends half-way: the quote in line {feed.began} is never closed"
                ) from None
            yield Reject(feed.began, "row", f"must be CSV: {error}", shown(feed.text))
            continue
        yield from feed.taken_rejects()
        if fields is None:
            return
        if feed.cut:
            raise SourceBroken(f"the source ends half-way: line {feed.number} has no line end")
        if fields:
            yield _row(feed.began, fields, header)


def _row(line: int, fields: list[str], header: _Header) -> Row | Reject:
    if len(fields) != header.width:
        return Reject(line, "row", f"must have {header.width} fields, as the header has", shown(fields))
    op = "upsert" if header.op is None else fields[header.op]
    return read_row(line, fields[header.owner], fields[header.contact], op, fields)


class _Feed:
    """The lines' text for the csv module, with what it cannot say: where it is, and which lines were too long."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._rejects: list[Reject] = []
        self.number = 0
        self.began = 0  # where the row that is being read begins; 0 before its first line
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
                return line.text + "\n"
            self._rejects.append(Reject(line.number, "row", "is too long for a line", shown(line.text)))
        self.ended = True
        raise StopIteration

    def taken_rejects(self) -> list[Reject]:
        taken, self._rejects = self._rejects, []
        return taken


def _read_header(feed: _Feed) -> _Header:
    text = next(feed, None)
    if text is None:
        raise SourceBroken("the source is empty: a CSV begins with a header that names owner and contact")
    rule = "the header must name the columns owner and contact, and op if there is one"
    # What it says instead is not repeated: without a header those are ids.
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
