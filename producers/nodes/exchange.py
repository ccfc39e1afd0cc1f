"""One round trip with one server: writes many packed commands, then reads their replies, and never repeats any.

redis-py's pipelines do not report the replies that came before a failure, and its clients repeat commands by
themselves: an XADD whose reply was lost would be appended twice. Connections from its pool do neither.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis
import redis.asyncio
import redis.exceptions

from producers.contract.query import UNREADABLE, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOVED_AFTER: Final = 0.1  # of the longest wait for a reply

_DEMOTED: Final = ("READONLY", "MASTERDOWN")

# Replies to one command, which Redis did not carry out. redis-py counts the last two as connection errors.
REFUSALS: Final = (redis.ResponseError, redis.BusyLoadingError, redis.AuthenticationError)


def is_demoted(reply: object) -> bool:
    """Tells if the reply says that this server is not a primary, or no longer one.

    It keeps its connections and answers like that forever. So whoever hears it closes them: the next connection asks
    again which address the name of the server has.
    """
    return isinstance(reply, redis.ReadOnlyError | redis.exceptions.MasterDownError) or (
        isinstance(reply, Exception) and str(reply).startswith(_DEMOTED)
    )


class Answer(NamedTuple):
    """What came back of one round trip.

    Attributes:
        replies: to the first commands, in order: what Redis replied, or the error that it replied with.
        broken: the error that ended the trip before all replies came, if there was one.
        written: whether any byte of the commands may have reached Redis.
    """

    replies: list[Any]
    broken: Exception | None = None
    written: bool = True


class Started(NamedTuple):
    """A round trip whose commands are written. `finish` must be called with it, whatever happens meanwhile."""

    pool: Any  # Any, because redis-py does not type connections
    connection: Any
    failed: Answer | None


def pack(words: Iterable[str | bytes | int | float]) -> bytes:
    """Returns one command in the protocol of Redis."""
    texts = [each if isinstance(each, bytes) else str(each).encode() for each in words]
    return b"*%d\r\n%b" % (len(texts), b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in texts]))


def without_arguments(refusal: redis.RedisError) -> redis.RedisError:
    """The refusal without the arguments of a command: a server that does not know it repeats them, ids included."""
    words, repeats, _ = str(refusal).partition(", with args beginning with")
    return redis.ResponseError(words) if repeats else refusal


def start(client: redis.Redis, parts: Iterable[bytes]) -> Started:
    """Writes packed commands over one connection, each part as soon as there is one."""
    pool: Any = client.connection_pool
    try:
        connection = pool.get_connection()
    except (redis.RedisError, OSError) as error:
        return Started(pool, None, Answer([], error, written=False))
    try:
        connection.send_packed_command(parts, check_health=False)
    except (redis.RedisError, OSError) as error:
        connection.disconnect()
        pool.release(connection)
        return Started(pool, None, Answer([], error))
    except BaseException:
        connection.disconnect()
        pool.release(connection)
        raise
    return Started(pool, connection, None)


def finish(started: Started, count: int) -> Answer:
    """Reads as many replies."""
    pool, connection, failed = started
    if failed is not None:
        return failed
    replies: list[Any] = []
    demoted = False
    try:
        while len(replies) < count:
            try:
                # A refusal must not end the connection: the replies after it are still to be read.
                replies.append(connection.read_response(disconnect_on_error=False))
            except REFUSALS as refusal:
                replies.append(without_arguments(refusal))
                demoted = demoted or is_demoted(refusal)
    except (redis.RedisError, OSError) as error:
        return Answer(replies, error)
    except UNREADABLE as error:
        return Answer(replies, unreadable(error))
    finally:
        # Unread replies would be taken for those of the next caller's commands.
        if len(replies) < count:
            connection.disconnect()
        pool.release(connection)
    if demoted:
        pool.disconnect(inuse_connections=False)
    return Answer(replies)


async def exchange_async(client: redis.asyncio.Redis, commands: bytes, count: int) -> Answer:
    """``start`` and ``finish`` for asyncio."""
    pool: Any = client.connection_pool
    try:
        connection = await pool.get_connection()
    except (redis.RedisError, OSError) as error:
        return Answer([], error, written=False)
    replies: list[Any] = []
    demoted = False
    seconds, clock = connection.socket_timeout, asyncio.get_running_loop().time
    try:
        await connection.send_packed_command((commands,), check_health=False)
        # One timer for many replies, moved on now and then: redis-py's own, a new one for each, takes most of the time.
        connection.socket_timeout = None
        async with asyncio.timeout(seconds) as limit:
            moved = clock()
            while len(replies) < count:
                try:
                    replies.append(await connection.read_response(disconnect_on_error=False))
                except REFUSALS as refusal:
                    replies.append(without_arguments(refusal))
                    demoted = demoted or is_demoted(refusal)
                if seconds is not None and clock() - moved > seconds * _MOVED_AFTER:
                    moved = clock()
                    limit.reschedule(moved + seconds)
    except TimeoutError:
        return Answer(replies, redis.TimeoutError(f"no reply within {seconds:g} seconds"))
    except (redis.RedisError, OSError) as error:
        return Answer(replies, error)
    except UNREADABLE as error:
        return Answer(replies, unreadable(error))
    finally:
        connection.socket_timeout = seconds
        if len(replies) < count:
            await connection.disconnect(nowait=True)
        await pool.release(connection)
    if demoted:
        await pool.disconnect(inuse_connections=False)
    return Answer(replies)
