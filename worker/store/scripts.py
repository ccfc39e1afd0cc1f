"""The Lua scripts: one file per operation in `lua/`, its header its signature."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from worker.store.client import round_trip

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

_NAMES: Final = (
    "claim",
    "settle",
    "mark_late",
    "gate_enter",
    "gate_report",
    "redrive",
    "purge",
    "ticker",
    "beat",
    "rotate",
    "pause",
    "forget",
    "close",
    "note",
)


class Script(NamedTuple):
    """One script: its text, and the digest that Redis knows it by."""

    text: str
    sha: str


class Call(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any]


def _load(name: str) -> Script:
    text = files("worker.store").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


CLAIM, SETTLE, MARK_LATE, GATE_ENTER, GATE_REPORT, REDRIVE, PURGE, TICKER, BEAT, ROTATE, PAUSE, FORGET, CLOSE, NOTE = (
    map(_load, _NAMES)
)


def run(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    """Runs scripts in one round trip; a reply each, an exception among them where one failed.

    Scripts vanish with a restart, a failover or SCRIPT FLUSH: what Redis does not know is loaded and asked again,
    which is safe because an unknown script has done nothing.

    Raises:
        redis.ConnectionError, redis.TimeoutError: the connection failed; what was sent may or may not have happened.
    """
    replies = _pipelined(client, calls)
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        for script in {calls[i].script for i in unknown}:
            client.script_load(script.text)
        for i, reply in zip(unknown, _pipelined(client, [calls[i] for i in unknown]), strict=True):
            replies[i] = reply
    return replies


def _pipelined(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    return round_trip(client, [("EVALSHA", script.sha, len(keys), *keys, *args) for script, keys, args in calls])
