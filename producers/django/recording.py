"""Recording changes in Django's transaction, and forwarding them at once after its commit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from django.db import DEFAULT_DB_ALIAS, transaction

from producers.django.forwarding import ForwardLane
from producers.django.settings import forwards_after_commit, source
from producers.relay.lane import lane_of
from producers.send.chunk import Chunk
from producers.send.stamp import Stamper
from producers.send.trace import current_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from producers.contract.change import ContactChange
    from producers.send.intake import Item

_STAMPER: Final = Stamper(time.time)


def upsert(owner: str, contact: str, *, using: str = DEFAULT_DB_ALIAS, **said: Any) -> ContactChange:
    """Record that ``contact`` is a contact of ``owner``, new or changed, in the transaction that is open.

    Args:
        owner: the owner's XC user id.
        contact: the contact's XC user id.
        using: the database that the transaction is of.
        said: ``at`` (Unix milliseconds), ``source`` and ``traceparent``, as ``ContactProducer.upsert`` takes them.

    Returns:
        The change as it is recorded, with its ``at``.

    Raises:
        InvalidChange: an argument breaks a rule of the contract's section 2; nothing is recorded.
        django.db.Error: the database is away, or refuses.
    """
    return record([{"owner": owner, "contact": contact, "op": "upsert", **said}], using=using)[0]


def delete(owner: str, contact: str, *, using: str = DEFAULT_DB_ALIAS, **said: Any) -> ContactChange:
    """Record that ``contact`` is no contact of ``owner`` any more; as ``upsert``."""
    return record([{"owner": owner, "contact": contact, "op": "delete", **said}], using=using)[0]


def record(changes: Iterable[Item], *, using: str = DEFAULT_DB_ALIAS) -> list[ContactChange]:
    """Record many changes, in order: all of them, or none where one breaks a rule.

    Raises:
        InvalidChange: a change breaks a rule; nothing is recorded.
        django.db.Error: the database is away, or refuses.
    """
    from producers.django.models import Change  # noqa: PLC0415 - this module is loaded before Django's models may be

    chunk = Chunk(current_traceparent())
    for change in changes:
        chunk.admit(change, _STAMPER)
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
    # One that a rollback to a savepoint would take back is none; one that stands forwards this change too.
    if not any(each[1] == forward and each[0] <= now for each in connection.run_on_commit):
        transaction.on_commit(forward, using=using, robust=True)
