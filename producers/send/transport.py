"""The producers' connections to Redis, and how a chunk is appended over them."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.nodes.cluster import AsyncClusterClient, ClusterClient
from producers.nodes.connect import (
    async_cluster_client,
    async_pool_options,
    cluster_client,
    is_cluster,
    pool_options,
)
from producers.nodes.credentials import credentials_options
from producers.nodes.exchange import exchange_async, finish, start
from producers.nodes.pool import QuickPool, waiting_pool
from producers.nodes.replicas import ReplicaCount, with_wait
from producers.nodes.trip import wait_command
from producers.send.report import Replies

if TYPE_CHECKING:
    from collections.abc import Iterable

    from producers.nodes.trip import Replicas
    from producers.send.chunk import Chunk, XaddEncoder

SOCKET_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 2.0

_UNBOUNDED: Final = 2**31
"""Each thread that sends has a connection. By default redis-py refuses the 101st, as if Redis were away."""

_OPTIONS: Final[dict[str, Any]] = {
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "decode_responses": False,
    # Version 2 is enough; with version 3 Redis may push messages of its own between the replies.
    "protocol": 2,
}


def connect(url: str, timeout_seconds: float | None = None, credentials: str | None = None) -> redis.Redis:
    """Returns a client that waits a bounded time and never repeats a command. It connects at first use.

    Args:
        url: of Redis.
        timeout_seconds: longest wait, to connect and for each reply; None for the usual timeouts.
        credentials: CONTACT_SYNC_REDIS_CREDENTIALS.

    Raises:
        SettingsError: there is no such function.
    """
    shorter = (
        {} if timeout_seconds is None else dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout_seconds)
    )
    given = {"retry": Retry(NoBackoff(), 0), **_OPTIONS, **shorter, **credentials_options(credentials)}
    given["max_connections"] = _UNBOUNDED
    if is_cluster(url):
        return cluster_client(url, **given)
    options = pool_options(url, **given)
    return redis.Redis.from_pool(QuickPool(**options))


def connect_async(url: str, credentials: str | None = None) -> redis.asyncio.Redis | AsyncClusterClient:
    """``connect`` for asyncio."""
    given = {"retry": AsyncRetry(NoBackoff(), 0), **_OPTIONS, **credentials_options(credentials)}
    if is_cluster(url):
        return async_cluster_client(url, **given)
    options = async_pool_options(url, **given)
    return redis.asyncio.Redis.from_pool(waiting_pool(SOCKET_TIMEOUT_SECONDS, **options))


class Appender:
    """Appends chunks over a client, each in one round trip.

    Args:
        wait: how many replicas must have a change, so that it counts as accepted.
    """

    def __init__(self, wait: Replicas) -> None:
        self._wait = wait
        self._replicas = ReplicaCount()

    def append(self, client: redis.Redis, encoder: XaddEncoder, chunk: Chunk) -> Replies:
        """Appends a chunk, with whichever nodes it takes."""
        try:
            if _is_of_cluster(client):
                return Replies(client.exchange(encoder.commands(chunk), encoder.slots(chunk), self._wait))
            if not self._wait:
                return exchange(client, encoder.parts(chunk), len(chunk))
            if self._wait == "all" and self._replicas.due():
                self._replicas.note(client.info("replication"))
        except redis.RedisError as error:
            return Replies([], error, written=False)
        parts = chain(encoder.parts(chunk), (wait_command(self._wanted),))
        answer = finish(start(client, parts), len(chunk) + 1)
        return Replies(*with_wait(answer, len(chunk), self._wanted))

    async def append_async(
        self, client: redis.asyncio.Redis | AsyncClusterClient, encoder: XaddEncoder, chunk: Chunk
    ) -> Replies:
        """``append`` for asyncio."""
        try:
            if isinstance(client, AsyncClusterClient):
                return Replies(await client.exchange(encoder.commands(chunk), encoder.slots(chunk), self._wait))
            if not self._wait:
                return Replies(*await exchange_async(client, encoder.pack(chunk), len(chunk)))
            if self._wait == "all" and self._replicas.due():
                self._replicas.note(await client.info("replication"))
        except redis.RedisError as error:
            return Replies([], error, written=False)
        answer = await exchange_async(client, encoder.pack(chunk) + wait_command(self._wanted), len(chunk) + 1)
        return Replies(*with_wait(answer, len(chunk), self._wanted))

    @property
    def _wanted(self) -> int:
        return self._replicas.number if self._wait == "all" else self._wait


def _is_of_cluster(client: redis.Redis) -> TypeGuard[ClusterClient]:
    return _is_cluster_client(type(client))


@cache  # for isinstance takes long with redis-py's clients: their base classes are protocols
def _is_cluster_client(kind: type) -> bool:
    return issubclass(kind, ClusterClient)


def exchange(client: redis.Redis, parts: Iterable[bytes], count: int) -> Replies:
    """Writes ``count`` packed commands over one connection, in parts, then reads as many replies."""
    return Replies(*finish(start(client, parts), count))
