"""Pairs laid aside on disk in buckets, so that of any number of them one bucket at a time is in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Final, Self
from zlib import crc32

BUCKETS: Final = 64
"""In how many files pairs are laid aside; they have no names and are gone with the process."""

PART: Final = 100_000
"""Most pairs of a file, about, that are in memory at once: a file that holds more is split first."""

Words = Iterator[tuple[bytes, bytes]]
"""Words, each with its pair."""


class Spill:
    """Pairs, each with a word of bytes that holds no blank; a context manager."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.digest = 0
        """Of all that was added, in whatever order."""
        self.count = 0

    def __enter__(self) -> Self:
        self._sizes = [0] * BUCKETS
        self._files = [
            self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
            for _ in range(BUCKETS)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, word: bytes, pair: bytes) -> None:
        """Lays a pair aside: ids hold no line ends."""
        code = crc32(pair)
        self._files[code % BUCKETS].write(b"%b %b\n" % (word, pair))
        self._sizes[code % BUCKETS] += 1
        self.digest = (self.digest + crc32(word[:1], code)) & (2**64 - 1)
        self.count += 1

    def size(self, number: int) -> int:
        """How many pairs one file holds."""
        return self._sizes[number]

    @contextmanager
    def split(self, number: int, parts: int) -> Iterator[list[Words]]:
        """What one file holds, in so many parts, each in the order in which it was added; a pair is in one part."""
        if parts == 1:
            yield [_words(self._files[number])]
            return
        with ExitStack() as undo:
            files = [undo.enter_context(tempfile.TemporaryFile()) for _ in range(parts)]
            for word, pair in _words(self._files[number]):
                files[crc32(pair) // BUCKETS % parts].write(b"%b %b\n" % (word, pair))
            yield [_words(file) for file in files]


def _words(file: IO[bytes]) -> Words:
    file.seek(0)
    for line in file:
        word, _, pair = line[:-1].partition(b" ")
        yield word, pair
