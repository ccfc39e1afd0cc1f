"""Takes changes off the caller's iterable, a chunk at a time, so that an iterable is never held as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from producers.contract.change import ContactChange, check_lane
from producers.contract.errors import InvalidChange
from producers.send.chunk import CHUNK_SIZE, Chunk
from producers.send.trace import current_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.contract.change import Lane
    from producers.send.stamp import Stamper

Item = ContactChange | Mapping[str, object]
"""An item that ``send`` takes: a change, or a mapping of its fields."""


class _Taken:
    """How far an iterable was taken, and which error ended it.

    Attributes:
        failure: the error that ended the iterable early: an InvalidChange, or an error that the iterable raised.
            Nothing is taken after it. The changes before it are valid and may be sent.
    """

    def __init__(self, stamper: Stamper, lane: Lane | None, id_max: int) -> None:
        check_lane(lane)
        self._id_max = id_max
        self.failure: Exception | None = None
        self._stamper = stamper
        self._lane = lane
        self._traceparent = current_traceparent()
        self._ended = False
        self._count = 0

    @contextmanager
    def _next_chunk(self) -> Iterator[Chunk]:
        chunk = Chunk(self._traceparent, self._lane, self._id_max)
        try:
            yield chunk
        except Exception as error:  # noqa: BLE001 - the caller's own; raised once the changes before it are sent
            self._ended = True
            if isinstance(error, InvalidChange):
                self.failure = InvalidChange(error.rule, self._count + len(chunk))
            elif not isinstance(error, StopIteration | StopAsyncIteration):
                self.failure = error
        self._count += len(chunk)


class Intake(_Taken):
    """Checks and stamps changes in the order they are given, until the end or the first failure."""

    def __init__(self, items: Iterable[Item], stamper: Stamper, lane: Lane | None, id_max: int) -> None:
        super().__init__(stamper, lane, id_max)
        self._items = iter(items)

    def take(self) -> Chunk:
        """Returns the next chunk: a full one, or what is left at the end; an empty one after that."""
        with self._next_chunk() as chunk:
            if not self._ended:
                admit, stamper = chunk.admit, self._stamper
                for item in islice(self._items, CHUNK_SIZE):
                    admit(item, stamper)
                self._ended = len(chunk) < CHUNK_SIZE
        return chunk


class AsyncIntake(_Taken):
    """``Intake`` for an asynchronous iterable."""

    def __init__(self, items: AsyncIterable[Item], stamper: Stamper, lane: Lane | None, id_max: int) -> None:
        super().__init__(stamper, lane, id_max)
        self._items = aiter(items)

    async def take(self) -> Chunk:
        """Returns the next chunk, as ``Intake.take`` does."""
        with self._next_chunk() as chunk:
            while not self._ended and len(chunk) < CHUNK_SIZE:
                chunk.admit(await anext(self._items), self._stamper)
        return chunk
