"""A query as the source of truth: streamed, and nothing of it is sent where it fails."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run, told

if TYPE_CHECKING:
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


@pytest.mark.parametrize("url", ["nonsense hunter2", "sqlite:////no/such/dir/x.db?hunter2", "what://u:hunter2@h/db"])
def test_a_database_that_is_not_there_is_one_line_without_its_password(fleet: Fleet, url: str) -> None:
    ran = run(fleet, "reconcile", url, "--query", QUERY)
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "hunter2" not in ran.stderr
