"""A client of the Redis model that looks like redis-py's to the worker: single commands, and pipelines of them.

Each call is one round trip. Whoever owns the client decides what happens around it: when it takes effect, and whether
the effect or its reply is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

import redis

from producers.nodes.cluster import ClusterClient
from producers.nodes.slots import SlotMap
from producers.nodes.trip import _ASKING, AskForSlots, Nodes, Ping, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from producers.nodes.exchange import Answer
    from producers.nodes.trip import Step
    from producers.nodes.url import Address
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
        return self._round_trip([(each[0], tuple(each[1:])) for each in commands]) if commands else []

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


# A cluster


class Line(NamedTuple):
    """One command as it goes to a node: whether ASKING goes before it."""

    op: Op
    asking: bool


class Wire(Protocol):
    """What carries a step of a trip out, for whoever acts."""

    def write(self, parcels: Mapping[Address, Sequence[Line]]) -> Mapping[Address, Answer]:
        """Lets all of these nodes carry out their commands, each as many as it does."""

    def slots_told_by(self, node: Address) -> Any:
        """CLUSTER SLOTS, or an error."""

    def answers(self, node: Address) -> bool:
        """Whether a node answers a PING."""

    def wait(self, seconds: float) -> None:
        """Whoever acts goes on so much later."""

    def monotonic(self) -> float:
        """A clock that only rises, in seconds."""


_POOL: Final = redis.ConnectionPool()  # never connected
_SCAN: Final = redis.Redis.from_pool(redis.ConnectionPool()).response_callbacks["HSCAN"]
_TOKEN: Final = 8


class _Slots(SlotMap):
    """Remembers who the masters are: to look through all slots each time took a tenth of a world."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[Address] | None = None

    @property
    def masters(self) -> list[Address]:
        """Every master that serves a slot, in a fixed order."""
        if self._found is None:
            self._found = super().masters
        return self._found

    def learn(self, slot: int, address: Address) -> None:
        """Notes where a slot has moved to."""
        super().learn(slot, address)
        self._found = None

    def read(self, reply: Sequence[Any], asked: Address) -> None:
        """Takes the reply to CLUSTER SLOTS."""
        super().read(reply, asked)
        self._found = None


class ModelCluster(ClusterClient):
    """The real client of a cluster; the nodes that its trips reach are those of a world.

    Args:
        seeds: where to ask first.
        wire: carries the steps of its trips out.
    """

    def __init__(self, seeds: Sequence[Address], wire: Wire) -> None:  # its base would make connections
        self.nodes = Nodes(seeds, wire.monotonic)
        self.nodes.slots = _Slots()
        self.connection_pool = _POOL
        self.response_callbacks = {"HSCAN": _SCAN}  # type: ignore[assignment] # the model converts all else
        self._wire = wire
        self._ops: list[Op] = []

    def __del__(self) -> None: ...

    @property
    def as_redis(self) -> redis.Redis:
        """Itself, as the type that the worker names."""
        return self

    def close(self) -> None:
        """There is nothing to close."""

    def _pack(self, words: Sequence[Any]) -> bytes:
        """A word that stands for the command: the model takes its arguments as they are."""
        self._ops.append((words[0], tuple(words[1:])))
        return b"%08d" % (len(self._ops) - 1)

    def _lines(self, packed: bytes) -> list[Line]:
        ops = self._ops
        if _ASKING not in packed:
            return [Line(ops[int(packed[at : at + _TOKEN])], False) for at in range(0, len(packed), _TOKEN)]
        lines, at, asking = [], 0, False
        while at < len(packed):
            if packed.startswith(_ASKING, at):
                at, asking = at + len(_ASKING), True
            else:
                lines.append(Line(ops[int(packed[at : at + _TOKEN])], asking))
                at, asking = at + _TOKEN, False
        return lines

    def _perform(self, step: Step) -> Any:
        match step:
            case Write(parcels):
                return self._wire.write({node: self._lines(parcel.commands) for node, parcel in parcels.items()})
            case AskForSlots(node):
                return self._wire.slots_told_by(node)
            case Ping(node):
                return self._wire.answers(node)
            case _:
                return self._wire.wait(step.seconds)
