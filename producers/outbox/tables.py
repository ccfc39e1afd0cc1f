"""The two tables of the outbox for SQLAlchemy; Django's migration creates the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    insert,
    inspect,
    select,
)
from sqlalchemy.dialects.mysql import VARCHAR

from producers.relay.forward import DELIVERY_LANE
from producers.relay.lane import LANES

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

metadata: Final = MetaData()
"""Metadata of both tables. Give it to Alembic with your own: ``target_metadata = [Base.metadata, metadata]``."""


def _text(length: int) -> String:
    """Text of any language: a database of MySQL or MariaDB may have a default that holds no Chinese."""
    every_character = VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(every_character, "mysql", "mariadb")


CHANGES: Final = Table(
    "contact_sync_outbox",
    metadata,
    # A lane's changes are sent in the order of their ids.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("lane", SmallInteger, nullable=False),
    Column("owner", _text(256), nullable=False),
    Column("contact", _text(256), nullable=False),
    Column("op", _text(6), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("source", _text(64)),
    Column("traceparent", _text(256)),
    # The default is the database's own, for writers that do not know the column yet.
    Column(DELIVERY_LANE, String(4), nullable=False, server_default="live"),
    # Why the row cannot be sent; only a row that somebody wrote by hand can need it. Such a row is kept and skipped.
    Column("refused", _text(200)),
    Index("contact_sync_outbox_lane_id", "lane", "id"),
    sqlite_autoincrement=True,
)

LANE_LOCKS: Final = Table(
    "contact_sync_outbox_lane",
    metadata,
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
)


_ADD_LANE: Final = f"ALTER TABLE {CHANGES.name} ADD COLUMN {DELIVERY_LANE} VARCHAR(4) DEFAULT 'live' NOT NULL"


def create_tables(engine: Engine) -> None:
    """Creates the tables if they are missing, and adds the column that tables of an earlier version lack.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database is unavailable, or refuses.
    """
    metadata.create_all(engine)
    lacks_lane = lacks_delivery_lane(engine)
    with engine.begin() as connection:
        if lacks_lane:
            connection.exec_driver_sql(_ADD_LANE)
        fill_lanes(connection)


def lacks_delivery_lane(engine: Engine) -> bool:
    """Returns whether the table of changes was created by a version without lanes."""
    return DELIVERY_LANE not in {column["name"] for column in inspect(engine).get_columns(CHANGES.name)}


def fill_lanes(connection: Connection) -> None:
    """Inserts the missing rows of the lanes, which relays lock; a migration may have created only the table."""
    there = set(connection.scalars(select(LANE_LOCKS.c.lane)))
    missing = [{"lane": lane} for lane in range(LANES) if lane not in there]
    if missing:
        connection.execute(insert(LANE_LOCKS), missing)
