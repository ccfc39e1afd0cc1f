"""The client that upstream applications use to say what changed (CONTRACT section 7)."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Self

import redis

from producers.contract.change import ContactChange
from producers.contract.errors import SettingsError
from producers.contract.partitions import agree_partitions
from producers.receipt import DeliveryStatus, Receipt, ReceiptLookup, lookups, status_from, waits
from producers.send.chunk import Chunk, XaddEncoder
from producers.send.intake import Intake, Item
from producers.send.report import Forwarded, Replies, SendReport
from producers.send.stamp import Stamper
from producers.send.trace import current_traceparent
from producers.send.transport import connect, exchange
from producers.settings import ProducerSettings, load_settings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from producers.spool.sender import Spooling


class ContactProducer:
    """Appends changes to the event log.

    It connects at first use, which is also when the number of partitions is agreed. One object may be shared between
    threads and used on both sides of a fork. Nothing is ever sent twice by itself: see ``NotAccepted``.

    With a spool, what Redis did not accept, or perhaps did not, goes into a local file instead of an error, and its
    receipt says ``spooled``. Nothing that is said later overtakes it: while anything is spooled, new changes go behind
    it. It is forwarded, as first stamped, before the next call sends (for half a second at most, and not while Redis
    was found away just now), by ``forward`` and by ``close``. Several producers and processes may share one file.

    Args:
        url: Redis, as in CONTACT_SYNC_REDIS_URL; the other settings still come from the environment.
        settings: all settings; without it they come from the environment and ``.env``.
        client: a Redis client to use instead of one made from the URL; it stays the caller's to close. Its timeouts
            hold, its retries only for connecting.
        spool: path of the local file for changes that Redis does not accept; None for none, and NotAccepted instead.
        spool_bytes: its largest size, 64 MiB unless given: some 500,000 changes.
        clock: the Unix time in seconds, for stamping.

    Raises:
        SettingsError: a setting does not fit, or the spool cannot be used.
    """

    def __init__(  # noqa: PLR0913 - each has its name
        self,
        url: str | None = None,
        *,
        settings: ProducerSettings | None = None,
        client: redis.Redis | None = None,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = resolve_settings(url, settings)
        self._client = connect(self._settings.redis_url) if client is None else client
        self._owns_client = client is None
        self._stamper = Stamper(clock)
        self._encoder: XaddEncoder | None = None
        self._spooling = self._open_spool(spool, spool_bytes)

    def upsert(
        self,
        owner: str,
        contact: str,
        *,
        at: int | None = None,
        source: str | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """Say that ``contact`` is a contact of ``owner``, new or changed.

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
        return self._send_one(change)

    def delete(
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
        return self._send_one(change)

    def send(self, changes: Iterable[Item]) -> list[str]:
        """Append many changes, in order, one round trip per thousand.

        The iterable may be of any length: it is never held whole. Each change is stamped as it is taken, and is sent
        when a thousand are there or the iterable ends. Where Redis is lost on the way, the rest is still taken and
        stamped, to come back in the error; so an endless iterable is better sent in pieces.

        Args:
            changes: changes, or mappings of their fields.

        Returns:
            The ids of the entries, in order; ``spooled`` for those in the spool.

        Raises:
            InvalidChange: a change breaks a rule; those before it were sent, it and those after it were not taken.
            NotAccepted: Redis did not accept some, or perhaps did not; it carries them as stamped. SpoolFull where
                there is a spool, which had no room for them.
            PartitionsMismatch: the log was begun with another number of partitions than configured; nothing was taken.
            Exception: whatever the iterable itself raised; what it gave before was sent.
        """
        delivery = SendReport()
        encoder = self._begin(delivery)
        intake = Intake(changes, self._stamper)
        while chunk := intake.take():
            self._send_chunk(chunk, encoder, delivery)
        return delivery.conclude(intake.failure)

    def forward(self) -> Forwarded:
        """Send what is in the spool, oldest first, all of it; at once, even if Redis was found away just now.

        Returns:
            How many changes went into the log, how many are left, and why.

        Raises:
            PartitionsMismatch: the log was begun with another number of partitions than configured.
            SpoolError: the spool cannot be read.
        """
        return Forwarded(0, 0) if self._spooling is None else self._spooling.forward()

    def deliver(self, chunk: Chunk) -> Replies:
        """What became of changes that are stamped already; with a spool, and in any thread.

        Raises:
            PartitionsMismatch: the log was begun with another number of partitions than configured.
        """
        delivery = SendReport()
        encoder = self._begin(delivery)
        if self._spooling is not None:
            return self._spooling.answer(chunk, encoder, delivery.broken)
        return (
            Replies([], delivery.broken, written=False)
            if encoder is None
            else self._exchange(encoder.pack(chunk), len(chunk))
        )

    def ping(self) -> None:
        """Ask Redis whether it answers, in one round trip.

        Raises:
            redis.RedisError: it does not, or refuses.
        """
        self._client.ping()

    def standing(self, receipt: Receipt) -> DeliveryStatus:
        """How a change stands by now, in one round trip; ``Standing`` says what the answers mean.

        Args:
            receipt: as ``upsert`` or ``delete`` returned it.

        Raises:
            redis.RedisError: Redis did not answer, or refuses.
            PartitionsMismatch: the log was begun with another number of partitions than configured.
        """
        delivery = SendReport()
        encoder = self._agree(delivery)
        if encoder is None:
            raise delivery.broken or redis.ConnectionError("Redis did not answer")
        pipe = self._client.pipeline(transaction=False)
        for place, field in lookups(receipt, self._settings.keys, encoder.partitions):
            pipe.hmget(place, field)
        return status_from(receipt, ReceiptLookup(*(reply[0] for reply in pipe.execute())))

    def wait(self, receipt: Receipt, timeout: float = 30.0) -> DeliveryStatus:
        """Waits until a change has ended, and says how; looks ever less often, every two seconds at last.

        Args:
            receipt: as ``upsert`` or ``delete`` returned it.
            timeout: longest wait, in seconds; then the answer is ``waiting``.

        Raises:
            redis.RedisError: Redis did not answer, or refuses.
            PartitionsMismatch: the log was begun with another number of partitions than configured.
        """
        ends = time.monotonic() + timeout
        for pause in waits(iter(random.random, None)):
            found, left = self.standing(receipt), ends - time.monotonic()
            if found != "waiting" or left <= 0:
                return found
            time.sleep(min(pause, left))
        raise AssertionError  # it never ends drawing

    def close(self) -> None:
        """Forward what is spooled, if Redis takes it; then close the connections, unless the client is the caller's."""
        if self._spooling is not None:
            self._spooling.close()
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_one(self, change: ContactChange) -> Receipt:
        delivery = SendReport()
        encoder = self._begin(delivery)
        chunk = Chunk(current_traceparent())
        chunk.admit(change, self._stamper)
        self._send_chunk(chunk, encoder, delivery)
        return Receipt.of(delivery.conclude(None)[0], chunk.stamped(0))

    def _send_chunk(self, chunk: Chunk, encoder: XaddEncoder | None, delivery: SendReport) -> None:
        self._wait_for_clock()
        if self._spooling is not None:
            delivery.record(chunk, self._spooling.answer(chunk, encoder, delivery.broken))
        elif encoder is None or delivery.broken is not None:
            delivery.refuse(chunk)
        else:
            delivery.record(chunk, self._exchange(encoder.pack(chunk), len(chunk)))

    def _begin(self, delivery: SendReport) -> XaddEncoder | None:
        return self._agree(delivery) if self._spooling is None else self._spooling.begin(delivery)

    def _open_spool(self, path: str | os.PathLike[str] | None, max_bytes: int | None) -> Spooling | None:
        if path is None:
            if max_bytes is not None:
                raise SettingsError("spool_bytes is the size of a spool, and no spool is given")
            return None
        from producers.spool.sender import Spooling  # noqa: PLC0415 - a Python without SQLite still produces

        namespace = self._settings.namespace
        return Spooling(
            path,
            namespace,
            max_bytes,
            agree=self._agree,
            # Looked up at each call: apps' tests record what goes through it (producers/testing.py).
            exchange=lambda commands, count: self._exchange(commands, count),  # noqa: PLW0108 - see above
        )

    def _agree(self, delivery: SendReport) -> XaddEncoder | None:
        # Kept in a local by the caller: another thread that loses its connection forgets the one of the object.
        encoder = self._encoder
        if encoder is None:
            keys = self._settings.keys
            try:
                encoder = XaddEncoder(keys, agree_partitions(self._client, keys, self._settings.partitions))
            except (redis.RedisError, OSError) as error:
                delivery.broken = error
            self._encoder = encoder
        return encoder

    def _exchange(self, commands: bytes, count: int) -> Replies:
        answer = exchange(self._client, commands, count)
        if answer.connection_suspect:
            self._encoder = None  # the number of partitions is agreed anew
        return answer

    def _wait_for_clock(self) -> None:
        if seconds := self._stamper.ahead_seconds():
            time.sleep(seconds)


def resolve_settings(url: str | None, settings: ProducerSettings | None) -> ProducerSettings:
    """The settings of a producer: those given, or the environment's, with ``url`` in place of its Redis if given.

    Raises:
        SettingsError: a setting does not fit, or both are given.
    """
    if url is None:
        return settings or load_settings(ProducerSettings)
    if settings is not None:
        raise SettingsError("a producer takes a url or settings, not both")
    return load_settings(ProducerSettings, redis_url=url)
