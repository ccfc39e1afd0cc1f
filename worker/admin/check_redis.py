"""Checks the log's Redis: version, eviction policy, persistence, clock, and permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis

from producers.contract.change import AT_AHEAD_MS
from producers.settings import variable_of
from worker.admin.finding import Finding
from worker.core.numbers import many
from worker.store.client import command
from worker.store.permissions import refused_commands, refused_words
from worker.store.refusal import server_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from producers.contract.keys import Keys
    from producers.nodes.trip import Replicas

_SKEW_SECONDS: Final = 5.0  # a larger difference between two clocks is not network delay


def check_server(info: Mapping[str, Any], url: str, *, node: bool = False) -> Iterator[Finding]:
    """Checks that workers can use this server, or node of a cluster, and that a full Redis drops nothing."""
    fault, version = server_fault(info, node=node), info.get("redis_version", "0")
    yield Finding("redis", "wrong" if fault else "ok", f"{url}: {fault}" if fault else f"{url}, version {version}")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("eviction", "ok", "noeviction: a full Redis refuses new changes and drops none")
    else:
        yield Finding("eviction", "wrong", f"maxmemory-policy {policy} silently drops changes: set it to noeviction")


def check_replicas(info: Mapping[str, Any], address: str, wait: Replicas) -> Iterator[Finding]:
    """Checks that a server has the replicas that are waited for, if any are (`all`: at least one)."""
    if not wait:
        return
    follow, wanted = int(info.get("connected_slaves", 0)), 1 if wait == "all" else wait
    said, name = f"{address} has {many(follow, 'replica')}", variable_of("wait_replicas")
    if follow >= wanted:
        yield Finding("replicas", "ok", said)
    else:
        yield Finding("replicas", "wrong", f"{said}, but {name} is {wait}: no change counts as accepted there")


def check_permissions(client: redis.Redis, keys: Keys) -> Finding:
    """Checks that the ACL allows a worker everything it needs on the namespace's keys.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    try:
        refused = refused_commands(client, keys)
    except redis.ResponseError as error:  # a server that resembles Redis but lacks this
        return Finding("permissions", "warn", f"the server cannot say: {error}")
    if not refused:
        return Finding("permissions", "ok", f"every command that the keys {keys.namespace}:* need is allowed")
    return Finding("permissions", "wrong", refused_words(refused, keys))


def check_persistence(info: Mapping[str, Any], appendfsync: str | None, save: str | None) -> Finding:
    """Says which changes a crash of Redis may lose."""
    if info.get("aof_enabled"):
        match appendfsync:
            case "always":
                return Finding(
                    "persistence",
                    "ok",
                    "append-only file, synced on every write: a crash loses nothing that was accepted",
                )
            case "everysec":
                return Finding(
                    "persistence", "ok", "append-only file, synced every second: a crash may lose the last second"
                )
            case _:
                how = appendfsync or "in a way that the server does not tell"
                return Finding(
                    "persistence", "warn", f"append-only file, synced {how}: a crash may lose what was not synced yet"
                )
    if save is None:
        return Finding("persistence", "warn", "no append-only file; the server does not tell if it takes snapshots")
    if save:
        return Finding("persistence", "warn", "snapshots only: a crash loses all changes since the last one")
    return Finding("persistence", "warn", "none: a restart of Redis loses everything that is waiting")


# Asked first: a refused command appears in Redis' own ACL log, which somebody may watch.
_MAY_NOT_CONFIG = "return redis.acl_check_cmd and not redis.acl_check_cmd('config', 'get', 'save') and 1 or 0"


def directive(client: redis.Redis, name: str) -> str | None:
    """The value of a directive; None if the server does not tell, as hosted ones often do not."""
    try:
        if command(client, "EVAL", _MAY_NOT_CONFIG, 0):
            return None
        found: Any = client.config_get(name)
    except redis.ResponseError:
        return None
    value = found.get(name)
    return None if value is None else str(value)


def check_clock(client: redis.Redis, epoch: Callable[[], float]) -> Finding:
    """Compares this machine's clock, which stamps changes, with Redis' clock, which the rules use."""
    reply: Any = client.time()
    ahead = epoch() - (int(reply[0]) + int(reply[1]) / 1e6)
    if ahead * 1000 > AT_AHEAD_MS:
        rule = "a change stamped here would be refused (at_out_of_range)"
        return Finding("clock", "wrong", f"this machine's is {ahead:.0f} s ahead of Redis': {rule}")
    if abs(ahead) > _SKEW_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        return Finding(
            "clock", "warn", f"this machine's is {abs(ahead):.0f} s {side} Redis': changes may be ordered wrongly"
        )
    return Finding("clock", "ok", "this machine's agrees with Redis'")
