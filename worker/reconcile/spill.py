"""Pairs laid aside on disk in buckets, so that of any number of them one bucket at a time is in memory."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKETS: Final = 64
"""In how many parts pairs are laid aside; a file each, which has no name and is gone with the process."""


class Spill:
    """Pairs, each with a word of bytes that holds no blank; a context manager."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.digest = 0
        """Of all that was added, in whatever order."""
        self.count = 0

    def __enter__(self) -> Self:
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
        self.digest = (self.digest + crc32(word[:1], code)) & (2**64 - 1)
        self.count += 1

    def bucket(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        """Word and pair of all that one bucket holds, in the order in which they were added."""
        file = self._files[number]
        file.seek(0)
        for line in file:
            word, _, pair = line[:-1].partition(b" ")
            yield word, pair
