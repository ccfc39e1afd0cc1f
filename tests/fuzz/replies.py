"""Replies of Redis: the bytes on the wire, and what stands in our keys, whoever wrote it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
from redis.connection import Connection

from producers.contract.change import ContactChange
from producers.contract.errors import ContactSyncError
from producers.contract.keys import Keys
from producers.contract.partitions import agreement
from producers.nodes.exchange import Answer, Started, finish, is_demoted
from producers.nodes.sentinel import read_answer
from producers.nodes.slots import SlotMap
from producers.nodes.trip import Command, Nodes, Write
from producers.nodes.url import Address
from producers.send.chunk import Chunk
from producers.send.report import Replies, SendReport
from tests.fuzz.target import T, Target
from worker.core.codec import (
    decode_dead_pair,
    decode_mark,
    decode_parked,
    decode_remembered,
    decode_state,
    encode_parked,
    encode_remembered,
    encode_state,
)
from worker.store.presence import _decoded
from worker.store.replies import is_wrong_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NODE: Final = Address("127.0.0.1", 6379)
_KEYS: Final = Keys("contact-sync")
_CHANGES: Final = [ContactChange(owner="1", contact=contact, op="upsert", at=T) for contact in ("2", "3")]


_CONNECTION: Final[Any] = Connection(protocol=2, socket_read_size=4096)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
_SLOTS: Final = SlotMap()
_SLOTS.read([[0, 16383, [b"127.0.0.1", 6379]]], _NODE)


class _Socket:
    """A socket on which these bytes come, and then its end."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def recv_into(self, buffer: bytearray) -> int:
        said, self._said = self._said[: len(buffer)], self._said[len(buffer) :]
        buffer[: len(said)] = said
        return len(said)

    def settimeout(self, seconds: float | None) -> None:
        """Waits for nothing."""

    def shutdown(self, how: int) -> None:
        """Ends nothing."""

    def close(self) -> None:
        self._said = b""


class _Pool:
    def release(self, connection: Any) -> None:
        """Keeps no connection."""

    def disconnect(self, *, inuse_connections: bool) -> None:
        """Has none."""


def _answered(said: bytes, count: int) -> Answer:
    """What so many commands get of these bytes."""
    _CONNECTION._sock = _Socket(said)  # noqa: SLF001 - a server that says what we want
    _CONNECTION._parser.on_connect(_CONNECTION)  # noqa: SLF001 - the same
    return finish(Started(_Pool(), _CONNECTION, None), count)


def _sends(said: bytes) -> str:
    """A producer's chunk of two."""
    answer = _answered(said, 2)
    chunk = Chunk()
    chunk.changes, chunk.stamps = [*_CHANGES], [T, T]
    for reply in answer.replies:
        is_demoted(reply)
        is_wrong_type(reply)
        if not isinstance(reply, Exception) and not (isinstance(reply, bytes) and reply.isascii()):
            return "not an id"  # no server answers XADD so
    report = SendReport()
    report.record(chunk, Replies(*answer))
    try:
        report.conclude(None)
    except redis.RedisError:
        return "unreachable"
    except ContactSyncError:
        return "not accepted"
    return "accepted"


def _trips(said: bytes) -> str:
    """A command to a cluster, whose first answer this is; redirections are followed to a node that answers well."""
    nodes = Nodes([_NODE], lambda: 0.0)
    nodes.slots = _SLOTS
    nodes.slots.learn(7, _NODE)
    nodes._map_due = False  # noqa: SLF001 - the slots are known
    steps = nodes.trip([Command(7, [b""])])
    answer: Any = None
    first = True
    try:
        while True:
            step = steps.send(answer)
            answer = None
            if isinstance(step, Write):
                written: Mapping[Address, Answer] = {
                    node: _answered(said, parcel.replies) if first else Answer([b"OK"] * parcel.replies)
                    for node, parcel in step.parcels.items()
                }
                answer, first = written, False
    except StopIteration as end:
        [[reply]] = end.value
        return "error" if isinstance(reply, Exception) else "reply"


def _names_master(said: bytes) -> str:
    """The two answers of a sentinel."""
    answer = _answered(said, 2)
    if answer.broken is not None:
        return "error"
    try:
        named = read_answer(answer.replies)
    except redis.RedisError:
        return "error"
    return "reply" if named else "nil"


def _agrees(said: bytes) -> str:
    """What is recorded of a log: five values."""
    asking = agreement(_KEYS, None)
    next(asking)
    values: list[bytes | None] = [each or None for each in [*said.split(b"\n"), *[b""] * 5][:5]]
    try:
        asking.send([values])
        asking.send([1])
        asking.send([1])
        asking.send([values])
    except StopIteration:
        return "agreed"
    except ContactSyncError:
        return "refused"
    return "nil"


_EMPTY: Final = (None, None, 0)
"""The beginning of a state that says nothing. Nobody writes one, and what is read as one is dropped."""


def _stored(decode: Callable[[bytes], Any], encode: Callable[[Any], bytes] | None) -> Callable[[bytes], str]:
    def read(said: bytes) -> str:
        try:
            value = decode(said)
        except ValueError:
            return "not a value of ours"
        if encode is not None and getattr(value, "state", value)[:3] != _EMPTY:
            assert decode(encode(value)) == value
        return "value"

    return read


def _beats(said: bytes) -> str:
    name, _, note = said.partition(b"\n")
    return "worker" if [each.as_json() for each in _decoded({name: note})] else "not a value of ours"


_KINDS: Final[Mapping[bytes, Callable[[bytes], str]]] = {
    b"x": _sends,
    b"c": _trips,
    b"m": _names_master,
    b"a": _agrees,
    b"s": _stored(decode_state, encode_state),
    b"p": _stored(decode_parked, encode_parked),
    b"r": _stored(decode_remembered, encode_remembered),
    b"l": _stored(decode_mark, None),
    b"d": _stored(decode_dead_pair, None),
    b"w": _beats,
}


def run(data: bytes) -> str:
    """A letter that says what is read, then what Redis says."""
    return _KINDS.get(data[:1], _sends)(data[1:])


TARGET: Final = Target(
    "replies",
    "replies of Redis, and values of our keys that somebody else wrote",
    run,
    frozenset({"accepted", "not accepted", "not an id", "reply", "error", "nil", "agreed", "refused", "worker"})
    | {"value", "not a value of ours"},
    [
        b"x$15\r\n1795460847757-0\r\n$15\r\n1795460847757-1\r\n",
        b"x-OOM command not allowed\r\n-WRONGTYPE x\r\n",
        b"x:1\r\n:2\r\n",
        b"xHTTP/1.1 400 Bad Request\r\n\r\n",
        b"c-MOVED 7 10.0.0.1:6380\r\n",
        b"c-ASK 7 :6380\r\n",
        b"c$2\r\nOK\r\n",
        b"m*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n*2\r\n$12\r\nconfig-epoch\r\n$1\r\n3\r\n",
        b"m*-1\r\n-ERR No such master with that name\r\n",
        b"a8\n1",
        b"a8\n1\n16",
        b"su1795460847757,0",
        b"sd1795460847757,-3;x",
        b"su1,0,,crm\x1f?2\x1f!1,2,1,2",
        b"p1795460907757b;u1795460847760,0",
        b"rd1,2",
        b"l1,0",
        b"d2;u1,",
        b"d",
        b"ww1\n1,2,3,prefork,2,broker_away,a=1;b=2",
    ],
    [
        b"$-1\r\n",
        b"*2\r\n",
        b"-ERR ",
        b"-MOVED ",
        b"-ASK ",
        b"-READONLY ",
        b"-LOADING ",
        b"-NOAUTH ",
        b"-CLUSTERDOWN ",
        b"-TRYAGAIN ",
        b":1\r\n",
        b"+OK\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b">1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(1\r\n",
        b"u1795460847757",
        b"d1",
        b"\x1f",
        b"?",
        b"!",
        b";",
        b"config-epoch",
    ],
    256,
)
