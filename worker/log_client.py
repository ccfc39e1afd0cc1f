"""Connections to the Redis that holds the event log and all state.

redis-py retries ten times and waits five seconds by default: a black-holed command took a minute, longer than any
lease. Here each client says how long it waits, and nothing is retried behind the caller's back.
"""

from __future__ import annotations

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LEASE_PATH_SECONDS: Final = 2.0
"""Longest that a command of the lease path may take: far below any lease."""


def _raw(reply: Any, **_options: Any) -> Any:
    return reply


def command(client: redis.Redis, *args: Any) -> Any:
    """Runs one command as it stands, or queues it in a pipeline; its reply is what the client's callbacks give."""
    return client.execute_command(*args)  # type: ignore[no-untyped-call] # redis-py leaves it untyped


def connect(url: str, *, timeout_seconds: float = LEASE_PATH_SECONDS) -> redis.Redis:
    """A client that answers in bytes, with stream replies as Redis gives them.

    Args:
        url: CONTACT_SYNC_REDIS_URL.
        timeout_seconds: longest that connecting, and each reply, may take.
    """
    client = redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,  # one shape of replies, whatever the server prefers
        client_name="contact-sync",
    )
    for command in ("XRANGE", "XREAD"):
        client.set_response_callback(command, _raw)
    return client
