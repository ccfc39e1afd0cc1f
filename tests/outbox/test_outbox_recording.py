"""Recording in the app's own transaction: committed with it, rolled back with it, checked and stamped at once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from producers import ContactChange, InvalidChange
from producers.contract.change import partition_of
from producers.contract.errors import SettingsError
from producers.outbox import Outbox, metadata
from producers.outbox.tables import CHANGES

if TYPE_CHECKING:
    from sqlalchemy import Engine

T = 1_795_460_847_757
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def rows(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(each) for each in connection.execute(select(CHANGES).order_by(CHANGES.c.id)).mappings()]


def said(engine: Engine) -> list[tuple[str, str, str, int]]:
    return [(each["op"], each["owner"], each["contact"], each["at"]) for each in rows(engine)]


def test_a_change_is_committed_with_what_it_is_about_and_stamped_when_it_was_recorded(engine: Engine) -> None:
    outbox = Outbox(source="crm", clock=lambda: T / 1000)
    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO contacts VALUES ('ünï', '2')"))
        recorded = outbox.upsert(session, "ünï", "2", traceparent=TRACE)
        outbox.delete(session, owner="1", contact="9", at=T - 5, source="importer")
        assert said(engine) == []  # nobody else sees it yet
    assert recorded == ContactChange(owner="ünï", contact="2", op="upsert", at=T, traceparent=TRACE)
    assert said(engine) == [("upsert", "ünï", "2", T), ("delete", "1", "9", T - 5)]
    first, second = rows(engine)
    assert (first["lane"], first["source"], first["traceparent"]) == (partition_of("ünï", 16), "crm", TRACE)
    assert (second["source"], second["refused"]) == ("importer", None)


def test_a_source_that_no_relay_would_send_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match=r"^source must be a string of at most 64 bytes of UTF-8$"):
        Outbox(source="\u4e16" * 22)


def test_no_stamp_is_recorded_before_the_clock_has_reached_it(engine: Engine) -> None:
    """Else a later change, recorded elsewhere, would count as the older one."""
    with Session(engine) as session, session.begin():
        both = [{"owner": "1", "contact": str(n), "op": op} for n in range(200) for op in ("delete", "upsert")]
        newest = max(each.at or 0 for each in Outbox().record(session, both))
        assert newest <= time.time() * 1000


def test_the_lane_is_recorded_and_is_live_for_rows_that_name_none(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        Outbox().upsert(session, "1", "2")
        Outbox().delete(session, "1", "3", lane="bulk")
        columns = "lane, owner, contact, op, at"
        session.execute(text(f"INSERT INTO contact_sync_outbox ({columns}) VALUES (0, '1', '4', 'upsert', {T})"))  # noqa: S608 - constants
        with pytest.raises(InvalidChange, match=r"^lane must be 'live' or 'bulk'$"):
            Outbox().upsert(session, "1", "5", lane="x")  # type: ignore[arg-type] # that is the case
    assert [(each["contact"], each["delivery_lane"]) for each in rows(engine)] == [
        ("2", "live"),
        ("3", "bulk"),
        ("4", "live"),
    ]


def test_what_is_rolled_back_was_never_said(engine: Engine) -> None:
    outbox = Outbox()
    with Session(engine) as session:
        outbox.upsert(session, "1", "2")
        session.rollback()

    def fail() -> None:
        with Session(engine) as session, session.begin():
            outbox.upsert(session, "1", "3")
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with Session(engine) as session, session.begin():
        outbox.upsert(session, "1", "4", at=T)
        with session.begin_nested() as savepoint:
            outbox.upsert(session, "1", "5")
            session.flush()
            savepoint.rollback()
    assert said(engine) == [("upsert", "1", "4", T)]


def test_an_option_cannot_replace_the_op(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(TypeError, match="'op'"):
        Outbox().upsert(session, "1", "2", op="delete")  # type: ignore[call-arg] # the mistake under test


def test_an_id_of_more_characters_than_the_settings_allow_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTACT_SYNC_ID_MAX_CHARACTERS", "3")
    monkeypatch.setenv("CONTACT_SYNC_REDIS_URL", "nonsense")  # an app that records needs no Redis
    with Session(engine) as session, session.begin():
        Outbox().upsert(session, "界界界", "2")
        with pytest.raises(InvalidChange, match=r"^contact must have at most 3 characters"):
            Outbox().upsert(session, "1", "1234")
    assert [each["owner"] for each in rows(engine)] == ["界界界"]


def test_many_are_recorded_in_order_or_none_of_them(engine: Engine) -> None:
    outbox = Outbox()
    with Session(engine) as session, session.begin():
        outbox.record(session, ({"owner": "1", "contact": str(n), "op": "upsert", "at": T + n} for n in range(2_000)))
        with pytest.raises(InvalidChange, match="op must be"):
            outbox.record(
                session,
                [{"owner": "1", "contact": "x", "op": "upsert"}, {"owner": "1", "contact": "x", "op": "update"}],
            )
        with pytest.raises(InvalidChange, match="owner"):
            outbox.delete(session, "", "x")
        with pytest.raises(InvalidChange, match="5 minutes ahead"):
            outbox.delete(session, "1", "x", at=T * 2)
    assert [each["contact"] for each in rows(engine)] == [str(n) for n in range(2_000)]


def test_a_connection_and_a_scoped_session_serve_too(engine: Engine) -> None:
    outbox = Outbox()
    with engine.begin() as connection:
        outbox.upsert(connection, "1", "2", at=T)
        outbox.record(connection, [])
    with engine.connect() as connection:
        outbox.upsert(connection, "1", "3", at=T)
        connection.rollback()
    scoped = scoped_session(sessionmaker(engine))
    outbox.delete(scoped, "1", "4", at=T)
    scoped.commit()
    scoped.remove()
    assert said(engine) == [("upsert", "1", "2", T), ("delete", "1", "4", T)]


def test_an_asynchronous_session_records_the_same(engine: Engine, database_url: str) -> None:
    async def record() -> None:
        asynchronous = create_async_engine(
            database_url.replace("sqlite:", "sqlite+aiosqlite:").replace("pymysql", "aiomysql")
        )
        outbox = Outbox()
        async with AsyncSession(asynchronous) as session, session.begin():
            outbox.upsert(session, "1", "2", at=T)
        async with AsyncSession(asynchronous) as session:
            outbox.upsert(session, "1", "3", at=T)
            await session.rollback()
        await asynchronous.dispose()

    asyncio.run(record())
    assert said(engine) == [("upsert", "1", "2", T)]


def test_ids_as_long_as_the_contract_allows_fit_into_the_columns(engine: Engine) -> None:
    longest = "9" * 256
    with Session(engine) as session, session.begin():
        Outbox(source="s" * 64).upsert(session, longest, "界" * 85)
    assert rows(engine)[0]["owner"] == longest


def test_the_tables_can_be_made_beside_the_apps_own(database_url: str) -> None:
    own = sqlalchemy.MetaData()
    for table in metadata.tables.values():
        table.to_metadata(own)
    engine = sqlalchemy.create_engine(database_url)
    own.create_all(engine)
    with Session(engine) as session, session.begin():
        Outbox().upsert(session, "1", "2", at=T)
    assert said(engine) == [("upsert", "1", "2", T)]
    engine.dispose()
