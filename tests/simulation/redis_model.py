"""A Redis in memory, as far as the worker uses one: streams, hashes and strings with an expiry, by a clock of its own.

It answers as redis-py does with `protocol=2` and raw stream replies. The differential test compares it with a server,
key by key; what the worker does not use is not there.
"""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, ResponseError

from tests.simulation.scripts_model import SCRIPTS
from tests.simulation.values import Stream, Text, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.values import Hash, Value

_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"

Op = tuple[str, tuple[Any, ...]]
"""One command: its name, and its arguments as the client was given them."""


@cache
def digest_of(text: str) -> str:
    """The digest by which EVALSHA knows a script."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=4096)
def _encoded(name: str) -> bytes:
    """The name of a field as it goes over the wire."""
    return name.encode()


class RedisModel:
    """The server.

    Args:
        now_us: its clock (Unix microseconds); `TIME`, entry ids and expiries go by it.

    Attributes:
        data: every key; one that has expired may still be in it.
        known_scripts: digests that EVALSHA knows.
        skew_us: by how much the clock that it goes by just now is ahead.
    """

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.skew_us = 0
        self.data: dict[str, Value] = {}
        self.known_scripts: set[str] = set()
        self._now_us = now_us

    def apply(self, ops: Sequence[Op]) -> list[Any]:
        """Carries commands out, in order; a failed one's exception stands in the place of its reply."""
        return [self.reply_to(op) for op in ops]

    def reply_to(self, op: Op) -> Any:
        """Carries one command out; returns its reply, or its exception if it fails."""
        try:
            return _COMMANDS[op[0]](self, *op[1])
        except ResponseError as error:
            return error

    def now_us(self) -> int:
        """The clock, in Unix microseconds."""
        return self._now_us() + self.skew_us

    @property
    def now_ms(self) -> int:
        """The clock, in Unix milliseconds."""
        return (self._now_us() + self.skew_us) // 1000

    # Values

    def text(self, key: str) -> bytes | None:
        """A string, None where there is none or it has expired."""
        value = self.data.get(key)
        if value is None:
            return None
        if type(value) is not Text:
            raise ResponseError(_WRONG_TYPE)
        if value.expires_ms is not None and value.expires_ms < self.now_ms:
            del self.data[key]
            return None
        return value.value

    def hash_of(self, key: str) -> Hash:
        """A hash to read; empty where there is none."""
        value = self.data.get(key)
        if value is None:
            return {}
        if type(value) is not dict:
            raise ResponseError(_WRONG_TYPE)
        return value

    def stream_of(self, key: str) -> Stream | None:
        """A stream to read, None where there is none."""
        value = self.data.get(key)
        if value is not None and type(value) is not Stream:
            raise ResponseError(_WRONG_TYPE)
        return value

    # Commands, each with redis-py's reply

    def time(self) -> tuple[int, int]:
        """TIME."""
        return divmod(self.now_us(), 1_000_000)

    def get(self, key: str) -> bytes | None:
        """GET."""
        return self.text(key)

    def mget(self, *keys: str) -> list[bytes | None]:
        """MGET."""
        return [self.text(key) for key in keys]

    def set(self, key: str, value: Any, *px: Any, expires_in_ms: int | None = None) -> None:
        """SET with PX, by name or as the words of the command."""
        expires_in_ms = int(px[1]) if px else expires_in_ms
        expires_ms = None if expires_in_ms is None else self.now_ms + expires_in_ms
        self.data[key] = Text(bytes_of(value), expires_ms)

    def pexpire(self, key: str, milliseconds: int) -> None:
        """PEXPIRE of a string."""
        value = self.data.get(key)
        if type(value) is Text:
            self.data[key] = value._replace(expires_ms=self.now_ms + milliseconds)

    def delete(self, *keys: str) -> int:
        """DEL and UNLINK."""
        return sum(self.exists(key) and self.data.pop(key) is not None for key in keys)

    def exists(self, *keys: str) -> int:
        """EXISTS."""
        data, there = self.data, 0
        for key in keys:
            value = data.get(key)
            if value is not None and (type(value) is not Text or self.text(key) is not None):
                there += 1
        return there

    def type(self, key: str) -> bytes:
        """TYPE."""
        if not self.exists(key):
            return b"none"
        return {Text: b"string", dict: b"hash", Stream: b"stream"}[type(self.data[key])]

    def rename(self, key: str, to: str) -> None:
        """RENAME."""
        self.data[to] = self.data.pop(key)

    def hget(self, key: str, field: Any) -> bytes | None:
        """HGET."""
        return self.hash_of(key).get(field if type(field) is bytes else bytes_of(field))

    def hmget(self, key: str, *fields: Any) -> list[bytes | None]:
        """HMGET."""
        found = self.hash_of(key)
        if not found:
            return [None] * len(fields)
        return [found.get(_encoded(field) if type(field) is str else field) for field in fields]

    def hgetall(self, key: str) -> Hash:
        """HGETALL."""
        return dict(self.hash_of(key))

    def hlen(self, key: str) -> int:
        """HLEN."""
        return len(self.hash_of(key)) if key in self.data else 0

    def hexists(self, key: str, field: Any) -> bool:
        """HEXISTS."""
        return bytes_of(field) in self.hash_of(key)

    def hset(self, key: str, *items: Any) -> None:
        """HSET: fields and values in turn."""
        found = self.hash_of(key)
        for i in range(0, len(items), 2):
            field, value = items[i], items[i + 1]
            found[_encoded(field) if type(field) is str else bytes_of(field)] = (
                value if type(value) is bytes else bytes_of(value)
            )
        if found:
            self.data[key] = found

    def hsetnx(self, key: str, field: Any, value: Any) -> bool:
        """HSETNX."""
        if self.hexists(key, field):
            return False
        self.hset(key, field, value)
        return True

    def hincrby(self, key: str, field: Any, by: int) -> int:
        """HINCRBY."""
        number = int(self.hget(key, field) or 0) + by
        self.hset(key, field, number)
        return number

    def hdel(self, key: str, *fields: Any) -> int:
        """HDEL; a hash without fields does not exist."""
        found = self.hash_of(key)
        gone = 0
        for field in fields if found else ():
            if found.pop(_encoded(field) if type(field) is str else bytes_of(field), None) is not None:
                gone += 1
        if gone and not found:
            del self.data[key]
        return gone

    def hscan(self, key: str, cursor: int = 0, count: int | None = None) -> tuple[int, Hash]:
        """HSCAN of a small hash: a server gives all of it at once, in no order; here in one that a seed decides."""
        _ = cursor, count
        found = self.hash_of(key)
        return 0, dict(sorted(found.items()))

    def hscan_raw(self, key: str, _cursor: Any, _count: str, _number: int) -> list[Any]:
        """HSCAN, raw: field and value in turn."""
        return [b"0", [item for pair in self.hscan(key)[1].items() for item in pair]]

    def xadd(self, key: str, *flat: Any) -> bytes:
        """XADD with an automatic id, which may be said: `*`."""
        stream = self.stream_of(key)
        flat = flat[1:] if flat[0] == "*" else flat
        if stream is None:
            stream = self.data[key] = Stream()
        return stream.append(self.now_ms, [bytes_of(each) for each in flat])

    def xlen(self, key: str) -> int:
        """XLEN."""
        stream = self.stream_of(key)
        return len(stream.entries) if stream else 0

    def xtrim(self, key: str, first: bytes) -> None:
        """XTRIM MINID."""
        stream = self.stream_of(key)
        if stream is not None:
            stream.trim(first)

    def xrange(self, key: str, first: Any, last: Any, _count: str, count: int) -> list[Any]:
        """XRANGE, raw; from an id on, or from behind it, to the end, to an id or to a millisecond."""
        stream = self.stream_of(key)
        return stream.range(bytes_of(first), count, bytes_of(last)) if stream else []

    def xrevrange(self, key: str, _last: str, _first: str, _count: str, count: int) -> list[Any]:
        """XREVRANGE from the end on, raw."""
        stream = self.stream_of(key)
        return stream.range(b"-", len(stream.entries))[::-1][:count] if stream else []

    def xread(self, *args: Any) -> list[Any] | None:
        """XREAD COUNT 1 from the first entry on, raw; it does not block: whoever waits looks again."""
        names = args[args.index("STREAMS") + 1 :]
        found = []
        for key in names[: len(names) // 2]:
            stream = self.stream_of(key)
            if stream and stream.entries:
                found.append([key.encode(), stream.range(b"-", 1)])
        return found or None

    def script(self, _load: str, text: str) -> None:
        """SCRIPT LOAD, of one of ours."""
        self.known_scripts.add(digest_of(text))

    def evalsha(self, digest: str, count: int, *rest: Any) -> Any:
        """EVALSHA of one of the scripts in `worker/store/lua`."""
        if digest not in self.known_scripts:
            raise NoScriptError("No matching script.")
        return SCRIPTS[digest](self, rest[:count], rest[count:])

    def eval(self, text: str, count: int, *rest: Any) -> Any:
        """EVAL of one of the same scripts."""
        self.known_scripts.add(digest := digest_of(text))
        return self.evalsha(digest, count, *rest)


_COMMANDS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(RedisModel, name)
        for name in ("time", "get", "mget", "delete", "exists", "type", "hget", "hmget", "hgetall", "hlen", "hsetnx")
    },
    **{name: getattr(RedisModel, name) for name in ("hscan", "xlen", "xadd")},
    "SCRIPT": RedisModel.script,
    "EVAL": RedisModel.eval,
    "EVALSHA": RedisModel.evalsha,
    "HINCRBY": RedisModel.hincrby,
    "HMGET": RedisModel.hmget,
    "HGET": RedisModel.hget,
    "EXISTS": RedisModel.exists,
    "GET": RedisModel.get,
    "DEL": RedisModel.delete,
    "HGETALL": RedisModel.hgetall,
    "HLEN": RedisModel.hlen,
    "HSETNX": RedisModel.hsetnx,
    "TYPE": RedisModel.type,
    "MGET": RedisModel.mget,
    "SET": RedisModel.set,
    "XADD": RedisModel.xadd,
    "XLEN": RedisModel.xlen,
    "HSCAN": RedisModel.hscan_raw,
    "TIME": RedisModel.time,
    "XRANGE": RedisModel.xrange,
    "XREAD": RedisModel.xread,
    "XREVRANGE": RedisModel.xrevrange,
}
