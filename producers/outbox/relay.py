"""The relay: forwards what was committed to the event log, in order per owner, at least once.

A relay holds one lane at a time: it locks the lane's row, sends the lane's oldest changes, removes them, and commits.
Killed between sending and commit it leaves them there, and they are sent again; each carries the ``at`` it was recorded
with, so it joins with itself. Several relays take different lanes; so no two ever send changes of one owner at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis
from sqlalchemy import delete, exists, func, inspect, select, update
from sqlalchemy.exc import IntegrityError

from producers.change import AT_AHEAD_MS, ContactChange
from producers.errors import ContactSyncError, InvalidChange, NotAccepted
from producers.outbox.tables import CHANGES, LANE_LOCKS, fill_lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine, Row

    from producers.producer import ContactProducer

BATCH: Final = 500
"""Changes sent in one transaction."""

_SKIPPING: Final = frozenset({"postgresql", "mysql", "mariadb", "oracle"})
"""Databases that can pass over a row which another transaction has locked."""

_FIELDS: Final = ("owner", "contact", "op", "at", "source", "traceparent")
_WAITS: Final = CHANGES.c.refused.is_(None)


class NoOutbox(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The database has no outbox."""


class Relayed(NamedTuple):
    """What one run did.

    Attributes:
        forwarded: changes that are in the log now and no longer in the outbox.
        refused: rows that break a rule of the contract: they stay, marked with the reason, and are skipped.
        cause: what kept the run from forwarding all, None if nothing did.
    """

    forwarded: int
    refused: int
    cause: Exception | None = None


class Waiting(NamedTuple):
    """What lies in the outbox.

    Attributes:
        changes: committed and not forwarded.
        oldest_at: when the oldest of them happened (Unix ms), None if there is none.
        refused: rows that cannot be sent.
    """

    changes: int
    oldest_at: int | None
    refused: int


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
        forwarded = refused = 0
        cause: Exception | None = None
        stuck: set[int] = set()
        try:
            self._producer.ping()  # before any lock: on SQLite the app itself would wait with us
        except (redis.RedisError, OSError) as error:
            return Relayed(0, 0, error)
        while batches is None or batches > 0:
            passed = set(stuck)  # each lane once before any twice, so that a long one holds up no other
            while (batches is None or batches > 0) and (one := self._forward_one(passed)) is not None:
                lane, done = one
                batches = None if batches is None else batches - 1
                passed.add(lane)
                forwarded, refused = forwarded + done.forwarded, refused + done.refused
                if done.cause is not None:
                    cause = cause or done.cause
                    stuck.add(lane)
                    if isinstance(done.cause, (redis.ConnectionError, redis.TimeoutError, OSError)):
                        return Relayed(forwarded, refused, cause)
            if passed == stuck:
                break
        return Relayed(forwarded, refused, cause)

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
        ).all()
        fits, refused = self._checked(rows)
        for row_id, rule in refused:
            connection.execute(update(CHANGES).where(CHANGES.c.id == row_id).values(refused=rule[:200]))
        failed: set[tuple[str, str]] = set()
        cause: Exception | None = None
        try:
            self._producer.send([change for _, change in fits])
        except NotAccepted as error:
            # What came through of such a pair comes again with the rest of it, behind what did not: in order.
            failed, cause = {(each.owner, each.contact) for each in error.changes}, error.cause
        sent = [row_id for row_id, change in fits if (change.owner, change.contact) not in failed]
        if sent:
            connection.execute(delete(CHANGES).where(CHANGES.c.id.in_(sent)))
        return Relayed(len(sent), len(refused), cause)

    def _checked(self, rows: Sequence[Row[Any]]) -> tuple[list[tuple[int, ContactChange]], list[tuple[int, str]]]:
        """The rows that may be sent, and those that break a rule: somebody wrote them by hand."""
        fits: list[tuple[int, ContactChange]] = []
        refused: list[tuple[int, str]] = []
        latest = self._clock() * 1000 + AT_AHEAD_MS
        for row in rows:
            try:
                change = ContactChange(**{name: row._mapping[name] for name in _FIELDS})  # noqa: SLF001 - its public name
                if change.at is None or change.at > latest:
                    raise InvalidChange(f"at must be at most {AT_AHEAD_MS // 60_000} minutes ahead")  # noqa: TRY301 - as above
            except InvalidChange as error:
                refused.append((row.id, error.rule))
            else:
                fits.append((row.id, change))
        return fits, refused
