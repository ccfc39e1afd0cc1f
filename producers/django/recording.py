"""Records changes in Django's transaction, and forwards them right after its commit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Unpack

from django.db import DEFAULT_DB_ALIAS, transaction

from producers.contract.change import ContactChange
from producers.django.forwarding import ForwardLane
from producers.django.settings import forwards_after_commit, read_settings, source
from producers.relay.lane import lane_of
from producers.send.chunk import Chunk
from producers.send.stamp import Stamper
from producers.send.trace import current_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from producers.contract.change import ChangeOptions
    from producers.send.intake import Item

_STAMPER: Final = Stamper(time.time)


def upsert(
    owner: str, contact: str, *, using: str = DEFAULT_DB_ALIAS, **options: Unpack[ChangeOptions]
) -> ContactChange:
    """Records in the current transaction that ``contact`` is a contact of ``owner``, new or changed.

    Args:
        owner: the owner's XC user id.
        contact: the contact's XC user id.
        using: the database of the transaction.
        options: ``at``, ``source``, ``traceparent`` and ``lane``; see ``ChangeOptions``.

    Returns:
        The change as it is recorded, with its ``at``.

    Raises:
        InvalidChange: an argument breaks a rule of docs/reference/contract.md, section 2; nothing is recorded.
        django.db.Error: the database is unavailable, or refuses.
    """
    return record([ContactChange(owner=owner, contact=contact, op="upsert", **options)], using=using)[0]


def delete(
    owner: str, contact: str, *, using: str = DEFAULT_DB_ALIAS, **options: Unpack[ChangeOptions]
) -> ContactChange:
    """Records that ``contact`` is no longer a contact of ``owner``; as ``upsert``."""
    return record([ContactChange(owner=owner, contact=contact, op="delete", **options)], using=using)[0]


def record(changes: Iterable[Item], *, using: str = DEFAULT_DB_ALIAS) -> list[ContactChange]:
    """Records many changes, in order: all of them, or none if one breaks a rule.

    Raises:
        InvalidChange: a change breaks a rule; nothing is recorded.
        django.db.Error: the database is unavailable, or refuses.
    """
    from producers.django.models import Change  # noqa: PLC0415 - Django may load this module before its models

    chunk = Chunk(current_traceparent(), id_max=read_settings().id_max)
    for change in changes:
        chunk.admit(change, _STAMPER)
    if seconds := _STAMPER.ahead_seconds():  # no stamp is written down before the clock has reached it
        time.sleep(seconds)
    recorded = [chunk.stamped(index) for index in range(len(chunk))]
    Change.objects.using(using).bulk_create(
        Change(
            lane=lane_of(each.owner),
            owner=each.owner,
            contact=each.contact,
            op=each.op,
            at=each.at,
            source=each.source if each.source is not None else source(),
            traceparent=each.traceparent,
            delivery_lane=each.lane or "live",
        )
        for each in recorded
    )
    if forwards_after_commit():
        for lane in sorted({lane_of(each.owner) for each in recorded}):
            _forward_after_commit(using, lane)
    return recorded


def _forward_after_commit(using: str, lane: int) -> None:
    connection = transaction.get_connection(using)
    now = set(connection.savepoint_ids)
    forward = ForwardLane(using, lane)
    # Once per lane. One registered in another savepoint does not count: a rollback of that one would discard it.
    if not any(each[1] == forward and each[0] <= now for each in connection.run_on_commit):
        transaction.on_commit(forward, using=using, robust=True)
