"""Clients of a Redis Cluster, for threads and for asyncio.

redis-py's own cluster client repeats commands whose replies were lost, waits up to 28 s for a node that hangs, and then
for all others. These write to all nodes before they read from any, and never repeat what may have been carried out.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
import redis.client
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.connection import Connection, SSLConnection
from redis.exceptions import AskError, ExecAbortError, MovedError, TryAgainError

from producers.contract.query import UNREADABLE, unreadable
from producers.nodes.exchange import REFUSALS, Answer, Started, exchange_async, finish, pack, start
from producers.nodes.pool import waiting_pool
from producers.nodes.slots import slot_of
from producers.nodes.trip import (
    NODE_SECONDS,
    PROBE_SECONDS,
    AskForSlots,
    Command,
    NodeAwayError,
    Nodes,
    Ping,
    Rest,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from producers.nodes.trip import Replicas, Step, Steps
    from producers.nodes.url import Address

_TIMEOUTS: Final = ("socket_timeout", "socket_connect_timeout")
_ASK_FOR_SLOTS: Final = pack(["CLUSTER", "SLOTS"])
_PING: Final = pack(["PING"])
_MULTI: Final = pack(["MULTI"])
_EXEC: Final = pack(["EXEC"])
_REDIRECTIONS: Final = (MovedError, AskError, TryAgainError)
_REFUSED: Final = (*REFUSALS, NodeAwayError)


def _node_options(options: Mapping[str, Any], connection: type) -> dict[str, Any]:
    """Options of a pool of connections to one node."""
    chosen = {name: value for name, value in options.items() if name not in {"host", "port", "db"}}
    shorter = {name: min(NODE_SECONDS, chosen.get(name) or NODE_SECONDS) for name in _TIMEOUTS}
    return {**chosen, **shorter, "connection_class": connection}


def _slots_of(commands: Sequence[Sequence[Any]]) -> list[int | None]:
    """The slot of each command; for one without a key that of the one before it, or of the first that has a key."""
    slots = [slot_of(each) for each in commands]
    beside = next((each for each in slots if each is not None), None)
    for i, slot in enumerate(slots):
        beside = beside if slot is None else slot
        slots[i] = beside
    return slots


class ClusterClient(redis.Redis):
    """A client of a cluster: each command goes to the node that serves its key. Threads may share it.

    Args:
        seeds: where to ask first which nodes there are.
        options: of redis-py, for the connections to each node.
        tls: whether the nodes want TLS.
        packed: packs one command.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        options: Mapping[str, Any],
        *,
        tls: bool,
        packed: Callable[[Sequence[Any]], bytes] = pack,
    ) -> None:
        self.nodes = Nodes(seeds)
        self._options = _node_options(options, SSLConnection if tls else Connection)
        self._packed = packed
        self._clients: dict[Address, redis.Redis] = {}
        # Never connected: the base class wants a pool, and its options.
        super().__init__(connection_pool=redis.ConnectionPool(**self._options))

    # Commands

    def round_trip(self, commands: Sequence[Sequence[Any]], wait: Replicas = 0) -> list[Any]:
        """Runs commands in one round trip; returns their replies as Redis sent them, errors included.

        A command without a key goes where the one before it goes, so that the time fits what was read with it.

        Args:
            commands: what to run.
            wait: how many replicas must have what they write; what too few have is NotReplicatedError.
        """
        units = [Command(slot, (self._pack(words),)) for words, slot in zip(commands, _slots_of(commands), strict=True)]
        return [reply for [reply] in self._run(self.nodes.trip(units, wait))]

    def exchange(self, commands: Sequence[bytes], slots: Sequence[int], wait: Replicas = 0) -> list[Any]:
        """Runs packed commands; returns a reply for each: what Redis replied, an error of Redis, or NodeAwayError.

        Args:
            commands: each packed.
            slots: the slot of each.
            wait: how many replicas must have what the commands write.
        """
        units = [Command(slot, (each,)) for slot, each in zip(slots, commands, strict=True)]
        return [reply for [reply] in self._run(self.nodes.trip(units, wait))]

    def transactions(self, commands: Sequence[Sequence[Any]], wait: Replicas = 0) -> list[Any]:
        """Runs commands in one round trip, those of a slot in one transaction; replies as `round_trip`.

        While a slot moves, its commands run one after another, in their order.
        """
        by_slot: dict[int, list[int]] = {}
        for i, words in enumerate(commands):
            slot = slot_of(words)
            if slot is None:
                raise redis.RedisError("a command without a key cannot be in a transaction of a cluster")
            by_slot.setdefault(slot, []).append(i)
        units = [
            Command(slot, (_MULTI, *(self._pack(commands[i]) for i in those), _EXEC)) for slot, those in by_slot.items()
        ]
        replies: list[Any] = [None] * len(commands)
        rest: list[int] = []
        for those, got in zip(by_slot.values(), self._run(self.nodes.trip(units, wait)), strict=True):
            done = got[-1]
            if any(isinstance(each, _REDIRECTIONS) for each in got):
                rest += those
            elif isinstance(done, list):
                for i, reply in zip(those, done, strict=True):
                    replies[i] = reply
            else:
                refused = next((each for each in got[1:-1] if isinstance(each, _REFUSED)), done)
                for i in those:
                    replies[i] = refused if isinstance(done, ExecAbortError) else done
        if rest:
            for i, reply in zip(rest, self.round_trip([commands[i] for i in rest], wait), strict=True):
                replies[i] = reply
        return replies

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs one command, and converts its reply.

        Raises:
            redis.RedisError: its node did not answer, or refused.
        """
        [reply] = self.round_trip([args])
        return self.converted(args, options, reply)

    def converted(self, args: Sequence[Any], options: Mapping[str, Any], reply: Any) -> Any:
        """Returns the reply as redis-py's client does.

        Raises:
            redis.RedisError: it is an error.
        """
        if isinstance(reply, Exception):
            raise reply
        callbacks: Any = self.response_callbacks
        callback = callbacks.get(args[0])
        return reply if callback is None else callback(reply, **{k: v for k, v in options.items() if k != "keys"})

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:  # noqa: ARG002, FBT001, FBT002 - redis-py's signature
        """Gathers commands; all commands of a transaction that have the same slot run in one."""
        return ClusterPipeline(self, transaction=transaction)

    # Nodes

    def masters(self) -> list[tuple[Address, redis.Redis]]:
        """Every node that serves slots, with a client of its own.

        Raises:
            redis.RedisError: no node answers.
        """
        self._run(self.nodes.refresh())
        if not self.nodes.slots:
            self.execute_command("PING")
        return [(each, self.client_of(each)) for each in self.nodes.slots.masters]

    def client_of(self, node: Address) -> redis.Redis:
        """A client of one node."""
        client = self._clients.get(node)
        if client is None:
            pool = redis.ConnectionPool(**{**self._options, "host": node.host, "port": node.port})
            client = self._clients.setdefault(node, redis.Redis.from_pool(pool))
        return client

    def close(self) -> None:
        """Closes all connections."""
        for each in list(self._clients.values()):
            each.close()

    # Steps

    def _pack(self, words: Sequence[Any]) -> bytes:
        name = words[0]
        if isinstance(name, str) and " " in name:
            words = (*name.split(), *words[1:])
        return self._packed(words)

    def _run(self, steps: Steps[Any]) -> Any:
        try:
            step = next(steps)
            while True:
                step = steps.send(self._perform(step))
        except StopIteration as end:
            return end.value

    def _perform(self, step: Step) -> Any:
        match step:
            case Write(parcels):
                return self._write(parcels)
            case AskForSlots(node):
                return self._ask(node, _ASK_FOR_SLOTS, self.nodes.map_seconds)
            case Ping(node):
                return not isinstance(self._ask(node, _PING, PROBE_SECONDS), Exception)
            case Rest(seconds):
                return time.sleep(seconds)

    def _write(self, parcels: Mapping[Address, Any]) -> dict[Address, Answer]:
        started: dict[Address, Started] = {}
        answers: dict[Address, Answer] = {}
        try:
            for node, parcel in parcels.items():
                started[node] = start(self.client_of(node), (parcel.commands,))
            for node, parcel in parcels.items():
                answers[node] = finish(started.pop(node), parcel.replies)
        finally:
            for each in started.values():  # only after an interrupt: their replies are not read
                if each.connection is not None:
                    each.connection.disconnect()
                    each.pool.release(each.connection)
        return answers

    def _ask(self, node: Address, command: bytes, seconds: float) -> Any:
        """Asks a node on a new connection, so that no replies are mixed up."""
        options = {**self._options, **dict.fromkeys(_TIMEOUTS, seconds)}
        options.pop("max_connections", None)  # of a pool, which this connection is not of
        connection: Any = options.pop("connection_class")(host=node.host, port=node.port, **options)
        try:
            connection.connect()
            connection.send_packed_command((command,), check_health=False)
            return connection.read_response()
        except (redis.RedisError, OSError) as error:
            return error
        except UNREADABLE as error:
            return unreadable(error)
        finally:
            connection.disconnect()


class ClusterPipeline(redis.client.Pipeline):
    """Commands that run in one round trip.

    Args:
        cluster: where they run.
        transaction: whether those of a slot run in one transaction.
    """

    def __init__(self, cluster: ClusterClient, *, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster
        self._run = cluster.transactions if transaction else cluster.round_trip

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's signature
        """Runs them; returns their replies, converted.

        Raises:
            redis.RedisError: the first error among the replies, if it is to be raised.
        """
        stack, self.command_stack = self.command_stack, []
        if not stack:
            return []
        replies = self._run([args for args, _ in stack])
        converted = []
        for (args, options), reply in zip(stack, replies, strict=True):
            try:
                converted.append(self._cluster.converted(args, options, reply))
            except redis.RedisError as error:
                if raise_on_error:
                    raise
                converted.append(error)
        return converted


class AsyncClusterClient:
    """What an asynchronous producer needs of a cluster.

    Args:
        seeds: where to ask first which nodes there are.
        options: of redis-py's asyncio, for the connections to each node.
        tls: whether the nodes want TLS.
    """

    def __init__(self, seeds: Sequence[Address], options: Mapping[str, Any], *, tls: bool) -> None:
        self.nodes = Nodes(seeds)
        self._options = _node_options(options, AsyncSSLConnection if tls else AsyncConnection)
        self._clients: dict[Address, redis.asyncio.Redis] = {}
        # Only for how it converts replies: it is never connected.
        self._converts = redis.asyncio.Redis(connection_pool=redis.asyncio.ConnectionPool(**self._options))

    async def exchange(self, commands: Sequence[bytes], slots: Sequence[int], wait: Replicas = 0) -> list[Any]:
        """Runs packed commands; as ``ClusterClient.exchange``."""
        units = [Command(slot, (each,)) for slot, each in zip(slots, commands, strict=True)]
        return [reply for [reply] in await self._run(self.nodes.trip(units, wait))]

    async def query(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Runs commands in one round trip; returns their replies as redis-py converts them.

        Raises:
            redis.RedisError: a node did not answer, or refused.
        """
        every = list(commands)
        units = [Command(slot, (pack(each),)) for slot, each in zip(_slots_of(every), every, strict=True)]
        replies = []
        for words, [reply] in zip(every, await self._run(self.nodes.trip(units)), strict=True):
            if isinstance(reply, Exception):
                raise reply
            callback: Any = self._converts.response_callbacks.get(words[0])
            replies.append(reply if callback is None else callback(reply))
        return replies

    async def aclose(self) -> None:
        """Closes all connections."""
        for each in self._clients.values():
            await each.aclose()

    def _client_of(self, node: Address) -> redis.asyncio.Redis:
        client = self._clients.get(node)
        if client is None:
            at = {**self._options, "host": node.host, "port": node.port}
            pool = waiting_pool(at["socket_timeout"], **at)
            client = self._clients[node] = redis.asyncio.Redis.from_pool(pool)
        return client

    async def _run(self, steps: Steps[Any]) -> Any:
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._perform(step))
        except StopIteration as end:
            return end.value

    async def _perform(self, step: Step) -> Any:
        match step:
            case Write(parcels):
                trips = (exchange_async(self._client_of(node), *parcel) for node, parcel in parcels.items())
                return dict(zip(parcels, await asyncio.gather(*trips), strict=True))
            case AskForSlots(node):
                return await self._ask(node, _ASK_FOR_SLOTS, self.nodes.map_seconds)
            case Ping(node):
                return not isinstance(await self._ask(node, _PING, PROBE_SECONDS), Exception)
            case Rest(seconds):
                return await asyncio.sleep(seconds)

    async def _ask(self, node: Address, command: bytes, seconds: float) -> Any:
        options = {**self._options, **dict.fromkeys(_TIMEOUTS, seconds)}
        options.pop("max_connections", None)  # of a pool, which this connection is not of
        connection: Any = options.pop("connection_class")(host=node.host, port=node.port, **options)
        try:
            await connection.connect()
            await connection.send_packed_command((command,), check_health=False)
            return await connection.read_response()
        except (redis.RedisError, OSError) as error:
            return error
        except UNREADABLE as error:
            return unreadable(error)
        finally:
            await connection.disconnect(nowait=True)
