"""A client of the Redis model that looks like redis-py's to the worker: single commands, and pipelines of them.

Each call is one round trip. Whoever owns the client decides what happens around it: when it takes effect, and whether
the effect or its reply is lost.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from tests.simulation.redis_model import Op


class _Commands:
    """The commands, under redis-py's names and with its arguments."""

    def _do(self, name: str, *args: Any) -> Any:
        raise NotImplementedError

    def time(self) -> Any:
        return self._do("time")

    def get(self, key: str) -> Any:
        return self._do("get", key)

    def mget(self, keys: Sequence[str]) -> Any:
        return self._do("mget", *keys)

    def delete(self, *keys: str) -> Any:
        return self._do("delete", *keys)

    def exists(self, *keys: str) -> Any:
        return self._do("exists", *keys)

    def type(self, key: str) -> Any:
        return self._do("type", key)

    def hget(self, key: str, field: Any) -> Any:
        return self._do("hget", key, field)

    def hmget(self, key: str, fields: Any, *more: Any) -> Any:
        return self._do("hmget", key, *((fields, *more) if isinstance(fields, (str, bytes)) else fields))

    def hgetall(self, key: str) -> Any:
        return self._do("hgetall", key)

    def hlen(self, key: str) -> Any:
        return self._do("hlen", key)

    def hsetnx(self, key: str, field: Any, value: Any) -> Any:
        return self._do("hsetnx", key, field, value)

    def hscan(self, key: str, cursor: int = 0, count: int | None = None) -> Any:
        return self._do("hscan", key, cursor, count)

    def xlen(self, key: str) -> Any:
        return self._do("xlen", key)

    def script_load(self, text: str) -> Any:
        return self._do("script_load", sha1(text.encode(), usedforsecurity=False).hexdigest())

    def execute_command(self, name: str, *args: Any) -> Any:
        return self._do(name, *args)


class ModelClient(_Commands):
    """A connection to the model.

    Args:
        round_trip: carries commands out, and gives or raises what the client gets.
    """

    def __init__(self, round_trip: Callable[[Sequence[Op]], list[Any]]) -> None:
        self._round_trip = round_trip

    def round_trip(self, commands: Sequence[Sequence[Any]], _wait: object = 0) -> list[Any]:
        """Runs commands in one round trip; there is no replica to wait for."""
        return self._round_trip([(name, tuple(args)) for name, *args in commands]) if commands else []

    def pipeline(self, *, transaction: bool) -> _Pipeline:
        """A pipeline; the model knows nobody who could come between its commands."""
        _ = transaction
        return _Pipeline(self._round_trip)

    def hscan_iter(self, key: str, count: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """All fields of a hash."""
        yield from self.hscan(key, 0, count)[1].items()

    def _do(self, name: str, *args: Any) -> Any:
        (reply,) = self._round_trip([(name, args)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def as_redis(self) -> redis.Redis:
        """Itself, as the type that the worker names."""
        return cast("redis.Redis", self)


class _Pipeline(_Commands):
    """Commands that go out together."""

    def __init__(self, round_trip: Callable[[Sequence[Op]], list[Any]]) -> None:
        self._round_trip = round_trip
        self._ops: list[Op] = []

    def execute(self, *, raise_on_error: bool = True) -> list[Any]:
        """Sends them; as redis-py, without a round trip where there are none."""
        ops, self._ops = self._ops, []
        replies = self._round_trip(ops) if ops else []
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    def _do(self, name: str, *args: Any) -> Any:
        self._ops.append((name, args))
        return self
