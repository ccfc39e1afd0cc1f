"""The relay: forwards what was committed to the event log, in order per owner, at least once.

A relay holds one lane at a time: it locks the lane's row, sends the lane's oldest changes, removes them, and commits.
Killed between sending and commit it leaves them there, and they are sent again; each carries the ``at`` it was recorded
with, so it joins with itself. Several relays take different lanes; so no two ever send changes of one owner at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, exists, func, inspect, select, update
from sqlalchemy.exc import IntegrityError

from producers.contract.errors import ContactSyncError
from producers.outbox.tables import CHANGES, LANE_LOCKS, fill_lanes
from producers.relay.forward import BATCH, Relayed, Waiting, forward_all, send_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from producers.producer import ContactProducer

_SKIPPING: Final = frozenset({"postgresql", "mysql", "mariadb", "oracle"})
"""Databases that can pass over a row which another transaction has locked."""

_WAITS: Final = CHANGES.c.refused.is_(None)


class NoOutbox(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The database has no outbox."""


class Relay:
    """Forwards what was committed.

    Args:
        engine: of the app's database.
        producer: what appends to the log.
        clock: the Unix time in seconds.

    Raises:
        NoOutbox: the database has not both tables.
        sqlalchemy.exc.SQLAlchemyError: the database is away, or refuses.
    """

    def __init__(self, engine: Engine, producer: ContactProducer, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._producer = producer
        self._clock = clock
        self._skips = engine.dialect.name in _SKIPPING
        missing = [table.name for table in (CHANGES, LANE_LOCKS) if not inspect(engine).has_table(table.name)]
        if missing:
            raise NoOutbox(f"the database has no table {missing[0]}: see `contact-sync relay --create-tables`")
        try:
            with engine.begin() as connection:
                fill_lanes(connection)
        except IntegrityError:
            pass  # another relay was faster

    def run_once(self, batches: int | None = None) -> Relayed:
        """Forwards what is there, lane by lane and batch by batch.

        Args:
            batches: after how many to return although there may be more; None for when nothing is left.

        Raises:
            PartitionsMismatch, UnknownLogFormat: the log was begun otherwise than configured.
            sqlalchemy.exc.SQLAlchemyError: the database is away, busy for too long, or refuses.
        """
        return forward_all(self._producer, self._forward_one, batches)

    def waiting(self) -> Waiting:
        """What lies in the outbox now.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database is away, or refuses.
        """
        with self._engine.connect() as connection:
            count, oldest = connection.execute(select(func.count(), func.min(CHANGES.c.at)).where(_WAITS)).one()
            refused = connection.scalar(select(func.count()).select_from(CHANGES).where(~_WAITS))
        return Waiting(int(count), oldest, int(refused or 0))

    def _forward_one(self, passed: set[int]) -> tuple[int, Relayed] | None:
        """One batch of one lane, None where no lane but those has anything that nobody else forwards."""
        wanted = (
            select(LANE_LOCKS.c.lane)
            .where(exists().where(CHANGES.c.lane == LANE_LOCKS.c.lane, _WAITS), LANE_LOCKS.c.lane.not_in(passed))
            .order_by(LANE_LOCKS.c.lane)
            .limit(1)
        )
        if self._skips:
            with self._engine.begin() as connection:
                lane = connection.scalar(wanted.with_for_update(skip_locked=True))
                return None if lane is None else (lane, self._forward(connection, lane))
        with self._engine.connect() as connection:
            lane = connection.scalar(wanted)
        if lane is None:
            return None
        with self._engine.begin() as connection:
            # A write comes first: it waits its turn. SQLite would refuse one after a read, if another wrote meanwhile.
            connection.execute(update(LANE_LOCKS).where(LANE_LOCKS.c.lane == lane).values(lane=lane))
            return lane, self._forward(connection, lane)

    def _forward(self, connection: Connection, lane: int) -> Relayed:
        rows = connection.execute(
            select(CHANGES).where(CHANGES.c.lane == lane, _WAITS).order_by(CHANGES.c.id).limit(BATCH)
        ).mappings()
        sent = send_rows(self._producer, ((int(row["id"]), dict(row)) for row in rows), self._clock())
        for row_id, rule in sent.refused:
            connection.execute(update(CHANGES).where(CHANGES.c.id == row_id).values(refused=rule))
        if sent.ids:
            connection.execute(delete(CHANGES).where(CHANGES.c.id.in_(sent.ids)))
        return sent.told()
