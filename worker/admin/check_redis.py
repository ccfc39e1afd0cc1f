"""Checks the log's Redis: version, eviction policy, persistence, clock, and permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
from redis.exceptions import NoPermissionError

from producers.contract.change import AT_AHEAD_MS
from worker.admin.finding import Finding
from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from producers.contract.keys import Keys

OLDEST_REDIS: Final = (6, 2)
"""The first version with XTRIM MINID."""

_SKEW_SECONDS: Final = 5.0  # a larger difference between two clocks is not network delay

USED_COMMANDS: Final = (
    *("del", "exists", "get", "hdel", "hexists", "hget", "hgetall", "hincrby", "hlen", "hmget", "hscan", "hset"),
    *(
        "hsetnx",
        "hvals",
        "mget",
        "pexpire",
        "set",
        "type",
        "unlink",
        "xadd",
        "xdel",
        "xlen",
        "xrange",
        "xrevrange",
        "xtrim",
    ),
)
"""The commands that workers and producers run on a key, directly or in a script."""

_KEYLESS: Final = ("exec", "info", "multi", "time")

# It only asks, so it needs none of the permissions that it asks about. Redis has this since version 7.
_MAY = """
if not redis.acl_check_cmd then return {} end
local refused = {}
local function ask(name, ...)
  if not redis.acl_check_cmd(name, ...) then refused[#refused + 1] = name end
end
for i = 1, tonumber(ARGV[1]) do ask(ARGV[i + 1], KEYS[1]) end
for i = tonumber(ARGV[1]) + 2, #ARGV do ask(ARGV[i]) end
ask('evalsha', '', '0')  -- with its number of keys: Valkey 9.1.2 looks for it unasked, and crashes without
ask('rename', KEYS[1], KEYS[1])
ask('script', 'load', '')
ask('xread', 'streams', KEYS[1], '0')
return refused
"""


def check_server(info: Mapping[str, Any], url: str) -> Iterator[Finding]:
    """Checks the version, and that a full Redis drops nothing."""
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    old = numbers < OLDEST_REDIS
    yield Finding(
        "redis", "wrong" if old else "ok", f"{url}, version {version}" + (": must be 6.2 or newer" if old else "")
    )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("eviction", "ok", "noeviction: a full Redis refuses new changes and drops none")
    else:
        yield Finding("eviction", "wrong", f"maxmemory-policy {policy} silently drops changes: set it to noeviction")


def check_permissions(client: redis.Redis, keys: Keys) -> Finding:
    """Checks that the ACL allows a worker everything it needs on the namespace's keys.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    args = [len(USED_COMMANDS), *USED_COMMANDS, *_KEYLESS]
    try:
        reply: Any = command(client, "EVAL", _MAY, 1, keys.events(0), *args)
    except NoPermissionError as error:
        return Finding("permissions", "wrong", f"the user may not run scripts, which do all the work: {error}")
    except redis.ResponseError as error:  # a server that resembles Redis but lacks this
        return Finding("permissions", "warn", f"the server cannot say: {error}")
    if not reply:
        return Finding("permissions", "ok", f"every command that the keys {keys.namespace}:* need is allowed")
    refused = ", ".join(name.decode().upper() for name in reply)
    return Finding(
        "permissions", "wrong", f"the user of CONTACT_SYNC_REDIS_URL may not, on {keys.namespace}:*, {refused}"
    )


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
