"""Threads that ask Redis, so that the loop that answers never waits: few, so that its connections are few.

Looks have threads of their own: a probe or a scrape never stands behind a search through all dead letters.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import redis

from producers.contract.errors import ContactSyncError
from worker.serve.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_THREADS: Final = 2
_QUEUED_MAX: Final = 32
"""So many wait at most; who comes then is told so at once."""

_Value = TypeVar("_Value")


class _Queue:
    """Some threads, and how many wait for them or are in them."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self._queued = 0

    async def run(self, work: Callable[..., _Value], *args: Any) -> _Value:
        if self._queued >= _QUEUED_MAX:
            raise Refused(503, "busy", "too many ask at once: try again")
        self._queued += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        future.add_done_callback(self._done)  # also where whoever asked has gone
        return await future

    def _done(self, _: object) -> None:
        self._queued -= 1

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)  # what was begun ends: a redrive, and the note of it


class ThreadPools:
    """What the application does in threads."""

    def __init__(self) -> None:
        self._looks = _Queue("serve-look")
        self._moves = _Queue("serve-move")

    async def look(self, work: Callable[..., _Value], *args: Any) -> _Value:
        """Does what takes a round trip or two.

        Raises:
            Refused: too many wait.
        """
        return await self._looks.run(work, *args)

    async def move(self, work: Callable[..., _Value], *args: Any) -> _Value:
        """Does what may take seconds.

        Raises:
            Refused: too many wait.
        """
        return await self._moves.run(work, *args)

    @asynccontextmanager
    async def every(self, seconds: float, work: Callable[[], object]) -> AsyncIterator[None]:
        """Does this look every so often for as long as the block lasts; then ends the threads."""

        async def again() -> None:
            while True:
                with suppress(redis.RedisError, ContactSyncError, Refused):  # who asks is told
                    await self.look(work)
                await asyncio.sleep(seconds)

        task = asyncio.create_task(again())
        try:
            yield
        finally:
            task.cancel()
            self._looks.close()
            self._moves.close()
