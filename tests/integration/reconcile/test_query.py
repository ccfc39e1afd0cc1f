"""A query as the source of truth: streamed, and nothing of it is sent where it fails."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
import sqlalchemy

from tests.support.commands import run, told
from tests.support.mariadb import mariadb, own_database
from worker.reconcile.database import _text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fleet import Fleet

QUERY = "select user_id as Owner, friend as contact from friends order by friend"
MIDST = """select user_id as owner,
    case when rowid > 2000 then abs(-9223372036854775807 - 1) else friend end as contact from friends"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "app.db") as database:
        database.execute("create table friends (user_id integer, friend text)")
        database.executemany("insert into friends values (?, ?)", [(n % 7, f"f{n}") for n in range(2_500)])
    database.close()
    return f"sqlite:///{tmp_path}/app.db"


def test_the_rows_of_a_query_are_what_is_true(fleet: Fleet, url: str) -> None:
    done = told(fleet, "reconcile", url, "--query", QUERY)
    assert (done["rows"], done["rejects"], done["sent"]) == (2_500, 0, 2_500)
    fleet.deliver()
    assert ("3", "f3") in fleet.stand_in.contacts()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("select a from nowhere", "no such table"),
        ("select friend as contact from friends", "no owner"),
        ("delete from friends where 0", "returns no rows"),
        # It fails in its midst, after a thousand rows were given.
        (MIDST, "overflow"),
    ],
    ids=["table", "column", "no rows", "midst"],
)
def test_a_query_that_fails_is_one_line_and_sends_nothing(fleet: Fleet, url: str, query: str, says: str) -> None:
    ran = run(fleet, "reconcile", url, "--query", query)
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n"), fleet.backlog()) == (1, "", 1, 0)
    assert says in ran.stderr


def test_a_value_that_cannot_be_read_is_not_repeated(fleet: Fleet, url: str) -> None:
    query = "select cast(x'616c6963652d35353031ff' as text) as owner, 1 as contact"
    ran = run(fleet, "reconcile", url, "--query", query)
    assert (ran.exit_code, ran.stderr.count("\n"), "alice" in ran.stderr) == (1, 1, False)
    assert "column 'owner'" in ran.stderr


@pytest.mark.parametrize("url", ["nonsense hunter2", "sqlite:////no/such/dir/x.db?hunter2", "what://u:hunter2@h/db"])
def test_a_database_that_is_not_there_is_one_line_without_its_password(fleet: Fleet, url: str) -> None:
    ran = run(fleet, "reconcile", url, "--query", QUERY)
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "hunter2" not in ran.stderr


@pytest.mark.parametrize(
    ("named", "query", "says"), [("\udce9", QUERY, "SOURCE with --query"), ("", "\udce9", "--query")]
)
def test_what_is_not_utf_8_is_one_line(fleet: Fleet, url: str, named: str, query: str, says: str) -> None:
    ran = run(fleet, "reconcile", url + named, "--query", query, "--dry-run", "--json")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (1, "", f"contact-sync: {says} must be UTF-8\n")


def test_a_driver_for_asyncio_is_refused(fleet: Fleet) -> None:
    ran = run(fleet, "reconcile", "postgresql+asyncpg://u@h/db", "--query", QUERY)
    assert (ran.exit_code, ran.stderr.count("\n")) == (1, 1)
    assert "SOURCE with --query needs a driver without asyncio, such as postgresql+psycopg, not asyncpg" in ran.stderr


UUIDS = "select user_id as owner, friend as contact from friends where nick like '%'"
NICKS = "select user_id as owner, nick as contact from friends"
MARIADB_MIDST = """select case when id > 2000 then cast(exp(9999) as char) else id end as owner,
    nick as contact from friends"""


@pytest.fixture(scope="module")
def mariadb_url() -> Iterator[str]:
    with mariadb() as server, own_database(server) as url:
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "create table friends (id int auto_increment primary key, user_id bigint unsigned, friend uuid, "
                "nick varchar(20) character set utf8mb4)"
            )
            connection.exec_driver_sql(
                "insert into friends (user_id, friend, nick) select 18446744073709551615 - mod(seq, 7), "
                "cast(concat('6ccd780c-baba-1026-9564-', lpad(seq, 12, '0')) as uuid), concat('界', seq) "
                "from seq_1_to_2500"
            )
        engine.dispose()
        yield url


@pytest.mark.parametrize(
    ("query", "pair"),
    [
        (UUIDS, ("18446744073709551614", "6ccd780c-baba-1026-9564-000000000001")),
        (NICKS, ("18446744073709551614", "界1")),
    ],
)
def test_the_rows_of_mariadb_are_what_is_true(
    fleet: Fleet, mariadb_url: str, query: str, pair: tuple[str, str]
) -> None:
    done = told(fleet, "reconcile", mariadb_url, "--query", query)
    assert (done["rows"], done["rejects"], done["sent"]) == (2_500, 0, 2_500)
    fleet.deliver()
    assert pair in fleet.stand_in.contacts()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("select a from nowhere", "0 rows: Table '"),
        # It fails in its midst, after a thousand rows were given.
        (MARIADB_MIDST, "out of range"),
    ],
    ids=["table", "midst"],
)
def test_a_query_that_mariadb_refuses_is_one_line_and_sends_nothing(
    fleet: Fleet, mariadb_url: str, query: str, says: str
) -> None:
    ran = run(fleet, "reconcile", mariadb_url, "--query", query)
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n"), fleet.backlog()) == (1, "", 1, 0)
    assert says in ran.stderr


def test_a_column_that_is_named_twice_is_refused(fleet: Fleet, url: str) -> None:
    ended = run(
        fleet, "reconcile", url, "--query", "select user_id as owner, friend as contact, 'x' as Contact from friends"
    )
    assert ended.exit_code == 1
    assert "the column contact twice" in ended.stderr


def test_padding_is_told_and_removed_if_asked(fleet: Fleet, url: str) -> None:
    query = "select user_id as owner, 'padded   ' as contact from friends limit 1"
    ended = run(fleet, "reconcile", url, "--query", query)
    assert ended.exit_code == 1
    assert "--trim removes" in ended.stderr
    assert told(fleet, "reconcile", url, "--query", query, "--trim")["sent"] == 1


def test_the_database_itself_is_no_output(fleet: Fleet, url: str) -> None:
    file = url.removeprefix("sqlite:///")
    assert run(fleet, "reconcile", url, "--query", QUERY, "--diff", file).exit_code == 2
    assert told(fleet, "reconcile", url, "--query", QUERY)["sent"] == 2_500


@pytest.mark.parametrize(("value", "read"), [("7", "7"), ("7.00", "7"), ("7.5", None), ("NaN", None)])
def test_whole_numbers_of_a_numeric_column_are_ids(value: str, read: str | None) -> None:
    found = _text(Decimal(value))
    assert (found if isinstance(found, str) else None) == read
