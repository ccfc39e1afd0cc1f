"""``ContactProducer`` for asyncio (CONTRACT section 7)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

import redis
import redis.asyncio

from producers.contract.change import ContactChange
from producers.contract.errors import NotAccepted, SettingsError
from producers.contract.partitions import agree_partitions_async
from producers.producer import ContactProducer, resolve_settings
from producers.receipt import DeliveryStatus, Receipt, ReceiptLookup, lookups, status_from, waits
from producers.send.chunk import CHUNK_SIZE, Chunk, XaddEncoder
from producers.send.intake import AsyncIntake, Item
from producers.send.report import Forwarded, Replies, SendReport
from producers.send.stamp import Stamper
from producers.send.trace import current_traceparent
from producers.send.transport import connect_async, exchange_async

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Iterable
    from types import TracebackType

    from producers.settings import ProducerSettings


class _Waiting(NamedTuple):
    """A single change that waits for the next round trip."""

    chunk: Chunk  # of one, so that it is checked, stamped and accounted for by the one rule there is
    entry_id: asyncio.Future[str]

    def resolve(self, answer: Replies) -> None:
        if self.entry_id.done():  # its task was cancelled meanwhile
            return
        delivery = SendReport()
        delivery.record(self.chunk, answer)
        try:
            self.entry_id.set_result(delivery.conclude(None)[0])
        except NotAccepted as error:
            self.entry_id.set_exception(error)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not self.entry_id.done():
            self.entry_id.set_exception(error)
        self.entry_id.cancel()  # does nothing to one that is done


class AsyncContactProducer:
    """``ContactProducer`` with ``await``: the same arguments, stamps and errors.

    Single changes of many tasks share round trips: while one is under way, those that come meanwhile gather for the
    next, on one connection. A task that is cancelled while it waits cannot know whether its change was accepted.
    One object belongs to one event loop.

    Args:
        url: Redis, as in CONTACT_SYNC_REDIS_URL; the other settings still come from the environment.
        settings: all settings; without it they come from the environment and ``.env``.
        client: an asyncio client of Redis to use instead of one made from the URL; it stays the caller's to close.
        spool: as for ``ContactProducer``; the file is read and written in a thread.
        spool_bytes: its largest size.
        clock: the Unix time in seconds, for stamping.

    Raises:
        SettingsError: a setting does not fit, or the spool cannot be used, or both a client and a spool are given.
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
        self._settings = resolve_settings(url, settings)
        self._client = connect_async(self._settings.redis_url) if client is None else client
        self._owns_client = client is None
        self._stamper = Stamper(clock)
        self._encoder: XaddEncoder | None = None
        self._waiting: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None
        if client is not None and spool is not None:
            raise SettingsError("a producer with a spool makes its own client: give it a url or settings")
        self._spooling = (
            None
            if spool is None and spool_bytes is None
            else ContactProducer(settings=self._settings, spool=spool, spool_bytes=spool_bytes, clock=clock)
        )
        """What delivers where there is a spool, in a thread: its file would hold up the event loop."""

    async def upsert(
        self,
        owner: str,
        contact: str,
        *,
        at: int | None = None,
        source: str | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """Say that ``contact`` is a contact of ``owner``, new or changed; ``ContactProducer.upsert`` with ``await``.

        Args:
            owner: the owner's XC user id.
            contact: the contact's XC user id.
            at: when it happened at its source, in Unix milliseconds; None for now.
            source: who says so, up to 64 bytes.
            traceparent: W3C trace context.

        Returns:
            The id of the entry in the log, or ``spooled``; ``standing`` and ``wait`` take it as a receipt.

        Raises:
            InvalidChange: an argument breaks a rule of CONTRACT section 2.
            NotAccepted: Redis did not accept it, or perhaps did not; SpoolFull where there is a spool without room.
            PartitionsMismatch: the log was begun with another number of partitions than configured.
        """
        change = ContactChange(owner=owner, contact=contact, op="upsert", at=at, source=source, traceparent=traceparent)
        return await self._join_next_round_trip(change)

    async def delete(
        self,
        owner: str,
        contact: str,
        *,
        at: int | None = None,
        source: str | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """Say that ``contact`` is no contact of ``owner`` any more; arguments and errors as in ``upsert``."""
        change = ContactChange(owner=owner, contact=contact, op="delete", at=at, source=source, traceparent=traceparent)
        return await self._join_next_round_trip(change)

    async def send(self, changes: Iterable[Item] | AsyncIterable[Item]) -> list[str]:
        """Append many changes, in order, one round trip per thousand; ``ContactProducer.send`` with ``await``.

        Args:
            changes: changes, or mappings of their fields; an asynchronous iterable of them serves as well.

        Returns:
            The ids of the entries, in order.

        Raises:
            InvalidChange: a change breaks a rule; those before it were sent, it and those after it were not taken.
            NotAccepted: Redis did not accept some, or perhaps did not; it carries them as stamped.
            PartitionsMismatch: the log was begun with another number of partitions than configured; nothing was taken.
            Exception: whatever the iterable itself raised; what it gave before was sent.
        """
        delivery = SendReport()
        encoder = None if self._spooling is not None else await self._agree(delivery)
        intake = AsyncIntake(changes, self._stamper)
        while chunk := await intake.take():
            await self._wait_for_clock()
            if self._spooling is not None:
                delivery.record(chunk, await asyncio.to_thread(self._spooling.deliver, chunk))
            elif encoder is None or delivery.broken is not None:
                delivery.refuse(chunk)
            else:
                delivery.record(chunk, await self._exchange(encoder.pack(chunk), len(chunk)))
        return delivery.conclude(intake.failure)

    async def forward(self) -> Forwarded:
        """Send what is in the spool; ``ContactProducer.forward`` with ``await``."""
        return Forwarded(0, 0) if self._spooling is None else await asyncio.to_thread(self._spooling.forward)

    async def standing(self, receipt: Receipt) -> DeliveryStatus:
        """How a change stands by now; ``ContactProducer.standing`` with ``await``."""
        delivery = SendReport()
        encoder = await self._agree(delivery)
        if encoder is None:
            raise delivery.broken or redis.ConnectionError("Redis did not answer")
        pipe = self._client.pipeline(transaction=False)
        for place, field in lookups(receipt, self._settings.keys, encoder.partitions):
            pipe.hmget(place, field)
        return status_from(receipt, ReceiptLookup(*(reply[0] for reply in await pipe.execute())))

    async def wait(self, receipt: Receipt, timeout: float = 30.0) -> DeliveryStatus:  # noqa: ASYNC109 - as the other producer
        """Waits until a change has ended, and says how; ``ContactProducer.wait`` with ``await``."""
        ends = time.monotonic() + timeout
        for pause in waits(iter(random.random, None)):
            found, left = await self.standing(receipt), ends - time.monotonic()
            if found != "waiting" or left <= 0:
                return found
            await asyncio.sleep(min(pause, left))
        raise AssertionError  # it never ends drawing

    async def aclose(self) -> None:
        """Send what waits, then close the connections, unless the client is the caller's."""
        if self._sender is not None:
            await self._sender
        if self._spooling is not None:
            await asyncio.to_thread(self._spooling.close)
        if self._owns_client:
            await self._client.aclose()

    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _join_next_round_trip(self, change: ContactChange) -> Receipt:
        waiting = _Waiting(Chunk(current_traceparent()), asyncio.get_running_loop().create_future())
        waiting.chunk.admit(change, self._stamper)
        self._waiting.append(waiting)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_waiting())
        return Receipt.of(await waiting.entry_id, waiting.chunk.stamped(0))

    async def _send_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(CHUNK_SIZE, len(self._waiting)))]
            try:
                await self._send_batch(batch)
            except BaseException as error:
                # Nobody may be left waiting: neither for a configuration that does not fit nor when this is cancelled.
                for waiting in (*batch, *self._waiting):
                    waiting.fail(error)
                self._waiting.clear()
                if not isinstance(error, Exception):
                    raise

    async def _send_batch(self, batch: list[_Waiting]) -> None:
        delivery = SendReport()
        encoder = None if self._spooling is not None else await self._agree(delivery)
        await self._wait_for_clock()
        if self._spooling is not None:
            answer = await asyncio.to_thread(self._spooling.deliver, Chunk.joined([each.chunk for each in batch]))
        elif encoder is None:
            answer = Replies([], delivery.broken, written=False)
        else:
            commands = b"".join([encoder.pack(waiting.chunk) for waiting in batch])
            answer = await self._exchange(commands, len(batch))
        for index, waiting in enumerate(batch):
            waiting.resolve(answer.of(index))

    async def _agree(self, delivery: SendReport) -> XaddEncoder | None:
        encoder = self._encoder
        if encoder is None:
            keys = self._settings.keys
            try:
                encoder = XaddEncoder(keys, await agree_partitions_async(self._client, keys, self._settings.partitions))
            except (redis.RedisError, OSError) as error:
                delivery.broken = error
            self._encoder = encoder
        return encoder

    async def _exchange(self, commands: bytes, count: int) -> Replies:
        answer = await exchange_async(self._client, commands, count)
        if answer.connection_suspect:
            self._encoder = None  # the number of partitions is agreed anew
        return answer

    async def _wait_for_clock(self) -> None:
        if seconds := self._stamper.ahead_seconds():
            await asyncio.sleep(seconds)
