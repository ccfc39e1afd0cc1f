"""Connections to the master that sentinels name.

redis-py's own sentinel client waits 3 s for a sentinel that is dead and 27 s for one that hangs, connects again to a
master that was deposed, and stays with it as long as it answers. Here every new connection asks which server is the
master, a connection asks again once a second while it is used, and one that leads elsewhere is closed.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis
import redis.asyncio
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry

from producers.contract.query import UNREADABLE
from producers.nodes.driver import DRIVER
from producers.nodes.url import Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SENTINEL_SECONDS: Final = 0.5
"""Longest wait for a sentinel, to connect and for its answer."""

ASK_AGAIN_SECONDS: Final = 1.0
"""How old an answer may be for a connection that is used again. A failover that was asked for leaves the old master
running: until the connection leaves it, it accepts changes that are then lost."""

SHUNNED_SECONDS: Final = 5.0
"""How long a sentinel that failed is asked last."""

_FAILURES: Final = (redis.RedisError, OSError, *UNREADABLE)


class UnknownMasterError(redis.ResponseError):
    """The sentinels answer, but none knows a master of that name."""


class Named(NamedTuple):
    """A sentinel's answer.

    Attributes:
        epoch: of the failover that made it the master; a sentinel that missed a failover names an older one.
        address: of the master.
    """

    epoch: int
    address: Address


class Sentinels:
    """What is known of the sentinels, and which of them to ask; I/O-free.

    Args:
        addresses: of the sentinels.
        master: the master's name.
    """

    def __init__(self, addresses: Iterable[Address], master: str) -> None:
        self.master = master
        self.address: Address | None = None
        self._addresses = tuple(addresses)
        self._shunned: dict[Address, float] = {}
        self._failures: dict[Address, BaseException] = {}
        self._asked = float("-inf")

    @property
    def commands(self) -> list[tuple[str, ...]]:
        """What to ask a sentinel, in one round trip. The epoch and the address are in two answers."""
        return [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master), ("SENTINEL", "MASTER", self.master)]

    def due(self) -> bool:
        """Whether the last answer is too old to go on with."""
        return time.monotonic() - self._asked >= ASK_AGAIN_SECONDS

    def to_ask(self, *, shunned: bool) -> list[Address]:
        """The sentinels that failed lately, or all others."""
        self._asked = now = time.monotonic()
        return [each for each in self._addresses if (self._shunned.get(each, 0.0) > now) is shunned]

    def note_failure(self, sentinel: Address, error: BaseException) -> None:
        """Remembers that a sentinel did not answer, and why."""
        self._failures[sentinel] = error
        self._shunned[sentinel] = time.monotonic() + SHUNNED_SECONDS

    def chosen(self, answers: Iterable[Named | None]) -> Address:
        """The master's address by the answers; None is that of a sentinel that does not know the name.

        Raises:
            UnknownMasterError: no sentinel that answered knows the master.
            redis.ConnectionError: no sentinel answered.
        """
        every = list(answers)
        named = [each for each in every if each is not None]
        if named:
            self.address = max(named, key=lambda each: each.epoch).address
            return self.address
        if every:
            raise UnknownMasterError(f"the sentinels know no master named {self.master!r}")
        why = (f"{each}: {str(error).rstrip('.')}" for each, error in self._failures.items())
        raise redis.ConnectionError(f"no sentinel answers: {'; '.join(why)}")


def read_answer(replies: list[Any]) -> Named | None:
    """Decodes the replies to `Sentinels.commands`; None if the sentinel does not know the name.

    Raises:
        redis.ResponseError: the sentinel refused to answer.
        redis.InvalidResponse: what answers is not a sentinel.
    """
    address, described = replies
    if address is None or (isinstance(described, redis.ResponseError) and "No such master" in str(described)):
        return None
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    try:
        known = dict(zip(described[::2], described[1::2], strict=True))
        host, port = (each.decode() for each in address)
        return Named(int(known.get(b"config-epoch", 0)), Address(host, int(port)))
    except (ValueError, TypeError, AttributeError):
        raise redis.InvalidResponse("it answers as no sentinel does") from None


def _sentinel_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a connection to a sentinel: those for TLS, as for the master; a user and a password of its own."""
    chosen = {name: value for name, value in options.items() if name.startswith("ssl_")}
    for name in ("username", "password"):
        if options.get(f"sentinel_{name}") is not None:
            chosen[name] = options[f"sentinel_{name}"]
    seconds = min([SENTINEL_SECONDS, *(options[each] for each in _TIMEOUTS if options.get(each))])
    return {**chosen, **dict.fromkeys(_TIMEOUTS, seconds), "protocol": 2, "driver_info": DRIVER}


_TIMEOUTS: Final = ("socket_timeout", "socket_connect_timeout")


class MasterFinder:
    """Finds the master of one client's connections. Threads may share it.

    Args:
        sentinels: which to ask.
        connection: the class of a connection to a sentinel.
        options: of such a connection.
    """

    def __init__(self, sentinels: Sentinels, connection: type[Connection], options: Mapping[str, Any]) -> None:
        self._sentinels = sentinels
        self._connection = connection
        self._options = options
        self._open: dict[Address, Connection] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def address(self) -> Address | None:
        """The master that the sentinels named last; None before they were asked."""
        return self._sentinels.address

    def find(self) -> Address:
        """Asks for the master.

        Raises:
            redis.RedisError: no sentinel answers, or none knows the master.
        """
        with self._lock:
            # A sentinel that hangs must not delay whoever others can answer.
            answers = self._answers(shunned=False) or self._answers(shunned=True)
            return self._sentinels.chosen(answers)

    def moved_from(self, address: Address) -> bool:
        """Whether another server is the master; asks at most once a second, and never for long."""
        if self._sentinels.due() and self._lock.acquire(blocking=False):
            try:
                self._sentinels.chosen(self._answers(shunned=False))
            except redis.RedisError:
                return False  # the master that is known is better than none
            finally:
                self._lock.release()
        return self._sentinels.address != address

    def _answers(self, *, shunned: bool) -> list[Named | None]:
        answers: list[Named | None] = []
        for sentinel in self._sentinels.to_ask(shunned=shunned):
            try:
                answers.append(self._answer(sentinel))
            except _FAILURES as error:
                self._sentinels.note_failure(sentinel, error)
        return answers

    def _answer(self, sentinel: Address) -> Named | None:
        if self._pid != os.getpid():  # the sockets are the parent's
            self._open, self._pid = {}, os.getpid()
        connection: Any = self._open.get(sentinel)  # Any, because redis-py does not type connections
        if connection is None:
            connection = self._connection(
                host=sentinel.host, port=sentinel.port, retry=Retry(NoBackoff(), 0), **self._options
            )
            self._open[sentinel] = connection
        replies: list[Any] = []
        try:
            if connection.is_connected and _closed(connection):
                connection.disconnect()
            for words in self._sentinels.commands:
                connection.send_command(*words, check_health=False)
            for _ in self._sentinels.commands:
                try:
                    replies.append(connection.read_response(disconnect_on_error=False))
                except redis.ResponseError as error:
                    replies.append(error)
            return read_answer(replies)
        finally:
            if len(replies) < len(self._sentinels.commands):
                connection.disconnect()


def _closed(connection: Connection) -> bool:
    try:
        return connection.can_read(timeout=0)  # nothing is asked, so only the end of the connection can be there
    except redis.RedisError:
        return True


class AsyncMasterFinder:
    """``MasterFinder`` for asyncio."""

    def __init__(self, sentinels: Sentinels, connection: type[AsyncConnection], options: Mapping[str, Any]) -> None:
        self._sentinels = sentinels
        self._connection = connection
        self._options = options
        self._lock = asyncio.Lock()

    async def find(self) -> Address:
        """Asks for the master; as ``MasterFinder.find``."""
        async with self._lock:
            answers = await self._answers(shunned=False) or await self._answers(shunned=True)
            return self._sentinels.chosen(answers)

    async def moved_from(self, address: Address) -> bool:
        """Whether another server is the master; as ``MasterFinder.moved_from``."""
        if self._sentinels.due() and not self._lock.locked():
            async with self._lock:
                try:
                    self._sentinels.chosen(await self._answers(shunned=False))
                except redis.RedisError:
                    return False
        return self._sentinels.address != address

    async def _answers(self, *, shunned: bool) -> list[Named | None]:
        asked = self._sentinels.to_ask(shunned=shunned)
        answers: list[Named | None] = []
        for sentinel, answer in zip(
            asked, await asyncio.gather(*map(self._answer, asked), return_exceptions=True), strict=True
        ):
            if isinstance(answer, _FAILURES):
                self._sentinels.note_failure(sentinel, answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answers.append(answer)
        return answers

    async def _answer(self, sentinel: Address) -> Named | None:
        connection: Any = self._connection(
            host=sentinel.host, port=sentinel.port, retry=AsyncRetry(NoBackoff(), 0), **self._options
        )
        replies: list[Any] = []
        try:
            for words in self._sentinels.commands:
                await connection.send_command(*words, check_health=False)
            for _ in self._sentinels.commands:
                try:
                    replies.append(await connection.read_response(disconnect_on_error=False))
                except redis.ResponseError as error:
                    replies.append(error)
            return read_answer(replies)
        finally:
            await connection.disconnect(nowait=True)


class MasterConnection(Connection):
    """A connection that leads to the master.

    Args:
        finder: finds it.
        options: of redis-py.
    """

    def __init__(self, *, finder: MasterFinder, **options: Any) -> None:
        self._finder = finder
        super().__init__(**options)  # type: ignore[no-untyped-call] # redis-py leaves it untyped

    def connect(self) -> None:
        """Connects, or does nothing if it leads to the master already."""
        if self.is_connected and self.is_left_behind():
            self.disconnect()  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        super().connect()  # type: ignore[no-untyped-call] # redis-py leaves it untyped

    def is_left_behind(self) -> bool:
        """Whether the server at its other end is no longer the master."""
        return self._finder.moved_from(Address(self.host, self.port))

    def _connect(self) -> Any:
        self.host, self.port = self._finder.find()
        return super()._connect()  # type: ignore[no-untyped-call] # redis-py leaves it untyped


class MasterSSLConnection(MasterConnection, SSLConnection):
    """``MasterConnection`` with TLS."""


class AsyncMasterConnection(AsyncConnection):
    """``MasterConnection`` for asyncio."""

    def __init__(self, *, finder: AsyncMasterFinder, **options: Any) -> None:
        self._finder = finder
        super().__init__(**options)

    async def connect(self) -> None:
        """Connects, or does nothing if it leads to the master already."""
        if self.is_connected and await self._finder.moved_from(Address(self.host, self.port)):
            await self.disconnect()
        await super().connect()  # type: ignore[no-untyped-call] # redis-py leaves it untyped

    async def _connect(self) -> None:
        self.host, self.port = await self._finder.find()
        await super()._connect()  # type: ignore[no-untyped-call] # redis-py leaves it untyped


class AsyncMasterSSLConnection(AsyncMasterConnection, AsyncSSLConnection):
    """``AsyncMasterConnection`` with TLS."""


def master_options(sentinels: Sentinels, options: Mapping[str, Any], *, tls: bool) -> dict[str, Any]:
    """Options of a pool whose connections lead to the master.

    Args:
        sentinels: which to ask.
        options: of the pool otherwise.
        tls: whether the sentinels and the master want it.
    """
    finder = MasterFinder(sentinels, SSLConnection if tls else Connection, _sentinel_options(options))
    return {
        **_without_sentinels_own(options),
        "connection_class": MasterSSLConnection if tls else MasterConnection,
        "finder": finder,
    }


def async_master_options(sentinels: Sentinels, options: Mapping[str, Any], *, tls: bool) -> dict[str, Any]:
    """``master_options`` for asyncio."""
    finder = AsyncMasterFinder(sentinels, AsyncSSLConnection if tls else AsyncConnection, _sentinel_options(options))
    return {
        **_without_sentinels_own(options),
        "connection_class": AsyncMasterSSLConnection if tls else AsyncMasterConnection,
        "finder": finder,
    }


def _without_sentinels_own(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not name.startswith("sentinel_")}
