"""Pools of connections: one that takes less time to give one than a round trip, and one whose users wait for one."""

from __future__ import annotations

import os
from typing import Any, Final

import redis
import redis.asyncio
from redis.connection import ConnectionPool

ASYNC_CONNECTIONS_MAX: Final = 100
"""Most connections of a producer for asyncio to one server, however many tasks send at once."""


class QuickPool(ConnectionPool):
    """redis-py's pool, with connections at hand: to take one and put it back costs a quarter of the time.

    It skips what redis-py does each time beside checking the connection: its lock, events and metrics. So in the counts
    of redis-py a connection at hand is still in use. Threads may share it; so may both sides of a fork.
    """

    def __init__(self, **options: Any) -> None:
        self._at_hand: list[Any] = []  # Any, because redis-py does not type connections
        super().__init__(**options)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Returns a connection that is connected, and on which nothing waits to be read.

        Raises:
            redis.RedisError: Redis cannot be reached, or refuses.
        """
        if self.pid != os.getpid():
            self._at_hand.clear()  # the sockets are the parent's
        try:
            connection = self._at_hand.pop()
        except IndexError:
            return super().get_connection()
        try:
            connection.connect()
            usable = not _is_readable(connection)
        except BaseException:
            super().release(connection)
            raise
        if usable:
            return connection
        connection.disconnect()
        super().release(connection)  # and taken from there again, which connects it anew
        return super().get_connection()

    def release(self, connection: Any) -> None:
        """Takes a connection back."""
        if connection.should_reconnect():
            super().release(connection)
        else:
            self._at_hand.append(connection)

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Closes connections: those that nobody uses, or all."""
        while self._at_hand:
            try:
                super().release(self._at_hand.pop())
            except IndexError:  # another thread took it
                break
        super().disconnect(inuse_connections)


def waiting_pool(wait_seconds: float, **options: Any) -> redis.asyncio.BlockingConnectionPool:
    """A pool for asyncio in which a task waits for a connection; redis-py's usual one refuses it when all are in use.

    Args:
        wait_seconds: longest wait; then it is a redis.ConnectionError.
        options: of the pool and its connections.
    """
    return redis.asyncio.BlockingConnectionPool(
        **{"max_connections": ASYNC_CONNECTIONS_MAX, "timeout": wait_seconds, **options}
    )


def _is_readable(connection: Any) -> bool:
    try:
        readable: bool = connection.can_read(timeout=0)
    except redis.RedisError:
        return True  # it was closed at the other end
    return readable
