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
if not redis.acl_check_cmd then return false end
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


# How to run each command so that it changes nothing: on a key that does not exist, or with arguments that it refuses
# itself, after Redis has checked the permission.
_HARMLESS: Final[Mapping[str, tuple[str, ...]]] = {
    "hdel": ("f",),
    "hexists": ("f",),
    "hget": ("f",),
    "hincrby": ("f", "no-number"),
    "hmget": ("f",),
    "hscan": ("0",),
    "hset": ("f", "v", "no-value-follows"),
    "pexpire": ("1",),
    "set": ("v", "no-such-option"),
    "xadd": ("no-id", "f", "v"),
    "xdel": ("0-1",),
    "xrange": ("-", "+"),
    "xrevrange": ("+", "-"),
    "xtrim": ("MAXLEN", "no-number"),
}

# The only command that would write. Nobody sees the key: a script is atomic.
_TRY_HSETNX = """
local reply = redis.pcall('HSETNX', KEYS[1], 'f', 'v')
if type(reply) == 'table' and reply.err then return reply end
redis.call('DEL', KEYS[1])
return 0
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
    refused = _refused_when_tried(client, keys) if reply is None else [name.decode().upper() for name in reply]
    if not refused:
        return Finding("permissions", "ok", f"every command that the keys {keys.namespace}:* need is allowed")
    return Finding(
        "permissions",
        "wrong",
        f"the user of CONTACT_SYNC_REDIS_URL may not, on {keys.namespace}:*, {', '.join(refused)}",
    )


def _refused_when_tried(client: redis.Redis, keys: Keys) -> list[str]:
    """Returns the refused commands by running each so that it changes nothing. Redis before 7 cannot be asked.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    key = f"{keys.events(0)}:permissions"  # in the namespace, and never a key of ours
    tried: list[tuple[str, tuple[Any, ...]]] = [
        (name, (name, key, *_HARMLESS.get(name, ()))) for name in USED_COMMANDS if name != "hsetnx"
    ]
    tried.append(("rename", ("RENAME", key, key)))
    tried += [("info", ("INFO", "server")), ("time", ("TIME",))]
    tried += [("evalsha", ("EVALSHA", "0" * 40, 0)), ("script", ("SCRIPT LOAD", "return 0"))]
    tried.append(("xread", ("XREAD", "STREAMS", key, "0")))
    refused = [name.upper() for name, words in tried if _is_refused(client, *words)]
    with redis.Redis(
        connection_pool=client.connection_pool, single_connection_client=True
    ) as alone:  # another command must not land in this transaction
        refused += [name for name in ("MULTI", "EXEC") if _is_refused(alone, name)]
        if alone.connection is not None:
            alone.connection.disconnect()  # if EXEC is refused, the transaction is still open
    if "DEL" not in refused and _is_refused(client, "EVAL", _TRY_HSETNX, 1, key):
        refused.append("HSETNX")
    return refused


def _is_refused(client: redis.Redis, *words: Any) -> bool:
    try:
        command(client, *words)
    except NoPermissionError:
        return True
    except redis.ResponseError as error:  # what a script was refused comes as another error
        return "permission" in str(error) or "can't run this command" in str(error)
    return False


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
