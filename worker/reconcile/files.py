"""Reads a file or standard input as a source of rows."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Self, get_args

from worker.reconcile.csv_rows import csv_rows
from worker.reconcile.json_rows import json_rows
from worker.reconcile.lines import Lines
from worker.reconcile.rows import SourceBroken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.reconcile.rows import Reject, Row

Format = Literal["csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


class FileSource:
    """A CSV with a header or JSON lines, optionally gzipped. Use it as a context manager and iterate it once.

    Args:
        path: the file; ``-`` for standard input.
        format_: its format; None finds it from the file's name, or else from its first character.
        trim: remove blanks around ids and ops.

    Raises:
        SourceBroken: the file cannot be opened or read to its end.
    """

    def __init__(self, path: str, format_: Format | None = None, *, trim: bool = False) -> None:
        # Redis and JSON take only UTF-8, and a file may have any name.
        full = str(Path(path).absolute()).encode(errors="backslashreplace").decode()
        self.name = "standard input" if path == "-" else full
        self._path = path
        self._format = format_
        self._trim = trim
        self._open = ExitStack()
        self._lines: Lines | None = None
        self.total: int | None = None
        """Size of a regular file in bytes; None for a pipe, whose size is unknown."""
        self.written_at: float | None = None
        """When a regular file was last modified (Unix seconds)."""

    def __enter__(self) -> Self:
        try:
            file: IO[bytes] = (
                sys.stdin.buffer if self._path == "-" else self._open.enter_context(Path(self._path).open("rb"))
            )
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode):
                self.total, self.written_at = found.st_size, found.st_mtime
        except OSError as error:
            # Some programs replace standard input with a stream that is not a file, and so has no size.
            if self._path != "-":
                raise SourceBroken(f"{self._path} cannot be read: {error.strerror}") from None
        self._lines = Lines(sys.stdin.buffer if self._path == "-" else file)  # type: ignore[arg-type] # both are binary
        return self

    def is_file(self, path: Path) -> bool:
        """Tells if this is the file behind the source, by whatever name: what is written there would replace it."""
        try:
            found = os.fstat(sys.stdin.fileno()) if self._path == "-" else Path(self._path).stat()
            return os.path.samestat(found, path.stat()) and stat.S_ISREG(found.st_mode)
        except OSError:  # one of both does not exist, or is not a file
            return False

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def done(self) -> int:
        """Number of bytes read so far."""
        return 0 if self._lines is None else self._lines.bytes_read

    def __iter__(self) -> Iterator[Row | Reject]:
        if self._lines is None:
            raise SourceBroken("the source is not open")
        rows = csv_rows if self._found_format(self._lines) == "csv" else json_rows
        return rows(self._lines, trim=self._trim)

    def _found_format(self, lines: Lines) -> Format:
        if self._format is not None:
            return self._format
        suffix = Path(self._path.removesuffix(".gz")).suffix.lower()
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        return "jsonl" if lines.peek() in {b"{", b"["} else "csv"
