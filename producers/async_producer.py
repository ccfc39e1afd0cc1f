"""``ContactProducer`` for asyncio (docs/reference/contract.md, section 7)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Self, Unpack

from producers.contract.change import ContactChange
from producers.contract.query import Query, ask_async
from producers.nodes.cluster import AsyncClusterClient
from producers.protocol import ProducerProtocol
from producers.receipt import AsyncSentReceipt
from producers.send.chunk import CHUNK_SIZE
from producers.send.errors import NotAccepted
from producers.send.intake import AsyncIntake, Intake
from producers.send.report import SendReport
from producers.send.steps import Block, Exchange, Sleep, Take, run_async
from producers.send.transport import Appender, connect_async
from producers.settings import producer_settings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from types import TracebackType

    import redis.asyncio

    from producers.contract.change import ChangeOptions, Lane
    from producers.receipt import DeliveryStatus, Receipt
    from producers.send.chunk import Chunk
    from producers.send.intake import Item
    from producers.send.report import Forwarded, Replies
    from producers.send.steps import Step
    from producers.settings import ProducerSettings


class _Trip:
    """Single changes that wait for the same round trip.

    Args:
        chunk: an empty one.
    """

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self._entry_ids: list[asyncio.Future[str]] = []

    def add(self, change: ContactChange, protocol: ProducerProtocol) -> asyncio.Future[str]:
        """Checks and stamps a change; its entry's id is known after the round trip.

        Raises:
            InvalidChange: it breaks a rule; nothing was added.
        """
        protocol.admit(self.chunk, change)
        entry_id = asyncio.get_running_loop().create_future()
        self._entry_ids.append(entry_id)
        return entry_id

    def resolve(self, answer: Replies) -> None:
        for index, entry_id in enumerate(self._entry_ids):
            if entry_id.done():  # its task was cancelled meanwhile
                continue
            if (accepted := answer.entry_id(index)) is not None:
                entry_id.set_result(accepted)
                continue
            report = SendReport()
            report.record(self.chunk.only(index), answer.of(index))
            try:
                report.conclude(None)
            except NotAccepted as error:
                entry_id.set_exception(error)

    def fail(self, error: BaseException) -> None:
        for entry_id in self._entry_ids:
            if isinstance(error, Exception) and not entry_id.done():
                entry_id.set_exception(error)
            entry_id.cancel()  # has no effect if it is done


class AsyncContactProducer:
    """``ContactProducer`` with ``await``: the same arguments, stamps and errors.

    Single changes of many tasks share round trips: while one is under way, the changes that arrive gather for the next,
    on one connection. A task that is cancelled while it waits cannot know whether its change was accepted.
    One object belongs to one event loop.

    Args:
        url: Redis, as in CONTACT_SYNC_REDIS_URL; the other settings still come from the environment.
        settings: all settings; without it they come from the environment and ``.env``.
        client: an asyncio client of Redis to use instead of one made from the URL. The caller closes it.
        spool: as for ``ContactProducer``; threads read and write the file, so that the event loop does not wait.
        spool_bytes: largest size of that file.
        clock: returns the Unix time in seconds, for stamping.

    Raises:
        SettingsError: a setting is invalid, or the spool cannot be used.
    """

    def __init__(  # noqa: PLR0913 - each has its name
        self,
        url: str | None = None,
        *,
        settings: ProducerSettings | None = None,
        client: redis.asyncio.Redis | None = None,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        chosen = producer_settings(url, settings)
        self._client = connect_async(chosen.redis_url, chosen.redis_credentials) if client is None else client
        self._owns_client = client is None
        self._appender = Appender(chosen.wait_replicas)
        self._protocol = ProducerProtocol(
            chosen, spool, spool_bytes, clock, cluster=isinstance(self._client, AsyncClusterClient)
        )
        self._waiting: deque[_Trip] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def upsert(self, owner: str, contact: str, **options: Unpack[ChangeOptions]) -> AsyncSentReceipt:
        """Reports that ``contact`` is a contact of ``owner``, new or changed; as ``ContactProducer.upsert``."""
        return await self._send_one(ContactChange(owner=owner, contact=contact, op="upsert", **options))

    async def delete(self, owner: str, contact: str, **options: Unpack[ChangeOptions]) -> AsyncSentReceipt:
        """Reports that ``contact`` is no longer a contact of ``owner``; as ``ContactProducer.delete``."""
        return await self._send_one(ContactChange(owner=owner, contact=contact, op="delete", **options))

    async def send(self, changes: Iterable[Item] | AsyncIterable[Item], *, lane: Lane | None = None) -> list[str]:
        """Appends many changes, in order; as ``ContactProducer.send``, and also takes an asynchronous iterable."""
        stamper, id_max = self._protocol.stamper, self._protocol.id_max
        intake: Intake | AsyncIntake
        if isinstance(changes, AsyncIterable):
            intake = AsyncIntake(changes, stamper, lane, id_max)
        else:
            intake = Intake(changes, stamper, lane, id_max)
        return await run_async(self._protocol.send(intake), self._perform)

    async def forward(self) -> Forwarded:
        """Sends everything that is in the spool; as ``ContactProducer.forward``."""
        return await run_async(self._protocol.forward(), self._perform)

    async def status_of(self, receipt: Receipt) -> DeliveryStatus:
        """Returns the current status of a change; as ``ContactProducer.status_of``."""
        return await run_async(self._protocol.status_of(receipt), self._perform)

    standing = status_of
    """The former name of ``status_of``."""

    async def wait(self, receipt: Receipt, timeout: float = 30.0) -> DeliveryStatus:  # noqa: ASYNC109 - as the other producer
        """Waits until a change is no longer waiting, and returns its status; as ``ContactProducer.wait``."""
        return await run_async(self._protocol.wait(receipt, timeout), self._perform)

    async def pressure(self) -> float:
        """Returns whether a bulk job should slow down, from 0 to 1; as ``ContactProducer.pressure``."""
        return (await run_async(self._protocol.load(), self._perform)).pressure

    async def aclose(self) -> None:
        """Sends what waits, forwards what is spooled, then closes the connections, unless the caller owns them.

        If it is cancelled, what waits is still being sent; call it again.
        """
        if self._sender is not None:
            # Not `await self._sender`: that would cancel the sender too, and so what other tasks send.
            await asyncio.wait([self._sender])
        await run_async(self._protocol.close(), self._perform)
        if self._owns_client:
            await self._client.aclose()

    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send_one(self, change: ContactChange) -> AsyncSentReceipt:
        trip = self._waiting[-1] if self._waiting else None
        if trip is None or len(trip.chunk) >= CHUNK_SIZE:
            trip = _Trip(self._protocol.chunk())
        entry_id = trip.add(change, self._protocol)
        at = trip.chunk.stamps[-1]
        if len(trip.chunk) == 1:
            self._waiting.append(trip)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_waiting())
        receipt = AsyncSentReceipt.of(await entry_id, change, at)
        return receipt.asking(lambda asked: run_async(self._protocol.eta(asked), self._perform))

    async def _send_waiting(self) -> None:
        while self._waiting:
            trip = self._waiting.popleft()
            try:
                answer = await run_async(self._protocol.deliver(trip.chunk), self._perform)
            except BaseException as error:
                # No task may wait forever: neither if the configuration is wrong nor if this task is cancelled.
                for each in (trip, *self._waiting):
                    each.fail(error)
                self._waiting.clear()
                if not isinstance(error, Exception):
                    raise
            else:
                trip.resolve(answer)

    async def _perform(self, step: Step) -> Any:
        match step:
            case Exchange(encoder, chunk):
                return await self._appender.append_async(self._client, encoder, chunk)
            case Take(AsyncIntake() as intake):
                return await intake.take()
            case Take(intake):
                return intake.take()
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Block(call):
                return await asyncio.to_thread(call)
            case Query():
                return await self._ask(step)

    async def _ask(self, query: Query) -> list[Any]:
        if isinstance(self._client, AsyncClusterClient):
            return await self._client.query(query.commands)
        return await ask_async(self._client, query)
