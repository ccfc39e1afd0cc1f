"""The options of a Redis URL: what one part takes, every part takes; what one refuses, every part refuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis

from producers import AsyncContactProducer, ContactProducer, SettingsError
from tests.support.commands import run
from tests.support.fleet import Fleet
from tests.support.worker_process import PREFORK, THREADS, WorkerProcess, wait_until_delivered
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.standin.client import StandInClient

GIVEN = {
    "emit": '{"owner": "1", "contact": "2", "op": "upsert"}\n',
    "reconcile run -": "owner,contact\n1,2\n",
}
LINES = (
    *("status", "health", "drain --timeout 0", "explain 1 2", "check", "conform", "pause", "resume", "repartition 8"),
    *("dead-letters list", "dead-letters show", "dead-letters redrive", "dead-letters purge --yes", "forget 1 --yes"),
    *("emit", "reconcile run -", "reconcile history"),
)
"""Commands that end by themselves."""


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tcp=True) as server:
        yield server


@pytest.fixture(params=["tcp", "unix"])
def elsewhere(
    request: pytest.FixtureRequest,
    tcp_server: EmbeddedRedis,
    redis_server: EmbeddedRedis,
    namespace: str,
    stand_in: StandInClient,
) -> Iterator[Fleet]:
    """A fleet whose URL names a database and an interval by options; the broker is the same server."""
    url = (tcp_server if request.param == "tcp" else redis_server).url.partition("?")[0]
    with Fleet(f"{url}?db=3&health_check_interval=30", namespace, stand_in) as made:
        assert made.client.connection_pool.connection_kwargs["db"] == 3
        yield made


@pytest.mark.parametrize("line", LINES)
def test_every_command_takes_what_is_known(line: str, elsewhere: Fleet) -> None:
    said = run(elsewhere, *line.split(), given=GIVEN.get(line)).output
    assert "option" not in said
    assert "Traceback" not in said
    assert "TypeError" not in said


@pytest.mark.parametrize("option", ["protocol=3", "decode_responses=true", "socket_timeout=1"])
@pytest.mark.parametrize("line", [*LINES, "serve", "worker", "relay sqlite://"])
def test_every_command_refuses_any_other_by_the_variable_that_is_set(line: str, option: str, fleet: Fleet) -> None:
    url = fleet.environment()["CONTACT_SYNC_REDIS_URL"]
    ran = run(fleet, *line.split(), given=GIVEN.get(line), redis_url=f"{url}&{option}")
    assert ran.exit_code == 2
    name = option.partition("=")[0]
    assert f"CONTACT_SYNC_REDIS_URL has an unknown option {name}: known are db, " in ran.output
    assert "BROKER" not in ran.output
    assert len(ran.output.splitlines()) == 1


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_a_worker_delivers_and_its_hints_go_to_the_same_database(
    elsewhere: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with WorkerProcess(elsewhere.environment(), tmp_path / "worker", options) as worker:
        worker.wait_until_ready()
        elsewhere.append("1", "2", "upsert")
        wait_until_delivered(elsewhere)
        assert "broker_away" not in worker.said()
        bound: list[bytes] = elsewhere.client.keys("_kombu.binding.*")
        assert bound
        assert worker.end() == 0
    assert elsewhere.stand_in.contacts() == {("1", "2")}


def test_a_worker_with_an_unknown_option_ends_with_one_line(fleet: Fleet, tmp_path: Path) -> None:
    url = fleet.environment()["CONTACT_SYNC_REDIS_URL"]
    with WorkerProcess(fleet.environment(redis_url=f"{url}&protocol=3"), tmp_path / "worker") as worker:
        assert worker.process.wait(60) == 2
        (line,) = worker.said().splitlines()
    assert "CONTACT_SYNC_REDIS_URL has an unknown option protocol: " in line


def test_producers_take_what_is_known(elsewhere: Fleet) -> None:
    url, keys = elsewhere.environment()["CONTACT_SYNC_REDIS_URL"], elsewhere.keys
    settings = elsewhere.settings()

    async def append() -> None:
        async with AsyncContactProducer(settings=settings) as contacts:
            await contacts.upsert("1", "3")

    with ContactProducer(settings=settings) as contacts:
        contacts.upsert("1", "2")
    asyncio.run(append())
    with redis.Redis.from_url(url) as client:
        assert client.xlen(keys.events(elsewhere.partition("1"))) == 2


@pytest.mark.parametrize("producer", [ContactProducer, AsyncContactProducer])
@pytest.mark.parametrize("option", ["protocol=3", "decode_responses=true", "db=x"])
def test_producers_refuse_any_other_by_the_argument(
    producer: type[ContactProducer | AsyncContactProducer], option: str
) -> None:
    name = option.partition("=")[0]
    with pytest.raises(SettingsError, match=rf"^the argument url[^\n]* option {name}[^\n]+$"):
        producer(f"redis://localhost?{option}")
