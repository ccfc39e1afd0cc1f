"""Which commands Redis refuses to a worker: its access rules forbid them, or the server does not have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
from redis.crc import key_slot
from redis.exceptions import NoPermissionError

from producers.contract.query import unreadable
from producers.nodes.cluster import ClusterClient
from producers.nodes.trip import NodeAwayError
from producers.settings import variable_of
from worker.store import scripts
from worker.store.client import command
from worker.store.refusal import is_unknown_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producers.contract.keys import Keys

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


def refused_commands(client: redis.Redis, keys: Keys) -> list[str]:
    """Returns the commands that a worker needs on the namespace's keys and may not run.

    Raises:
        redis.RedisError: Redis does not answer, or cannot say.
    """
    try:
        reply = scripts.run_one(
            client, scripts.Call(scripts.MAY, [keys.events(0)], [len(USED_COMMANDS), *USED_COMMANDS, *_KEYLESS])
        )
    except redis.ResponseError as error:
        if isinstance(error, NoPermissionError) or is_unknown_command(error):
            return [f"{'SCRIPT LOAD' if 'script|load' in str(error) else 'EVALSHA'} ({error})"]
        raise
    if reply is None:
        return refused_when_tried(client, keys)
    if not isinstance(reply, list):
        raise unreadable(TypeError("is it Redis?"))
    return [name.decode().upper() for name in reply]


def refused_when_tried(client: redis.Redis, keys: Keys) -> list[str]:
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
        connection_pool=_pool_of(client, key), single_connection_client=True
    ) as alone:  # another command must not land in this transaction
        refused += [name for name in ("MULTI", "EXEC") if _is_refused(alone, name)]
        if alone.connection is not None:
            alone.connection.disconnect()  # if EXEC is refused, the transaction is still open
    if "DEL" not in refused and _is_refused(client, "EVAL", _TRY_HSETNX, 1, key):
        refused.append("HSETNX")
    return refused


def _pool_of(client: redis.Redis, key: str) -> redis.ConnectionPool:
    """Connections to the server that has the key: a cluster's client has none of its own."""
    if not isinstance(client, ClusterClient):
        return client.connection_pool
    node = client.nodes.slots.node_of(key_slot(key.encode()))
    if node is None:
        raise NodeAwayError("no node of the cluster serves the slot", written=False)
    return client.client_of(node).connection_pool


def _is_refused(client: redis.Redis, *words: Any) -> bool:
    try:
        command(client, *words)
    except NoPermissionError:
        return True
    except redis.ResponseError as error:  # what a script was refused comes as another error
        said = str(error)
        return "permission" in said or "can't run this command" in said or is_unknown_command(error)
    return False


def refused_words(refused: Sequence[str], keys: Keys) -> str:
    """Says which commands the user of the URL may not run."""
    return f"the user of {variable_of('redis_url')} may not run, on {keys.namespace}:*, {', '.join(refused)}"
