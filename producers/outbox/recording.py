"""Records changes in the app's own transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Unpack

from sqlalchemy import Connection, insert
from sqlalchemy.orm import registry

from producers.contract.change import ContactChange, source_fault
from producers.contract.errors import SettingsError
from producers.outbox.tables import CHANGES
from producers.relay.forward import DELIVERY_LANE
from producers.relay.lane import lane_of
from producers.send.chunk import Chunk
from producers.send.stamp import Stamper
from producers.send.trace import current_traceparent
from producers.settings import RecorderSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, scoped_session

    from producers.contract.change import ChangeOptions
    from producers.send.intake import Item


class OutboxRow:
    """A recorded change, mapped for sessions."""

    def __init__(self, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self, name, value)


registry(metadata=CHANGES.metadata).map_imperatively(OutboxRow, CHANGES)


class Outbox:
    """Records changes in the transaction of the data they are about: both are committed, or both are rolled back.

    One object serves all threads and sessions.

    Args:
        source: which system reports the changes, up to 64 bytes, for changes without a source of their own.
        clock: returns the Unix time in seconds. A change without ``at`` is stamped when it is recorded.

    Raises:
        SettingsError: ``source`` is too long, or CONTACT_SYNC_ID_MAX_CHARACTERS is invalid, the one setting it needs.
    """

    def __init__(self, *, source: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self._id_max = load_settings(RecorderSettings).id_max
        if source is not None and (rule := source_fault(source)):
            raise SettingsError(rule)
        self._source = source
        self._stamper = Stamper(clock)

    def upsert(
        self,
        session: Session | AsyncSession | scoped_session[Any] | Connection,
        owner: str,
        contact: str,
        **options: Unpack[ChangeOptions],
    ) -> ContactChange:
        """Records that ``contact`` is a contact of ``owner``, new or changed.

        Args:
            session: of the transaction: a session, asynchronous or not, or a connection.
            owner: the owner's XC user id.
            contact: the contact's XC user id.
            options: ``at``, ``source``, ``traceparent`` and ``lane``; see ``ChangeOptions``.

        Returns:
            The change as it is recorded, with its ``at``.

        Raises:
            InvalidChange: an argument breaks a rule of docs/reference/contract.md, section 2; nothing is recorded.
        """
        return self.record(session, [ContactChange(owner=owner, contact=contact, op="upsert", **options)])[0]

    def delete(
        self,
        session: Session | AsyncSession | scoped_session[Any] | Connection,
        owner: str,
        contact: str,
        **options: Unpack[ChangeOptions],
    ) -> ContactChange:
        """Records that ``contact`` is no longer a contact of ``owner``; as ``upsert``."""
        return self.record(session, [ContactChange(owner=owner, contact=contact, op="delete", **options)])[0]

    def record(
        self, session: Session | AsyncSession | scoped_session[Any] | Connection, changes: Iterable[Item]
    ) -> list[ContactChange]:
        """Records many changes, in order: all of them, or none if one breaks a rule.

        Raises:
            InvalidChange: a change breaks a rule; nothing is recorded.
        """
        chunk = Chunk(current_traceparent(), id_max=self._id_max)
        for change in changes:
            chunk.admit(change, self._stamper)
        if seconds := self._stamper.ahead_seconds():  # no stamp is written down before the clock has reached it
            time.sleep(seconds)
        recorded = [chunk.stamped(index) for index in range(len(chunk))]
        rows = [self._row(change) for change in recorded]
        if isinstance(session, Connection):
            if rows:
                session.execute(insert(CHANGES), rows)
        else:
            session.add_all([OutboxRow(**row) for row in rows])
        return recorded

    def _row(self, change: ContactChange) -> dict[str, Any]:
        return {
            "lane": lane_of(change.owner),
            "owner": change.owner,
            "contact": change.contact,
            "op": change.op,
            "at": change.at,
            "source": change.source if change.source is not None else self._source,
            "traceparent": change.traceparent,
            DELIVERY_LANE: change.lane or "live",
        }
