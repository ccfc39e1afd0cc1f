"""Forwards committed changes over Django's own connections: right after a commit, and as a relay."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import Exists, Min, OuterRef, Q

from producers.cooldown import Cooldown
from producers.django.settings import read_settings
from producers.producer import ContactProducer
from producers.relay.forward import COLUMNS, DELIVERY_LANE, Relayed, Waiting, forward_all, send_rows, take_rows
from producers.relay.lane import LANES, NO_LANE
from producers.send.pressure import BulkPermit
from producers.send.transport import connect
from producers.sqlite_text import reading_any_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producers.relay.forward import Run
    from producers.settings import ProducerSettings

_LOG: Final = logging.getLogger("contact_sync")

SOON_SECONDS: Final = 0.5
"""How soon Redis must answer after a commit, because a user waits for the response. A relay has more time."""

_COOLDOWN: Final = Cooldown()

_BULK: Final = {DELIVERY_LANE: "bulk"}


@dataclass(frozen=True)
class ForwardLane:
    """Forwards a lane once, right after a commit. An error is logged, and the relay forwards what is left.

    Attributes:
        using: the database.
        lane: its number.
    """

    using: str
    lane: int

    def __call__(self) -> None:
        """Forwards, unless Redis failed just now."""
        if not _COOLDOWN.over():
            return
        began = time.monotonic()
        try:
            producer = _producer_for(read_settings())
            bulk = BulkPermit(producer.load)
            done = forward_all(producer, lambda passed, run: None if passed else self._forward(run, bulk), bulk)
            cause = done.cause
        except Exception as error:  # noqa: BLE001 - the transaction is committed: the app must not get an error
            cause = error
        if cause is not None:
            _COOLDOWN.begin(time.monotonic() - began)
            # Only the type: a database's error text may contain data.
            _LOG.warning("changes wait in the outbox for a relay: %s", type(cause).__name__)

    def _forward(self, run: Run, bulk: BulkPermit) -> tuple[int, Relayed] | None:
        done = forward_one(run, self.using, [self.lane], bulk)
        return forward_one(run, self.using, [self.lane], bulk) if done is None and fill_lanes(self.using) else done


def fill_lanes(using: str) -> bool:
    """Adds the lanes' rows that are missing; returns whether any was.

    The migration adds them, and `flush` and each TransactionTestCase remove them with all other rows.

    Raises:
        django.db.Error: the database is unavailable, or refuses.
    """
    from producers.django.models import Lane  # noqa: PLC0415 - Django may load this module before its models

    there = set(Lane.objects.using(using).values_list("lane", flat=True))
    missing = [Lane(lane=lane) for lane in range(LANES) if lane not in there]
    Lane.objects.using(using).bulk_create(missing, ignore_conflicts=True)  # another process may add them, too
    return bool(missing)


def relay(
    producer: ContactProducer,
    using: str = DEFAULT_DB_ALIAS,
    batches: int | None = None,
    bulk: BulkPermit | None = None,
) -> Relayed:
    """Forwards what is in the outbox, lane by lane and batch by batch; as ``producers.outbox.Relay.run_once``.

    Args:
        producer: appends to the log.
        using: the database.
        batches: how many batches to forward at most; None to go on until nothing is left.
        bulk: whether bulk changes may be sent; a relay that runs again and again keeps one.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log does not fit the configuration.
        django.db.Error: the database is unavailable, busy for too long, or refuses.
    """
    fill_lanes(using)
    refused = _refuse_other_lanes(using)
    permit = BulkPermit(producer.load) if bulk is None else bulk

    def one(passed: set[int], run: Run) -> tuple[int, Relayed] | None:
        return forward_one(run, using, [lane for lane in range(LANES) if lane not in passed], permit)

    done = forward_all(producer, one, permit, batches)
    return done._replace(refused=done.refused + refused)


def _refuse_other_lanes(using: str) -> int:
    """Refuses the rows that are in none of the lanes, and returns how many."""
    from producers.django.models import Change  # noqa: PLC0415 - as above

    wrong = Change.objects.using(using).filter(Q(lane__lt=0) | Q(lane__gte=LANES), refused=None)
    # First only read: on SQLite the app would wait for each write.
    return wrong.update(refused=NO_LANE) if wrong.exists() else 0


def waiting(using: str = DEFAULT_DB_ALIAS) -> Waiting:
    """Returns what is in the outbox now.

    Raises:
        django.db.Error: the database is unavailable, or refuses.
    """
    from producers.django.models import Change  # noqa: PLC0415 - as above

    there = Change.objects.using(using)
    waits = there.filter(refused=None)
    return Waiting(waits.count(), waits.aggregate(at=Min("at"))["at"], there.exclude(refused=None).count())


def forward_one(run: Run, using: str, lanes: list[int], bulk: BulkPermit) -> tuple[int, Relayed] | None:
    """Forwards one batch of one of these lanes; None if none has changes, or other relays hold them all.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log does not fit the configuration.
        django.db.Error: the database is unavailable, busy for too long, or refuses.
    """
    from producers.django.models import Change, Lane  # noqa: PLC0415 - as above

    waits = Change.objects.filter(lane=OuterRef("lane"), refused=None)
    has_any = Exists(waits.exclude(**_BULK) if bulk.refused else waits)
    wanted = Lane.objects.using(using).filter(has_any, lane__in=lanes).order_by("lane")
    if connections[using].features.has_select_for_update_skip_locked:
        with transaction.atomic(using, durable=True):
            locked = wanted.select_for_update(skip_locked=True).first()
            return None if locked is None else (locked.lane, _forward(run, using, locked.lane, bulk))
    free = wanted.first()
    if free is None:
        return None
    with transaction.atomic(using, durable=True):
        # Begin with a write, which waits for other writers. After a read, SQLite may refuse it.
        Lane.objects.using(using).filter(lane=free.lane).update(lane=free.lane)
        return free.lane, _forward(run, using, free.lane, bulk)


class _LaneRows:
    """The rows of one lane that wait, oldest first: producers/relay/forward.py has what is not said here."""

    def __init__(self, using: str, lane: int) -> None:
        from producers.django.models import Change  # noqa: PLC0415 - as above

        self.lane = lane
        self._waits = Change.objects.using(using).filter(lane=lane, refused=None).order_by("id")

    def oldest(self, limit: int, *, live_only: bool) -> Sequence[dict[str, Any]]:
        """The oldest rows."""
        return list(self._wanted(live_only=live_only).values("id", *COLUMNS)[:limit])

    def owners(self, limit: int, *, live_only: bool) -> Sequence[tuple[int, str]]:
        """The ids and owners of the oldest rows."""
        return list(self._wanted(live_only=live_only).values_list("id", "owner")[:limit])

    def read(self, ids: Sequence[int]) -> Sequence[dict[str, Any]]:
        """Those of these rows that still wait."""
        return list(self._waits.filter(id__in=ids).values("id", *COLUMNS))

    def _wanted(self, *, live_only: bool) -> Any:
        return self._waits.exclude(**_BULK) if live_only else self._waits


def _forward(run: Run, using: str, lane: int, bulk: BulkPermit) -> Relayed:
    from producers.django.models import Change  # noqa: PLC0415 - as above

    there = Change.objects.using(using)
    with reading_any_text(connections[using].connection):
        rows = take_rows(_LaneRows(using, lane), run, bulk)
    sent = send_rows(run, ((row["id"], row) for row in rows), time.time())
    for row_id, rule in sent.refused:
        there.filter(id=row_id).update(refused=rule)
    if sent.ids:
        there.filter(id__in=sent.ids).delete()
    return sent.counted()


@lru_cache(maxsize=8)
def _cached(settings_json: str) -> ContactProducer:
    from producers.settings import ProducerSettings  # noqa: PLC0415 - as above

    settings = ProducerSettings.model_validate_json(settings_json)
    return ContactProducer(
        settings=settings, client=connect(settings.redis_url, SOON_SECONDS, settings.redis_credentials)
    )


def _producer_for(settings: ProducerSettings) -> ContactProducer:
    return _cached(settings.model_dump_json())
