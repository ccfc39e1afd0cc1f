"""Recognizes what Redis refuses for good, as opposed to a Redis that is away, full, loading or not a primary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.exceptions import ClusterCrossSlotError, NoPermissionError

from producers.nodes.credentials import BadCredentialsError
from producers.nodes.trip import NotAClusterError
from worker.store.replies import is_wrong_type

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST_REDIS: Final = (6, 2)
"""The first version with XTRIM MINID."""

_CLUSTER: Final = "it is a node of a Redis Cluster: use a redis+cluster:// URL"

_COMMAND: Final = re.compile(
    r"(?:run the '(?P<refused>[a-z_|]{1,30})' command|unknown command [`']?(?P<unknown>\w{1,30}))", re.IGNORECASE
)
"""The command in the words of an error. The rest of them may hold arguments, and so ids."""


_UNKNOWN: Final = re.compile(r"unknown (redis )?command", re.IGNORECASE)


def is_unknown_command(error: redis.RedisError) -> bool:
    """Whether the server does not have the command, or not under its name."""
    return isinstance(error, redis.ResponseError) and _UNKNOWN.search(str(error)) is not None


_TLS: Final = re.compile(r"\[SSL: (?P<reason>[A-Z0-9_]{1,60})\]")
"""OpenSSL's name for what went wrong, in the words of an error. The rest of them may hold what no log should."""


def away_words(error: BaseException) -> str:
    """Says how a server is away, without ids or secrets; with what TLS says: then it answers, and somebody must act."""
    tls = _TLS.search(f"{error} {error.__cause__}")
    return type(error).__name__ + (f", TLS: {tls['reason']}" if tls else "")


def refusal(error: BaseException | None) -> str | None:
    """Says what Redis refuses, without ids or secrets; None if what it answers may pass."""
    words = str(error)
    named = _COMMAND.search(words)
    if isinstance(error, redis.AuthenticationError):
        return words if isinstance(error, BadCredentialsError) else "it refuses the user or password"
    # MOVED and ASK are not refusals: while slots of a cluster move, they may be all that is left of an answer.
    if isinstance(error, ClusterCrossSlotError | NotAClusterError):
        return words if isinstance(error, NotAClusterError) else _CLUSTER
    if isinstance(error, NoPermissionError) or (isinstance(error, redis.ResponseError) and "permission" in words):
        return (
            f"its access rules refuse {named['refused'].upper()}"
            if named
            else "its access rules refuse a key or command"
        )
    if is_wrong_type(error):
        return "one of the keys has the wrong type: something else wrote it"
    if isinstance(error, redis.RedisError) and is_unknown_command(error):
        return "it does not have the command" + (f" {named['unknown'].upper()}" if named and named["unknown"] else "")
    return None


def server_fault(info: Mapping[str, Any], *, node: bool = False) -> str | None:
    """Says why a worker cannot use this server; None if it can.

    Args:
        info: its reply to INFO, section `server` at least.
        node: whether the URL is that of a cluster, and the server one of its nodes.
    """
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        return f"its version is {version}; it must be {oldest} or newer"
    return None if node else cluster_fault(info)


def cluster_fault(info: Mapping[str, Any]) -> str | None:
    """Says that this server is a node of a cluster; None if it is not."""
    # Valkey 9 calls it `server_mode`.
    return _CLUSTER if "cluster" in {info.get("redis_mode"), info.get("server_mode")} else None
