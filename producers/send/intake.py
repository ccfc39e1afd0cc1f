"""Takes changes off what the caller gave, a chunk at a time, so that no iterable is ever held whole."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING

from producers.contract.change import ContactChange
from producers.contract.errors import InvalidChange
from producers.send.chunk import CHUNK_SIZE, Chunk
from producers.send.trace import current_traceparent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from producers.send.stamp import Stamper

Item = ContactChange | Mapping[str, object]
"""What ``send`` takes: a change, or a mapping of its fields."""


class _Taken:
    """How far an iterable was taken, and what ended it.

    Attributes:
        failure: what ended it before its end: an InvalidChange, or whatever it raised itself. Nothing is taken after
            it. What stands before it is whole and may be sent.
    """

    def __init__(self, stamper: Stamper) -> None:
        self.failure: Exception | None = None
        self._stamper = stamper
        self._said_in = current_traceparent()
        self._ended = False
        self._count = 0

    def _end(self, error: Exception, chunk: Chunk) -> None:
        self._ended = True
        if isinstance(error, InvalidChange):
            self.failure = InvalidChange(error.rule, self._count + len(chunk))
        elif not isinstance(error, StopIteration | StopAsyncIteration):
            self.failure = error


class Intake(_Taken):
    """Checks and stamps changes in the order they are given, until the end or the first failure."""

    def __init__(self, items: Iterable[Item], stamper: Stamper) -> None:
        super().__init__(stamper)
        self._items = iter(items)

    def take(self) -> Chunk:
        """The next chunk, full but for the last; empty at the end."""
        chunk = Chunk(self._said_in)
        try:
            while not self._ended and len(chunk) < CHUNK_SIZE:
                chunk.admit(next(self._items), self._stamper)
        except Exception as error:  # noqa: BLE001 - the caller's own; raised when the changes before it are safe
            self._end(error, chunk)
        self._count += len(chunk)
        return chunk


class AsyncIntake(_Taken):
    """``Intake`` of an asynchronous iterable, or of a plain one."""

    def __init__(self, items: Iterable[Item] | AsyncIterable[Item], stamper: Stamper) -> None:
        super().__init__(stamper)
        self._items = aiter(items) if isinstance(items, AsyncIterable) else _plain(items)

    async def take(self) -> Chunk:
        """The next chunk, full but for the last; empty at the end."""
        chunk = Chunk(self._said_in)
        try:
            while not self._ended and len(chunk) < CHUNK_SIZE:
                chunk.admit(await anext(self._items), self._stamper)
        except Exception as error:  # noqa: BLE001 - as above
            self._end(error, chunk)
        self._count += len(chunk)
        return chunk


async def _plain(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item
