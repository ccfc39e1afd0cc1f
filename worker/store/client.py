"""Connections to the Redis that holds the event log and all state.

redis-py retries ten times and waits five seconds by default: a black-holed command took a minute, longer than any
lease. Here each client says how long it waits, and nothing is retried behind the caller's back.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEASE_PATH_SECONDS: Final = 2.0
"""Longest that a command of the lease path may take: far below any lease."""


_READ_BYTES: Final = 1 << 20
"""Most bytes taken from the socket at once: after each such step a thread waits for its turn among the others."""


_pack: Callable[[Sequence[Any]], bytes] = pack_command  # type: ignore[assignment] # its stub means one word


def _raw(reply: Any, **_options: Any) -> Any:
    return reply


def command(client: redis.Redis, *args: Any) -> Any:
    """Runs one command as it stands, or queues it in a pipeline; its reply is what the client's callbacks give."""
    return client.execute_command(*args)  # type: ignore[no-untyped-call] # redis-py leaves it untyped


class LogClient(redis.Redis):
    """A client whose round trips of many commands cost what their bytes cost."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._of_thread = threading.local()

    def round_trip(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Carries out commands in one round trip, and gives their replies as Redis sent them, errors among them.

        redis-py's pipeline does the same with a dozen calls a command, which took a fifth of a worker's time.

        Raises:
            redis.ConnectionError, redis.TimeoutError: the connection failed; what was sent may have happened, or not.
        """
        connection = self._own_connection()
        replies: list[Any] = []
        try:
            connection.send_packed_command((b"".join(map(_pack, commands)),), check_health=False)
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as error:
                    replies.append(error)
        finally:
            if len(replies) < len(commands):
                connection.disconnect()  # replies left behind would answer the next commands
        return replies

    def _own_connection(self) -> Any:  # Any, because redis-py leaves the types of connections open
        """This thread's connection, taken from the pool once; it is opened anew where the server has closed it."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is None:
            pool: Any = self.connection_pool
            connection = self._of_thread.connection = pool.get_connection()
        elif connection.is_connected:
            try:
                closed = connection.can_read(timeout=0)  # nothing was asked, so nothing but its end can be there
            except redis.RedisError:
                closed = True
            if closed:
                connection.disconnect()
        return connection


def round_trip(client: redis.Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """`LogClient.round_trip`, of any client."""
    if isinstance(client, LogClient):
        return client.round_trip(commands) if commands else []
    pipe = client.pipeline(transaction=False)
    for each in commands:
        command(pipe, *each)
    return list(pipe.execute(raise_on_error=False))


def connect(url: str, *, timeout_seconds: float = LEASE_PATH_SECONDS) -> LogClient:
    """A client that answers in bytes, with stream replies as Redis gives them.

    Args:
        url: CONTACT_SYNC_REDIS_URL.
        timeout_seconds: longest that connecting, and each reply, may take.
    """
    client: LogClient = LogClient.from_url(  # type: ignore[assignment] # redis-py types it as its own class
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,  # one shape of replies, whatever the server prefers
        client_name="contact-sync",
        socket_read_size=_READ_BYTES,
    )
    for command in ("XRANGE", "XREAD"):
        client.set_response_callback(command, _raw)
    return client
