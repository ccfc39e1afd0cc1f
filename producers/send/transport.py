"""One round trip with Redis: writes many packed commands, then reads their replies, and never repeats any.

redis-py's pipelines do not report the replies that came before a failure, and its clients repeat commands by
themselves: an XADD whose reply was lost would be appended twice. Connections from its pool do neither.
"""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.nodes.connect import async_pool_options, pool_options
from producers.send.report import Replies, is_demoted

SOCKET_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 2.0

_OPTIONS: Final[dict[str, Any]] = {
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "decode_responses": False,
    # Version 2 is enough; with version 3 Redis may push messages of its own between the replies.
    "protocol": 2,
}

# Replies to one command, which Redis did not carry out. redis-py counts the last two as connection errors.
_REFUSALS: Final = (redis.ResponseError, redis.BusyLoadingError, redis.AuthenticationError)


def connect(url: str, timeout_seconds: float | None = None) -> redis.Redis:
    """Returns a client that waits a bounded time and never repeats a command. It connects at first use.

    Args:
        url: of Redis.
        timeout_seconds: longest wait, to connect and for each reply; None for the usual timeouts.
    """
    shorter = (
        {} if timeout_seconds is None else dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout_seconds)
    )
    options = pool_options(url, retry=Retry(NoBackoff(), 0), **{**_OPTIONS, **shorter})
    return redis.Redis.from_pool(redis.ConnectionPool(**options))


def connect_async(url: str) -> redis.asyncio.Redis:
    """``connect`` for asyncio."""
    options = async_pool_options(url, retry=AsyncRetry(NoBackoff(), 0), **_OPTIONS)
    return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(**options))


def exchange(client: redis.Redis, commands: bytes, count: int) -> Replies:
    """Writes ``count`` packed commands over one connection, then reads as many replies."""
    pool: Any = client.connection_pool  # Any, because redis-py does not type connections
    try:
        connection = pool.get_connection()
    except (redis.RedisError, OSError) as error:
        return Replies([], error, written=False)
    replies: list[Any] = []
    demoted = False
    try:
        connection.send_packed_command((commands,), check_health=False)
        while len(replies) < count:
            try:
                # A refusal must not end the connection: the replies after it are still to be read.
                replies.append(connection.read_response(disconnect_on_error=False))
            except _REFUSALS as refusal:
                replies.append(refusal)
                demoted = demoted or is_demoted(refusal)
    except (redis.RedisError, OSError) as error:
        return Replies(replies, error)
    finally:
        # Unread replies would be taken for those of the next caller's commands.
        if len(replies) < count:
            connection.disconnect()
        pool.release(connection)
    if demoted:
        pool.disconnect(inuse_connections=False)
    return Replies(replies)


async def exchange_async(client: redis.asyncio.Redis, commands: bytes, count: int) -> Replies:
    """``exchange`` for asyncio."""
    pool: Any = client.connection_pool
    try:
        connection = await pool.get_connection()
    except (redis.RedisError, OSError) as error:
        return Replies([], error, written=False)
    replies: list[Any] = []
    demoted = False
    try:
        await connection.send_packed_command((commands,), check_health=False)
        while len(replies) < count:
            try:
                replies.append(await connection.read_response(disconnect_on_error=False))
            except _REFUSALS as refusal:
                replies.append(refusal)
                demoted = demoted or is_demoted(refusal)
    except (redis.RedisError, OSError) as error:
        return Replies(replies, error)
    finally:
        if len(replies) < count:
            await connection.disconnect(nowait=True)
        await pool.release(connection)
    if demoted:
        await pool.disconnect(inuse_connections=False)
    return Replies(replies)
