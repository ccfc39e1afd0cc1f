"""Forwarding what was committed, over Django's own connections: right after a commit, and as a relay."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import Exists, Min, OuterRef

from producers.cooldown import Cooldown
from producers.django.settings import read_settings
from producers.producer import ContactProducer
from producers.relay.forward import BATCH, FIELDS, Relayed, Waiting, forward_all, send_rows
from producers.send.transport import connect

if TYPE_CHECKING:
    from producers.settings import ProducerSettings

_LOG: Final = logging.getLogger("contact_sync")

SOON_SECONDS: Final = 0.5
"""How soon Redis must answer after a commit: somebody waits for the response. A relay has more time."""

_PAUSE: Final = Cooldown()


@dataclass(frozen=True)
class ForwardLane:
    """Forwards a lane once, right after a commit; whatever goes wrong is left to the relay, and logged.

    Attributes:
        using: the database.
        lane: its number.
    """

    using: str
    lane: int

    def __call__(self) -> None:
        """Forwards, unless Redis was found away just now."""
        if not _PAUSE.over():
            return
        began = time.monotonic()
        try:
            producer = _producer_for(read_settings())
            done = forward_all(
                producer, lambda passed: None if passed else forward_one(producer, self.using, [self.lane])
            )
            cause = done.cause
        except Exception as error:  # noqa: BLE001 - what was committed is committed: the app must not hear of it
            cause = error
        if cause is not None:
            _PAUSE.begin(time.monotonic() - began)
            # Its type alone: what a database says may hold what was written there.
            _LOG.warning("changes wait in the outbox for a relay: %s", type(cause).__name__)


def relay(producer: ContactProducer, using: str = DEFAULT_DB_ALIAS, batches: int | None = None) -> Relayed:
    """Forwards what is there, lane by lane and batch by batch; as ``producers.outbox.Relay.run_once``.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log was begun otherwise than configured.
        django.db.Error: the database is away, busy for too long, or refuses.
    """
    from producers.django.models import Lane  # noqa: PLC0415 - this module is loaded before Django's models may be

    lanes = list(Lane.objects.using(using).values_list("lane", flat=True))
    return forward_all(
        producer, lambda passed: forward_one(producer, using, [each for each in lanes if each not in passed]), batches
    )


def waiting(using: str = DEFAULT_DB_ALIAS) -> Waiting:
    """What lies in the outbox now.

    Raises:
        django.db.Error: the database is away, or refuses.
    """
    from producers.django.models import Change  # noqa: PLC0415 - as above

    there = Change.objects.using(using)
    waits = there.filter(refused=None)
    return Waiting(waits.count(), waits.aggregate(at=Min("at"))["at"], there.exclude(refused=None).count())


def forward_one(producer: ContactProducer, using: str, lanes: list[int]) -> tuple[int, Relayed] | None:
    """One batch of one of these lanes, None where none of them has anything that nobody else forwards.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log was begun otherwise than configured.
        django.db.Error: the database is away, busy for too long, or refuses.
    """
    from producers.django.models import Change, Lane  # noqa: PLC0415 - as above

    has_any = Exists(Change.objects.filter(lane=OuterRef("lane"), refused=None))
    wanted = Lane.objects.using(using).filter(has_any, lane__in=lanes).order_by("lane")
    if connections[using].features.has_select_for_update_skip_locked:
        with transaction.atomic(using, durable=True):
            locked = wanted.select_for_update(skip_locked=True).first()
            return None if locked is None else (locked.lane, _forward(producer, using, locked.lane))
    free = wanted.first()
    if free is None:
        return None
    with transaction.atomic(using, durable=True):
        # A write comes first: it waits its turn. SQLite would refuse one after a read, if another wrote meanwhile.
        Lane.objects.using(using).filter(lane=free.lane).update(lane=free.lane)
        return free.lane, _forward(producer, using, free.lane)


def _forward(producer: ContactProducer, using: str, lane: int) -> Relayed:
    from producers.django.models import Change  # noqa: PLC0415 - as above

    there = Change.objects.using(using)
    rows: Any = there.filter(lane=lane, refused=None).order_by("id").values("id", *FIELDS)[:BATCH]
    sent = send_rows(producer, ((row["id"], row) for row in rows), time.time())
    for row_id, rule in sent.refused:
        there.filter(id=row_id).update(refused=rule)
    if sent.ids:
        there.filter(id__in=sent.ids).delete()
    return sent.told()


@lru_cache(maxsize=8)
def _cached(settings_json: str) -> ContactProducer:
    from producers.settings import ProducerSettings  # noqa: PLC0415 - what it was made from

    settings = ProducerSettings.model_validate_json(settings_json)
    return ContactProducer(settings=settings, client=connect(settings.redis_url, SOON_SECONDS))


def _producer_for(settings: ProducerSettings) -> ContactProducer:
    return _cached(settings.model_dump_json())
