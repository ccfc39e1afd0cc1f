"""The relay: forwards committed changes to the event log, in order per owner, at least once.

A relay holds one lane at a time: it locks the lane's row, sends the lane's oldest changes, removes them, and commits.
If it is killed between sending and commit, the changes stay and are sent again. Each keeps the ``at`` it was recorded
with, so sending it twice has no effect. Several relays take different lanes, so no two send changes of one owner.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, inspect, or_, select, update
from sqlalchemy.exc import IntegrityError

from producers.contract.errors import ContactSyncError
from producers.outbox.tables import CHANGES, LANE_LOCKS, fill_lanes, lacks_delivery_lane
from producers.relay.forward import DELIVERY_LANE, Relayed, Waiting, forward_all, send_rows, take_rows
from producers.relay.lane import LANES, NO_LANE
from producers.send.pressure import BulkPermit
from producers.sqlite_text import reading_any_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Select

    from producers.producer import ContactProducer
    from producers.relay.forward import Run

_SKIPPING: Final = frozenset({"postgresql", "mysql", "mariadb", "oracle"})
"""Databases that can skip a row which another transaction has locked."""

_WAITS: Final = CHANGES.c.refused.is_(None)


def _has_changes(dialect: str, *, live_only: bool) -> ColumnElement[bool]:
    """Whether a lane has anything that waits and may be sent.

    MariaDB reads the whole outbox for each EXISTS (measured: 60 ms with 225,000 rows, 2 ms for what stands here), and
    PostgreSQL does that for the other one.
    """
    waits = select(CHANGES.c.id).where(CHANGES.c.lane == LANE_LOCKS.c.lane, *_wanted(live_only=live_only)).limit(1)
    return waits.scalar_subquery().is_not(None) if dialect in {"mysql", "mariadb"} else waits.exists()


def _wanted(*, live_only: bool) -> list[ColumnElement[bool]]:
    return [_WAITS, CHANGES.c.delivery_lane != "bulk"] if live_only else [_WAITS]


class _LaneRows:
    """The rows of one lane that wait, oldest first: producers/relay/forward.py has what is not said here."""

    def __init__(self, connection: Connection, lane: int) -> None:
        self.lane = lane
        self._connection = connection

    def oldest(self, limit: int, *, live_only: bool) -> Sequence[RowMapping]:
        """The oldest rows."""
        return self._rows(select(CHANGES).where(*_wanted(live_only=live_only)).limit(limit))

    def owners(self, limit: int, *, live_only: bool) -> Sequence[tuple[int, str]]:
        """The ids and owners of the oldest rows."""
        wanted = select(CHANGES.c.id, CHANGES.c.owner).where(CHANGES.c.lane == self.lane)
        found = self._connection.execute(
            wanted.where(*_wanted(live_only=live_only)).order_by(CHANGES.c.id).limit(limit)
        )
        return [(int(row_id), owner) for row_id, owner in found]

    def read(self, ids: Sequence[int]) -> Sequence[RowMapping]:
        """Those of these rows that still wait."""
        return self._rows(select(CHANGES).where(_WAITS, CHANGES.c.id.in_(ids)))

    def _rows(self, wanted: Select[Any]) -> Sequence[RowMapping]:
        of_lane = wanted.where(CHANGES.c.lane == self.lane).order_by(CHANGES.c.id)
        return self._connection.execute(of_lane).mappings().all()


class NoOutbox(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The database has no outbox."""


class Relay:
    """Forwards committed changes.

    Args:
        engine: of the app's database.
        producer: appends to the log.
        clock: returns the Unix time in seconds.

    Raises:
        NoOutbox: a table of the outbox is missing.
        sqlalchemy.exc.SQLAlchemyError: the database is unavailable, or refuses.
    """

    def __init__(self, engine: Engine, producer: ContactProducer, *, clock: Callable[[], float] = time.time) -> None:
        self._skips = engine.dialect.name in _SKIPPING
        # Each statement sees what was committed before it. MySQL's default would show a relay that was given a lane its
        # rows as they were before the last relay removed them, and send them twice.
        self._engine = engine.execution_options(isolation_level="READ COMMITTED") if self._skips else engine
        self._producer = producer
        self._bulk = BulkPermit(producer.load)
        self._clock = clock
        missing = [table.name for table in (CHANGES, LANE_LOCKS) if not inspect(engine).has_table(table.name)]
        if missing:
            raise NoOutbox(f"the database has no table {missing[0]}: see `contact-sync relay --create-tables`")
        if lacks_delivery_lane(engine):
            raise NoOutbox(f"{CHANGES.name} has no column {DELIVERY_LANE}: see `contact-sync relay --create-tables`")
        self._fill_lanes()

    def run_once(self, batches: int | None = None) -> Relayed:
        """Forwards what is in the outbox, lane by lane and batch by batch.

        Args:
            batches: how many batches to forward at most; None to go on until nothing is left.

        Raises:
            PartitionsMismatch, UnknownLogFormat: the log does not fit the configuration.
            sqlalchemy.exc.SQLAlchemyError: the database is unavailable, busy for too long, or refuses.
        """
        self._fill_lanes()
        refused = self._refuse_other_lanes()
        done = forward_all(self._producer, self._forward_one, self._bulk, batches)
        return done._replace(refused=done.refused + refused)

    def waiting(self) -> Waiting:
        """Returns what is in the outbox now.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database is unavailable, or refuses.
        """
        with self._engine.connect() as connection:
            count, oldest = connection.execute(select(func.count(), func.min(CHANGES.c.at)).where(_WAITS)).one()
            refused = connection.scalar(select(func.count()).select_from(CHANGES).where(~_WAITS))
        return Waiting(int(count), oldest, int(refused or 0))

    def _fill_lanes(self) -> None:
        """Adds the lanes' rows that are missing: tests that empty all tables remove them, too."""
        try:
            with self._engine.begin() as connection:
                fill_lanes(connection)
        except IntegrityError:
            pass  # another relay filled them first

    def _refuse_other_lanes(self) -> int:
        """Refuses the rows that are in none of the lanes, and returns how many."""
        wrong = [_WAITS, or_(CHANGES.c.lane < 0, CHANGES.c.lane >= LANES)]
        with self._engine.connect() as connection:  # first only read: on SQLite the app would wait for each write
            if connection.scalar(select(CHANGES.c.id).where(*wrong).limit(1)) is None:
                return 0
        with self._engine.begin() as connection:
            return connection.execute(update(CHANGES).where(*wrong).values(refused=NO_LANE)).rowcount

    def _forward_one(self, passed: set[int], run: Run) -> tuple[int, Relayed] | None:
        """Forwards one batch of one other lane; None if no other lane has changes, or other relays hold them all."""
        has_changes = _has_changes(self._engine.dialect.name, live_only=bool(self._bulk.refused))
        wanted = (
            select(LANE_LOCKS.c.lane)
            .where(has_changes, LANE_LOCKS.c.lane.not_in(passed))
            .order_by(LANE_LOCKS.c.lane)
            .limit(1)
        )
        if self._skips:
            with self._engine.begin() as connection:
                lane = connection.scalar(wanted.with_for_update(skip_locked=True))
                return None if lane is None else (lane, self._forward(connection, lane, run))
        with self._engine.connect() as connection:
            lane = connection.scalar(wanted)
        if lane is None:
            return None
        with self._engine.begin() as connection:
            # Begin with a write, which waits for other writers. After a read, SQLite may refuse it.
            connection.execute(update(LANE_LOCKS).where(LANE_LOCKS.c.lane == lane).values(lane=lane))
            return lane, self._forward(connection, lane, run)

    def _forward(self, connection: Connection, lane: int, run: Run) -> Relayed:
        with reading_any_text(connection.connection.dbapi_connection):
            rows = take_rows(_LaneRows(connection, lane), run, self._bulk)
        sent = send_rows(run, ((int(row["id"]), dict(row)) for row in rows), self._clock())
        for row_id, rule in sent.refused:
            connection.execute(update(CHANGES).where(CHANGES.c.id == row_id).values(refused=rule))
        if sent.ids:
            connection.execute(delete(CHANGES).where(CHANGES.c.id.in_(sent.ids)))
        return sent.counted()
