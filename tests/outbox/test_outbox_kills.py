"""kill -9 of the app and of relays at every step: nothing that was committed is lost, nothing else is invented."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import insert, select

from producers.outbox import Relay
from producers.outbox.tables import CHANGES
from producers.relay.lane import lane_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from tests.outbox.conftest import Log
    from tests.support.waiting import WaitUntil

T = 1_795_460_847_757

APP = """
import sys
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from producers.outbox import Outbox
engine, outbox = create_engine(sys.argv[1]), Outbox()
for n in range(10_000_000):
    with Session(engine) as session, session.begin():
        session.execute(text(f"INSERT INTO contacts VALUES ('{n % 7}', '{n}')"))
        outbox.upsert(session, str(n % 7), str(n))
        session.flush()
        print("recorded", n, flush=True)
    print("committed", n, flush=True)
"""
RELAY = """
import sys, sqlalchemy
from producers import ContactProducer
from producers.outbox import Relay
with ContactProducer() as producer:
    relay = Relay(sqlalchemy.create_engine(sys.argv[1]), producer)
    print("up", flush=True)
    while True:
        relay.run_once()
"""


@contextmanager
def running(program: str, url: str, log: Log) -> Iterator[Any]:
    with subprocess.Popen(
        [sys.executable, "-c", program, url],
        env={**os.environ, **log.environment()},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def relay_all(engine: Engine, log: Log) -> None:
    with log.producer() as producer:
        relay = Relay(engine, producer)
        while relay.waiting().changes:
            relay.run_once()


def contacts(engine: Engine) -> set[tuple[str, str]]:
    with engine.connect() as connection:
        return {(owner, contact) for owner, contact in connection.exec_driver_sql("SELECT * FROM contacts")}


@pytest.mark.parametrize("step", ["recorded", "committed"])
@pytest.mark.parametrize("number", [0, 7])
def test_an_app_that_is_killed_said_what_it_committed_and_no_more(
    engine: Engine, database_url: str, log: Log, step: str, number: int
) -> None:
    with running(APP, database_url, log) as app:
        for line in app.stdout:
            if line == f"{step} {number}\n":
                app.kill()
                break
        app.wait(30)
    relay_all(engine, log)
    assert {(owner, contact) for _, owner, contact, _ in log.said()} == contacts(engine)
    assert len(log.said()) == len(contacts(engine)) >= number


def fill(engine: Engine, count: int) -> list[tuple[str, str, str, int]]:
    said = [(("upsert", "delete")[n % 2], "1", str(n % 3), T + n) for n in range(count)]
    with engine.begin() as connection:
        connection.execute(
            insert(CHANGES),
            [dict(zip(("op", "owner", "contact", "at"), each, strict=True), lane=lane_of("1")) for each in said],
        )
    return said


@contextmanager
def before_send(_engine: Engine, log: Log) -> Iterator[Callable[[], object]]:
    """Redis takes no writes: the lane is locked, and what is sent is not in the log."""
    log.client.client_pause(600_000, all=False)
    try:
        yield lambda: log.client.info("clients")["blocked_clients"]
    finally:
        log.client.client_unpause()


@contextmanager
def before_delete(engine: Engine, log: Log) -> Iterator[Callable[[], object]]:
    """Somebody else holds the rows: they are sent, and cannot be removed."""
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            connection.execute(select(CHANGES.c.id).with_for_update())
        else:  # who reads holds up who commits
            cursor: Any = connection.connection.cursor()
            cursor.execute("SELECT * FROM contact_sync_outbox")
            cursor.fetchone()
        yield log.said
        connection.rollback()


@pytest.mark.parametrize("step", [before_send, before_delete])
def test_a_relay_that_is_killed_between_its_steps_loses_and_invents_nothing(
    engine: Engine, database_url: str, log: Log, wait_until: WaitUntil, step: Any
) -> None:
    with log.producer() as producer:
        producer.ping()
        said = fill(engine, 300)
        with running(RELAY, database_url, log) as relay, step(engine, log) as reached:
            assert relay.stdout.readline() == "up\n"
            wait_until(reached, seconds=60, what="the relay is at that step")
            relay.kill()
            relay.wait(30)
    with engine.connect() as connection:
        left = connection.scalar(select(sqlalchemy.func.count()).select_from(CHANGES))
    assert left == 300
    relay_all(engine, log)
    assert set(log.said()) == set(said)
    first = list(dict.fromkeys(log.said()))
    assert first == said  # whatever came twice, each came first in order


@pytest.mark.parametrize("kills", [1, 2, 3])
def test_relays_that_are_killed_at_any_moment_lose_and_invent_nothing(
    engine: Engine, database_url: str, log: Log, wait_until: WaitUntil, kills: int
) -> None:
    said = fill(engine, 20_000)
    for kill in range(kills):
        with running(RELAY, database_url, log) as relay:
            wait_until(lambda: len(log.said()) > 2_000 * kill, seconds=60, what="the relay forwards")  # noqa: B023 - waited for here
            relay.kill()
            relay.wait(30)
    relay_all(engine, log)
    assert set(log.said()) == set(said)
    assert len(log.said()) <= len(said) + 500 * kills
    for contact in "012":
        times = list(dict.fromkeys(at for _, _, of, at in log.said() if of == contact))
        assert times == sorted(times)
