"""Stores pairs on disk in buckets, so that only one bucket at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Final, Self
from zlib import crc32

from worker.reconcile.aside import file_aside

BUCKETS: Final = 64
"""Number of bucket files. They have no names and disappear with the process."""

PART: Final = 100_000
"""About the most pairs that are in memory at once: a larger file is split first."""

Tagged = Iterator[tuple[bytes, bytes]]
"""Tags, each with its pair."""


class Spill:
    """Pairs, each with a tag: bytes without a blank. A context manager.

    Raises:
        NoRoomError: the temporary directory cannot be written.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self.digest = 0
        """Checksum of everything that was added, independent of its order."""
        self.count = 0

    def __enter__(self) -> Self:
        self._sizes = [0] * BUCKETS
        self._files = [self._open.enter_context(file_aside()) for _ in range(BUCKETS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, tag: bytes, pair: bytes) -> None:
        """Stores a pair; its ids must not contain line ends."""
        code = crc32(pair)
        self._files[code % BUCKETS].write(b"%b %b\n" % (tag, pair))
        self._sizes[code % BUCKETS] += 1
        self.digest = (self.digest + crc32(tag[:1], code)) & (2**64 - 1)
        self.count += 1

    def size(self, number: int) -> int:
        """Returns the number of pairs in one file."""
        return self._sizes[number]

    @contextmanager
    def split(self, number: int, parts: int) -> Iterator[list[Tagged]]:
        """Splits one file into parts, each in the order of addition; all entries of a pair are in the same part."""
        if parts == 1:
            yield [_tagged(self._files[number])]
            return
        with ExitStack() as undo:
            files = [undo.enter_context(file_aside()) for _ in range(parts)]
            for tag, pair in _tagged(self._files[number]):
                files[crc32(pair) // BUCKETS % parts].write(b"%b %b\n" % (tag, pair))
            yield [_tagged(file) for file in files]


def _tagged(file: IO[bytes]) -> Tagged:
    file.seek(0)
    for line in file:
        tag, _, pair = line[:-1].partition(b" ")
        yield tag, pair
