"""Reads a source as numbered lines: optionally gzipped, of bounded length, and never cut off without an error."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from producers.emit import LINE_MAX_BYTES, read_block
from worker.reconcile.rows import SourceBroken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

_GZIP: Final = b"\x1f\x8b"
_OTHER_ENCODINGS: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_SKIP_BYTES: Final = 64 * 1024


class Line(NamedTuple):
    """One line, without its end.

    Attributes:
        number: counted from 1.
        text: its text; bytes that are not UTF-8 become lone surrogates.
        whole: whether it has a line end; only the last line may have none.
        too_long: whether it is longer than LINE_MAX_BYTES and was cut there.
        quotes: number of quotes in it, in what was cut off too.
    """

    number: int
    text: str
    whole: bool = True
    too_long: bool = False
    quotes: int = 0


class Lines:
    """The lines of a binary stream, unpacked if it is gzip.

    Args:
        stream: the stream, read once from its current position.

    Raises:
        SourceBroken: the stream cannot be read, has another encoding, or its gzip is cut off.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._raw = _Counted(stream)
        packed = io.BufferedReader(self._raw)
        self.stream: io.BufferedReader[Any] = packed
        with _ReadErrors():
            head = packed.peek(2)[:2]
            if head == _GZIP:
                self.stream = io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=packed)))
                head = self.stream.peek(2)[:2]
        if head in _OTHER_ENCODINGS:
            raise SourceBroken(f"the source is {_OTHER_ENCODINGS[head]}: it must be UTF-8")

    @property
    def bytes_read(self) -> int:
        """Number of bytes read from the stream, before decompression."""
        return self._raw.count

    def peek(self) -> bytes:
        """Returns the first byte after blanks and a byte order mark, if it is among the first bytes; else nothing."""
        with _ReadErrors():
            return self.stream.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]

    def __iter__(self) -> Iterator[Line]:
        number = 0
        stream = self.stream
        while True:
            with _ReadErrors(number):
                raw = stream.readline(LINE_MAX_BYTES + 2)
                if not raw:
                    return
                number += 1
                whole = raw.endswith(b"\n")
                text = raw.rstrip(b"\r\n")
                too_long = len(text) > LINE_MAX_BYTES
                quotes = text.count(b'"')
                while too_long and not whole and (rest := stream.readline(_SKIP_BYTES)):
                    whole = rest.endswith(b"\n")
                    quotes += rest.count(b'"')
            if number == 1:
                text = text.removeprefix(b"\xef\xbb\xbf")
            yield Line(number, text.decode("utf-8", "surrogateescape"), whole, too_long, quotes)


class _Counted(io.RawIOBase):
    """A stream that counts the bytes read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # its stub names a wider buffer type
        part = read_block(self._stream, len(buffer))
        buffer[: len(part)] = part
        self.count += len(part)
        return len(part)


class _ReadErrors:
    """Turns a read error into SourceBroken, with one line that says where it happened."""

    def __init__(self, after: int = 0) -> None:
        self._where = f" after line {after}" if after else ""

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, EOFError):
            raise SourceBroken(f"the source is cut off{self._where}: its gzip is incomplete") from None
        if isinstance(error, gzip.BadGzipFile | zlib.error):
            raise SourceBroken(f"the source cannot be read{self._where}: its gzip is damaged") from None
        if isinstance(error, OSError):
            raise SourceBroken(f"the source cannot be read{self._where}: {error.strerror or error}") from None
