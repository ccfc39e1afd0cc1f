"""Thread pools for calls to Redis, so that the event loop never blocks. They are small, to use few connections.

Quick calls have their own pool, so that a probe or a scrape never waits for a search through all dead letters.
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
"""Most calls in one pool, waiting or running. Further ones are refused at once."""

_Value = TypeVar("_Value")


class _Queue:
    """A thread pool with a bounded number of calls."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self._queued = 0

    async def run(self, call: Callable[..., _Value], *args: Any) -> _Value:
        if self._queued >= _QUEUED_MAX:
            raise Refused(503, "busy", "too many requests at once: try again")
        self._queued += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
        future.add_done_callback(self._done)  # even if the client has gone
        return await future

    def _done(self, _: object) -> None:
        self._queued -= 1

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)  # a running call completes: a redrive and its record


class ThreadPools:
    """The thread pools of the application: one for quick calls, one for slow calls."""

    def __init__(self) -> None:
        self._quick = _Queue("serve-quick")
        self._slow = _Queue("serve-slow")

    async def quick(self, call: Callable[..., _Value], *args: Any) -> _Value:
        """Runs a call that takes one or two round trips.

        Raises:
            Refused: too many calls wait.
        """
        return await self._quick.run(call, *args)

    async def slow(self, call: Callable[..., _Value], *args: Any) -> _Value:
        """Runs a call that may take seconds.

        Raises:
            Refused: too many calls wait.
        """
        return await self._slow.run(call, *args)

    @asynccontextmanager
    async def every(self, seconds: float, call: Callable[[], object]) -> AsyncIterator[None]:
        """Repeats a quick call every `seconds` until the block ends; then ends the threads."""

        async def again() -> None:
            while True:
                with suppress(redis.RedisError, ContactSyncError, Refused):  # a client that asks gets the error itself
                    await self.quick(call)
                await asyncio.sleep(seconds)

        task = asyncio.create_task(again())
        try:
            yield
        finally:
            task.cancel()
            self._quick.close()
            self._slow.close()
