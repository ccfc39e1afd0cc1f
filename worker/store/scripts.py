"""Loads and runs the Lua scripts: one file in `lua/` for each operation, whose header is its signature."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from producers.nodes.cluster import ClusterClient
from producers.nodes.trip import NodeAwayError
from worker.store.client import ARGUMENTS_MAX, round_trip
from worker.store.replies import all_checked, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from producers.nodes.trip import Replicas


_NO_WRITES: Final = ("NOREPLICAS", "MISCONF")


class Script(NamedTuple):
    """A script: its text, and the digest by which Redis knows it."""

    text: str
    sha: str


class Call(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any]


def _load(name: str, *preludes: str) -> Script:
    text = "".join(
        files("worker.store").joinpath("lua", f"{each}.lua").read_text(encoding="utf-8") for each in (*preludes, name)
    )
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


CLAIM: Final = _load("claim", "trimmed")
RELEASE: Final = _load("release")
SETTLE: Final = _load("settle", "packed", "rotation")
MARK_LATE: Final = _load("mark_late", "packed")
GATE_ASK: Final = _load("gate_ask", "pace")
GATE_ENTER: Final = _load("gate_enter")
GATE_REPORT: Final = _load("gate_report", "pace")
REDRIVE: Final = _load("redrive")
PURGE: Final = _load("purge")
TICKER: Final = _load("ticker")
BEAT: Final = _load("beat")
ROTATE: Final = _load("rotate", "trimmed", "rotation")
PAUSE: Final = _load("pause")
FORGET: Final = _load("forget")
CLOSE: Final = _load("close")
NOTE: Final = _load("note")
RECORD: Final = _load("record")
APPEND: Final = _load("append")
MAY: Final = _load("may")


def run(client: redis.Redis, calls: Sequence[Call], wait: Replicas = 0) -> list[Any]:
    """Runs scripts in one round trip; returns a reply for each, which is an exception if it failed.

    Scripts vanish with a restart, a failover or SCRIPT FLUSH. A script that Redis does not know is loaded and run
    again, which is safe because an unknown script has done nothing.

    Args:
        client: Redis.
        calls: what to run.
        wait: how many replicas must have what they write; what too few have is NotReplicatedError.

    Raises:
        redis.ConnectionError, redis.TimeoutError: the connection failed; it is not certain what was done.
    """
    replies = round_trip(client, [_evalsha(each) for each in calls], wait)
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown and isinstance(client, ClusterClient):
        # To each node that needs it, with its text: SCRIPT LOAD names no key, so it would reach some node.
        texts = [("EVAL", calls[i].script.text, *_arguments(calls[i])) for i in unknown]
        for i, reply in zip(unknown, round_trip(client, texts, wait), strict=True):
            replies[i] = reply
    elif unknown:
        # In one round trip: another connection may lead to another server of the same name.
        loads = [("SCRIPT", "LOAD", each.text) for each in dict.fromkeys(calls[i].script for i in unknown)]
        again = round_trip(client, [*loads, *(_evalsha(calls[i]) for i in unknown)], wait)
        all_checked(again[: len(loads)])
        for i, reply in zip(unknown, again[len(loads) :], strict=True):
            replies[i] = reply
    return [_of_node(each) for each in replies] if isinstance(client, ClusterClient) else replies


def _of_node(reply: Any) -> Any:
    """The reply of one node; that it is away if it accepts no writes, for lack of replicas or of a disk."""
    if isinstance(reply, ResponseError) and any(each in str(reply) for each in _NO_WRITES):
        return NodeAwayError(str(reply), written=False)  # checked at the first write, so nothing was done
    return reply


def run_one(client: redis.Redis, call: Call, wait: Replicas = 0) -> Any:
    """Runs one script, and returns its reply; as `run`.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    return checked(run(client, [call], wait)[0])


def _arguments(call: Call) -> list[Any]:
    """What follows the script in a request; too many arguments go as one, which `packed.lua` unpacks."""
    _, keys, args = call
    many = 3 + len(keys) + len(args) > ARGUMENTS_MAX
    return [len(keys), *keys, *([_packed(args)] if many else args)]


def _packed(args: Sequence[Any]) -> bytes:
    """A list of texts in MessagePack."""
    parts = [b"\xdd", len(args).to_bytes(4, "big")]
    for each in args:
        raw = each if isinstance(each, bytes) else str(each).encode()
        parts += (b"\xdb", len(raw).to_bytes(4, "big"), raw)
    return b"".join(parts)


def _evalsha(call: Call) -> tuple[Any, ...]:
    return ("EVALSHA", call.script.sha, *_arguments(call))
