"""Connections to the Redis that holds the event log and all state.

By default redis-py retries ten times and waits five seconds each: a command to a black hole took a minute, longer than
any lease. Here each client has its own timeout, and nothing is retried without the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ExecAbortError
from redis.retry import Retry

from producers.contract.query import UNREADABLE, unreadable
from producers.nodes.cluster import ClusterClient
from producers.nodes.connect import cluster_client, is_cluster, pool_options
from producers.nodes.credentials import credentials_options
from producers.nodes.exchange import Answer, is_demoted
from producers.nodes.pool import QuickPool
from producers.nodes.replicas import ReplicaCount, with_wait
from producers.nodes.trip import WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from producers.nodes.trip import Replicas
    from producers.nodes.url import Address

_Item = TypeVar("_Item")

LEASE_PATH_SECONDS: Final = 2.0
"""Longest time that a command of the lease path may take: far below any lease."""


ARGUMENTS_MAX: Final = 3_999
"""Most words of one request, its command included: hosted services refuse longer ones."""


CONNECTIONS_MAX: Final = 1_000
"""Most connections to one server, well above the runs of a process. By default the 101st is refused, as if Redis were
away: when a Redis that stood still goes on, all runs of a process ask it at once."""

_READ_BYTES: Final = 1 << 20
"""Most bytes read from the socket at once: after each read a thread waits for its turn among the others."""


_pack: Callable[[Sequence[Any]], bytes] = pack_command  # type: ignore[assignment] # its stub means one word


def _raw(reply: Any, **_options: Any) -> Any:
    return reply


def command(client: redis.Redis, *args: Any) -> Any:
    """Runs one command, or queues it in a pipeline; the client's callbacks convert its reply."""
    return client.execute_command(*args)  # type: ignore[no-untyped-call] # redis-py leaves it untyped


class LogClient(redis.Redis):
    """A client that sends many commands in one round trip at little more than the cost of their bytes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._replicas = ReplicaCount()

    def round_trip(self, commands: Sequence[Sequence[Any]], wait: Replicas = 0) -> list[Any]:
        """Runs commands in one round trip; returns their replies as Redis sent them, errors included.

        redis-py's pipeline does the same with a dozen calls for each command, which took a fifth of a worker's time.

        Args:
            commands: what to run.
            wait: how many replicas must have what they write; what too few have is NotReplicatedError.

        Raises:
            redis.ConnectionError, redis.TimeoutError: the connection failed; it is not certain what was done.
        """
        if wait:
            wanted = _wanted(self, wait, self._replicas)
            answer = Answer(self.round_trip([*commands, _wait(wanted)]))
            return with_wait(answer, len(commands), wanted).replies
        try:
            return self._exchange(commands)
        except UNREADABLE as error:
            raise unreadable(error) from None

    def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        pool: Any = self.connection_pool  # Any, because redis-py leaves the types of connections open
        connection = pool.get_connection()
        replies: list[Any] = []
        demoted = False
        try:
            connection.send_packed_command((b"".join(map(_pack, commands)),), check_health=False)
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as error:
                    replies.append(error)
                    demoted = demoted or is_demoted(error)
        finally:
            if demoted or len(replies) < len(commands):
                connection.disconnect()  # unread replies would answer the next commands
            pool.release(connection)
        return replies

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs one command; the connections to a server that is no longer a primary are closed."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        except redis.ResponseError as error:
            if is_demoted(error):
                self.connection_pool.disconnect(inuse_connections=False)
            raise
        except UNREADABLE as error:
            raise unreadable(error) from None


def read_together(client: redis.Redis, queue: Callable[[Any], None]) -> list[Any]:
    """Reads in one transaction, so that the replies fit together; returns them, errors included.

    A full Redis 7.0 refuses every command of a transaction, reading ones too. Then the commands run one after another,
    in their order, and what workers do meanwhile shows in the later replies only.

    Args:
        client: to read from.
        queue: queues the commands, which must only read, in the pipeline that it is given.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    pipe = client.pipeline(transaction=True)
    queue(pipe)
    try:
        return list(pipe.execute(raise_on_error=False))
    except redis.exceptions.OutOfMemoryError:
        pipe = client.pipeline(transaction=False)
        queue(pipe)
        return list(pipe.execute(raise_on_error=False))


def round_trip(client: redis.Redis, commands: Sequence[Sequence[Any]], wait: Replicas = 0) -> list[Any]:
    """`LogClient.round_trip` for any client."""
    if not commands:
        return []
    trip: Callable[..., list[Any]] | None = getattr(client, "round_trip", None)
    if trip is not None:
        return trip(commands, wait)
    wanted = _wanted(client, wait)
    pipe = client.pipeline(transaction=False)
    for each in (*commands, _wait(wanted)) if wanted else commands:
        command(pipe, *each)
    replies = list(pipe.execute(raise_on_error=False))
    return with_wait(Answer(replies), len(commands), wanted).replies if wanted else replies


def transaction(client: redis.Redis, commands: Sequence[Sequence[Any]], wait: Replicas = 0) -> list[Any]:
    """Runs commands on keys of one slot in one transaction; returns their replies, errors included.

    Raises:
        redis.RedisError: the transaction was refused, or too few replicas have it.
    """
    if isinstance(client, ClusterClient):
        return client.transactions(commands, wait)
    *queued, done = round_trip(client, [("MULTI",), *commands, ("EXEC",)], wait)
    if isinstance(done, ExecAbortError):
        raise next((each for each in queued if isinstance(each, Exception)), done)
    if isinstance(done, Exception):
        raise done
    return list(done)


def _wanted(client: redis.Redis, wait: Replicas, replicas: ReplicaCount | None = None) -> int:
    """How many replicas are meant."""
    if wait != "all":
        return wait
    replicas = ReplicaCount() if replicas is None else replicas
    replicas.note(client.info("replication"))
    return replicas.number


def _wait(wanted: int) -> tuple[str, int, int]:
    """The command that waits for replicas, on the connection that wrote: on another one it waits for nothing."""
    return ("WAIT", wanted, int(WAIT_SECONDS * 1000))


def in_parts(head: Sequence[Any], items: Sequence[_Item]) -> Iterator[tuple[Any, ...]]:
    """Yields commands that begin alike and together name all items, none longer than a request may be."""
    most = ARGUMENTS_MAX - len(head)
    for first in range(0, len(items), most):
        yield (*head, *items[first : first + most])


def node_of(client: redis.Redis, partition: int) -> Address | None:
    """Which node of a cluster serves a partition, None if none is known; None for one server, too."""
    return client.nodes.slots.node_of(key_slot(b"%d" % partition)) if isinstance(client, ClusterClient) else None


def connect(
    url: str, credentials: str | None = None, *, timeout_seconds: float = LEASE_PATH_SECONDS
) -> LogClient | ClusterClient:
    """Makes a client whose replies are bytes, and whose stream replies are as Redis sends them.

    Args:
        url: CONTACT_SYNC_REDIS_URL.
        credentials: CONTACT_SYNC_REDIS_CREDENTIALS.
        timeout_seconds: longest time for connecting, and for each reply.

    Raises:
        SettingsError: there is no such function.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,  # replies have one form, whatever the server prefers
        "client_name": "contact-sync",
        "socket_read_size": _READ_BYTES,
        "max_connections": CONNECTIONS_MAX,
        **credentials_options(credentials),
    }
    client: LogClient | ClusterClient
    if is_cluster(url):
        client = cluster_client(url, _pack, **options)
    else:
        client = LogClient.from_pool(QuickPool(**pool_options(url, **options)))  # type: ignore[assignment] # redis-py types it as its own class
    for command in ("XRANGE", "XREAD"):
        client.set_response_callback(command, _raw)
    return client
