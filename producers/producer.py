"""The client with which upstream applications report contact changes (docs/reference/contract.md, section 7)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, Unpack

from producers.contract.change import ContactChange
from producers.contract.query import Query, ask
from producers.nodes.cluster import ClusterClient
from producers.protocol import ProducerProtocol
from producers.send.fork import renew_in_children
from producers.send.intake import Intake
from producers.send.steps import Block, Exchange, Sleep, Take, run
from producers.send.transport import Appender, connect
from producers.settings import producer_settings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from types import TracebackType

    import redis

    from producers.contract.change import ChangeOptions, Lane
    from producers.receipt import DeliveryStatus, Receipt, SentReceipt
    from producers.send.intake import Item
    from producers.send.pressure import Load
    from producers.send.report import Forwarded
    from producers.send.steps import Step
    from producers.settings import ProducerSettings


class ContactProducer:
    """Appends changes to the event log.

    It connects at first use, and agrees the number of partitions then. One object may be shared between threads and
    used on both sides of a fork. It never sends a change twice by itself: see ``NotAccepted``.

    With a spool, a change that Redis did not accept, or may not have accepted, goes into a local file instead of an
    error, and its receipt is ``spooled``. No later change overtakes it: while the file holds any change, new ones
    go behind it; with a cluster, those of owners of whom it holds any. It is forwarded with its first stamp by
    ``forward``, by ``close``, and before the next call sends (for half a second at most, and not if Redis failed
    just now). Several producers and processes may share one file.

    Args:
        url: Redis, as in CONTACT_SYNC_REDIS_URL; the other settings still come from the environment.
        settings: all settings; without it they come from the environment and ``.env``.
        client: a Redis client to use instead of one made from the URL. The caller closes it. Its timeouts apply; its
            retries apply only to connecting and to reads.
        spool: path of the local file for changes that Redis does not accept; None to raise NotAccepted instead.
        spool_bytes: largest size of that file; by default 64 MiB.
        clock: returns the Unix time in seconds, for stamping.

    Raises:
        SettingsError: a setting is invalid, or the spool cannot be used.
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
        chosen = producer_settings(url, settings)
        self._url, self._credentials = chosen.redis_url, chosen.redis_credentials
        self._appender = Appender(chosen.wait_replicas)
        self._client = self._connect() if client is None else client
        self._owns_client = client is None
        self._inherited: list[redis.Redis] = []
        renew_in_children(self)
        self._protocol = ProducerProtocol(chosen, spool, spool_bytes, clock, cluster=self.is_cluster)

    @property
    def id_max(self) -> int:
        """Most characters that an id may have."""
        return self._protocol.id_max

    @property
    def is_cluster(self) -> bool:
        """Whether Redis is a cluster, of which some nodes can be away while others answer."""
        return isinstance(self._client, ClusterClient)

    @property
    def partitions(self) -> int | None:
        """The number of partitions of the log; None until it was agreed, at the first use."""
        return self._protocol.partitions

    def _connect(self) -> redis.Redis:
        return connect(self._url, credentials=self._credentials)

    def renew_after_fork(self) -> None:
        """Opens connections of its own in a child process. A client that was passed in stays: it is the caller's."""
        if self._owns_client:
            self._inherited.append(self._client)  # neither used nor closed: its sockets are the parent's
            self._client = self._connect()

    def upsert(self, owner: str, contact: str, **options: Unpack[ChangeOptions]) -> SentReceipt:
        """Reports that ``contact`` is a contact of ``owner``, new or changed.

        Args:
            owner: the owner's XC user id.
            contact: the contact's XC user id.
            options: ``at``, ``source``, ``traceparent`` and ``lane``; see ``ChangeOptions``.

        Returns:
            The id of the entry in the log, or ``spooled``; ``status_of`` and ``wait`` take it as a receipt.

        Raises:
            InvalidChange: an argument breaks a rule of docs/reference/contract.md, section 2.
            NotAccepted: Redis did not accept the change, or may not have; SpoolFull if the spool has no room for it.
            PartitionsMismatch: the log has another number of partitions than configured.
        """
        change = ContactChange(owner=owner, contact=contact, op="upsert", **options)
        return self._send_one(change)

    def delete(self, owner: str, contact: str, **options: Unpack[ChangeOptions]) -> SentReceipt:
        """Reports that ``contact`` is no longer a contact of ``owner``; arguments and errors as for ``upsert``."""
        change = ContactChange(owner=owner, contact=contact, op="delete", **options)
        return self._send_one(change)

    def send(self, changes: Iterable[Item], *, lane: Lane | None = None) -> list[str]:
        """Appends many changes, in order, with one round trip per thousand.

        The iterable may have any length: it is never held as a whole. Each change is stamped as it is taken. It is sent
        once there are a thousand, or the iterable ends. If Redis becomes unavailable on the way, the rest is still
        taken and stamped, so that the error can carry it; so split an endless iterable into several calls.

        Args:
            changes: changes, or mappings of their fields.
            lane: ``bulk`` if nobody waits for these changes; for changes without a lane of their own. None is ``live``.

        Returns:
            The ids of the entries, in order; ``spooled`` for changes in the spool.

        Raises:
            InvalidChange: a change breaks a rule. Those before it were sent; it and those after it were not taken.
            NotAccepted: Redis did not accept some changes, or may not have; the error carries them as stamped.
                SpoolFull if there is a spool and it has no room for them.
            PartitionsMismatch: the log has another number of partitions than configured; nothing was taken.
            Exception: an error that the iterable itself raised; the changes before it were sent.
        """
        intake = Intake(changes, self._protocol.stamper, lane, self._protocol.id_max)
        return run(self._protocol.send(intake), self._perform)

    def forward(self) -> Forwarded:
        """Sends everything that is in the spool, oldest first; it tries at once, even if Redis failed just now.

        Returns:
            How many changes went into the log, how many are left, and why.

        Raises:
            PartitionsMismatch: the log has another number of partitions than configured.
            SpoolError: the spool cannot be read.
        """
        return run(self._protocol.forward(), self._perform)

    def ping(self) -> None:
        """Checks in one round trip that Redis answers.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        self._client.ping()

    def status_of(self, receipt: Receipt) -> DeliveryStatus:
        """Returns the current status of a change, with one round trip; ``DeliveryStatus`` explains the values.

        Args:
            receipt: as ``upsert`` or ``delete`` returned it.

        Raises:
            redis.RedisError: Redis did not answer, or refused.
            PartitionsMismatch: the log has another number of partitions than configured.
        """
        return run(self._protocol.status_of(receipt), self._perform)

    standing = status_of
    """The former name of ``status_of``."""

    def wait(self, receipt: Receipt, timeout: float = 30.0) -> DeliveryStatus:
        """Waits until a change is no longer waiting, and returns its status; asks ever less often, at last every 2 s.

        If the change is in the spool, it is forwarded as soon as Redis is back.

        Args:
            receipt: as ``upsert`` or ``delete`` returned it.
            timeout: longest wait, in seconds; after it the status is still ``waiting``.

        Raises:
            redis.RedisError: Redis did not answer, or refused.
            PartitionsMismatch: the log has another number of partitions than configured.
            SpoolError: the change is in the spool, which cannot be read.
        """
        return run(self._protocol.wait(receipt, timeout), self._perform)

    def pressure(self) -> float:
        """Returns, with one round trip, whether a bulk job should slow down: from 0 (no) to 1 (send nothing more).

        It is the greater of two shares. One rises from 0 to 1 as the bulk lane fills to two million changes, the other
        as Redis' memory in use goes from 50 % to 90 %.

        Raises:
            redis.RedisError: Redis did not answer, or refused.
            PartitionsMismatch: the log has another number of partitions than configured.
        """
        return self.load().pressure

    def load(self) -> Load:
        """Returns what ``pressure`` is computed from; same errors."""
        return run(self._protocol.load(), self._perform)

    def close(self) -> None:
        """Forwards what is spooled, if Redis accepts it, then closes the connections, unless the caller owns them."""
        run(self._protocol.close(), self._perform)
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_one(self, change: ContactChange) -> SentReceipt:
        receipt = run(self._protocol.send_one(change), self._perform)
        return receipt.asking(lambda asked: run(self._protocol.eta(asked), self._perform))

    def _perform(self, step: Step) -> Any:
        match step:
            case Exchange(encoder, chunk):
                return self._appender.append(self._client, encoder, chunk)
            case Take(intake):
                return intake.take()
            case Sleep(seconds):
                return time.sleep(seconds)
            case Block(call):
                return call()
            case Query():
                return ask(self._client, step)
