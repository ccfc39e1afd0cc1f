"""`contact-sync relay`: forwards, waits for what is away, ends cleanly, and says what is wrong in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from click.testing import CliRunner
from sqlalchemy.orm import Session

from producers.outbox import Outbox
from tests.support.commands import COMMAND, logging_as_it_was
from worker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.outbox.conftest import Log
    from tests.support.waiting import WaitUntil

T = 1_795_460_847_757


def run(log: Log, *args: str, **environment: str) -> Any:
    with logging_as_it_was():
        return CliRunner().invoke(main, ["relay", *args], env={**log.environment(), **environment})


def record(engine: Engine, *contacts: str) -> None:
    with Session(engine) as session, session.begin():
        Outbox().record(session, [{"owner": "1", "contact": each, "op": "upsert", "at": T} for each in contacts])


def test_text_in_sqlite_that_is_not_utf8_is_refused_and_stops_nobody(tmp_path: Path, log: Log) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    run(log, url, "--once", "--create-tables")
    engine = sqlalchemy.create_engine(url)
    record(engine, "8", "9")
    garbled = "UPDATE contact_sync_outbox SET contact = CAST(X'ff41' AS TEXT) WHERE id = 1"
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(garbled))
    ran = run(log, url, "--once")
    assert (ran.exit_code, ran.stdout) == (0, "1 forwarded, 1 refused: see the column `refused`\n")
    assert [each[2] for each in log.said()] == ["9"]


def test_once_forwards_all_and_tells(engine: Engine, database_url: str, log: Log) -> None:
    record(engine, "8", "9")
    ran = run(log, database_url, "--once")
    assert (ran.exit_code, ran.stdout) == (0, "2 forwarded\n")
    assert [each[2] for each in log.said()] == ["8", "9"]
    ran = run(log, database_url, "--once", "--json")
    assert json.loads(ran.stdout) == {"forwarded": 0, "waiting": 0, "oldest_at": None, "refused": 0}


def test_redis_away_is_one_line_and_all_stays(engine: Engine, database_url: str, log: Log) -> None:
    record(engine, "9")
    ran = run(log, database_url, "--once", CONTACT_SYNC_REDIS_URL="redis://user:secret@127.0.0.1:1/0")
    assert ran.exit_code == 1
    assert "0 forwarded, 1 left in the outbox" in ran.stderr
    assert "secret" not in ran.output
    assert len(ran.stderr.splitlines()) == 1


def test_a_new_database_is_given_its_tables_where_that_is_wanted(database_url: str, log: Log) -> None:
    ran = run(log, database_url, "--once")
    assert ran.exit_code == 2
    assert "no table contact_sync_outbox: see `contact-sync relay --create-tables`" in ran.stderr
    assert run(log, database_url, "--once", "--create-tables").exit_code == 0
    assert run(log, database_url, "--once").exit_code == 0


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("nothing", 2, "must be a database's URL"),
        ("sqlite:///nowhere/at/all.db", 1, "unable to open database file"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/app", 1, "the database: "),
        ("mysql+pymysql://user:secret@127.0.0.1:1/app", 1, "the database: Can't connect to MySQL server"),
        ("oracle+nodriver://user:secret@host/app", 2, "oracle.nodriver"),
        ("postgresql+asyncpg://user:secret@host/app", 2, "needs a driver without asyncio, such as postgresql+psycopg"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line_without_its_password(
    log: Log, url: str, status: int, said: str
) -> None:
    ran = run(log, url, "--once")
    assert (ran.exit_code, len(ran.stderr.splitlines())) == (status, 1)
    assert said in ran.stderr
    assert "secret" not in ran.output


def test_a_driver_that_is_not_installed_is_named(log: Log) -> None:
    ran = run(log, "mysql+mysqldb://user:secret@host/app", "--once")
    assert ran.exit_code == 2
    assert "the database's driver is not installed: No module named 'MySQLdb'" in ran.stderr


def test_json_goes_with_once_alone(log: Log) -> None:
    assert run(log, "sqlite://", "--json").exit_code == 2


def test_other_partitions_are_a_mistake_of_configuration(engine: Engine, database_url: str, log: Log) -> None:
    log.client.hset(log.settings.keys.config, mapping={"partitions": 4, "format": 1})
    record(engine, "9")
    ran = run(log, database_url, "--once")
    assert ran.exit_code == 2
    assert "has 4 partitions" in ran.stderr


@contextmanager
def relaying(log: Log, url: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    said = tmp_path / "relay.log"
    with (
        said.open("wb") as file,
        subprocess.Popen(
            [COMMAND, "relay", url, "--poll", "0.01"],
            env={**os.environ, **log.environment()},
            stderr=file,
        ) as process,
    ):
        try:
            yield process, said
        finally:
            process.kill()


def events(said: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.read_text().splitlines() if line.startswith("{")]


def forwarded(said: Path) -> int:
    """How many it says it forwarded, in one run or in several."""
    return sum(each["changes"] for each in events(said) if each["event"] == "relay_forwarded")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_goes_on_until_it_is_asked_to_end(  # noqa: PLR0913, PLR0917 - fixtures
    engine: Engine, database_url: str, log: Log, tmp_path: Path, wait_until: WaitUntil, number: int, status: int
) -> None:
    with relaying(log, database_url, tmp_path) as (process, said):
        record(engine, "8")
        wait_until(lambda: len(log.said()) == 1, seconds=60, what="it forwards")
        record(engine, "9")
        wait_until(lambda: forwarded(said) == 2, seconds=60, what="it goes on, and says so")
        process.send_signal(number)
        assert process.wait(30) == status
    assert len(log.said()) == 2
    assert [*dict.fromkeys(each["event"] for each in events(said))] == ["relay_started", "relay_forwarded"]


def test_a_full_redis_is_said_once_and_waited_for(
    engine: Engine, database_url: str, log: Log, tmp_path: Path, wait_until: WaitUntil
) -> None:
    log.producer().upsert("1", "1")
    log.client.config_set("maxmemory", 1)
    try:
        with relaying(log, database_url, tmp_path) as (_, said):
            record(engine, "9")
            wait_until(lambda: "relay_waits" in said.read_text(), seconds=60, what="it says that it waits")
            log.client.config_set("maxmemory", 0)
            wait_until(lambda: "relay_goes_on" in said.read_text(), seconds=60, what="it goes on")
        assert len(log.said()) == 2
        assert [each["event"] for each in events(said)].count("relay_waits") == 1
        waits = next(each for each in events(said) if each["event"] == "relay_waits")
        assert (waits["level"], waits["away"]) == ("warning", "redis")
    finally:
        log.client.config_set("maxmemory", 0)


def test_a_database_that_comes_later_is_waited_for(log: Log, tmp_path: Path, wait_until: WaitUntil) -> None:
    path = tmp_path / "later" / "app.db"
    with relaying(log, f"sqlite:///{path}", tmp_path) as (_, said):
        wait_until(lambda: "relay_waits" in said.read_text(), seconds=60, what="it says that it waits")
        early = tmp_path / "early"
        early.mkdir()
        engine = sqlalchemy.create_engine(f"sqlite:///{early}/app.db")
        from producers.outbox import create_tables  # noqa: PLC0415 - of this test alone

        create_tables(engine)
        record(engine, "9")
        engine.dispose()
        early.rename(path.parent)
        wait_until(lambda: len(log.said()) == 1, seconds=60, what="it goes on")
    assert [each["away"] for each in events(said) if each["event"] == "relay_waits"] == ["database"]
