"""The spool with a real Redis that is unavailable or full, and with apps that are killed at any moment."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import redis

from producers import AsyncContactProducer, ContactProducer, ProducerSettings
from producers.send.chunk import CHUNK_SIZE
from producers.spool.store import Spool
from tests.support.processes import runs
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.waiting import WaitUntil

T = 1_795_460_847_757

SAYS = """
import sys
from producers import ContactProducer, ProducerSettings
with ContactProducer(settings=ProducerSettings(redis_url=sys.argv[1]), spool=sys.argv[2]) as producer:
    for n in range(10_000_000):
        three = range(3 * n, 3 * n + 3)
        said = producer.send({"owner": str(n % 7), "contact": str(n), "op": "upsert"} for n in three)
        print(n, flush=True)
"""
FORWARDS = """
import sys
from producers import ContactProducer, ProducerSettings
ContactProducer(settings=ProducerSettings(redis_url=sys.argv[1]), spool=sys.argv[2]).forward()
"""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis of this test alone, which it may break; it keeps what it has."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "changes.spool"


def kill(server: EmbeddedRedis, wait_until: WaitUntil) -> None:
    pid = server.pid
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendfsync", "always")  # what it has accepted is in its file: a slow disk puts that off
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid), what="the server is gone, and its sockets with it")


def log_of(url: str) -> list[tuple[int, str, str, str]]:
    """Each entry of all logs: its partition's order, owner, contact and op."""
    found = []
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for key in client.scan_iter("contact-sync:{*}:events"):
            entries: Any = client.xrange(key)
            found += [(int(e["at"]), e["owner"], e["contact"], e["op"]) for _, e in entries]
    return found


def test_a_redis_that_is_killed_and_comes_back_has_every_change_in_order(
    own_redis: EmbeddedRedis, path: Path, wait_until: WaitUntil
) -> None:
    settings = ProducerSettings(redis_url=own_redis.url)
    with ContactProducer(settings=settings, spool=path) as producer:
        producer.upsert("1", "9", at=T)
        kill(own_redis, wait_until)
        assert producer.delete("1", "9", at=T + 1) == "spooled"
        assert set(producer.send({"owner": "1", "contact": str(n), "op": "upsert"} for n in range(2_500))) == {
            "spooled"
        }
        own_redis.restart()
        wait_until(lambda: producer.upsert("1", "9", at=T + 2) != "spooled", what="it is sent straight again")
    assert [op for at, _, contact, op in log_of(own_redis.url) if contact == "9" and at <= T + 1] == [
        "upsert",
        "delete",
    ]
    assert {contact for _, _, contact, _ in log_of(own_redis.url)} == {str(n) for n in range(2_500)}


def test_a_full_redis_spools_and_takes_it_when_there_is_room(own_redis: EmbeddedRedis, path: Path) -> None:
    settings = ProducerSettings(redis_url=own_redis.url)
    with (
        redis.Redis.from_url(own_redis.url) as client,
        ContactProducer(settings=settings, spool=path) as producer,
    ):
        producer.upsert("1", "1", at=T)
        client.config_set("maxmemory", 1)
        assert producer.delete("1", "1", at=T + 1) == "spooled"
        done = producer.forward()
        assert (done.accepted, done.left) == (0, 1)
        assert "maxmemory" in str(done.cause)
        client.config_set("maxmemory", 0)
        assert producer.forward().accepted == 1
    assert [op for _, _, _, op in log_of(own_redis.url)] == ["upsert", "delete"]


def test_whoever_waits_for_a_spooled_change_forwards_it(
    own_redis: EmbeddedRedis, path: Path, wait_until: WaitUntil
) -> None:
    settings = ProducerSettings(redis_url=own_redis.url)
    with (
        redis.Redis.from_url(own_redis.url) as client,
        ContactProducer(settings=settings, spool=path) as producer,
    ):
        producer.pressure()  # it knows the number of partitions by now
        client.config_set("maxmemory", 1)
        receipt = producer.delete("1", "1", at=T)
        assert receipt.spooled
        assert receipt.eta() == math.inf  # though nothing waits in the log
        assert (producer.wait(receipt, timeout=0), log_of(own_redis.url)) == ("waiting", [])
        client.config_set("maxmemory", 0)
        wait_until(
            lambda: producer.wait(receipt, timeout=0) == "waiting" and log_of(own_redis.url), what="it is in the log"
        )
    assert [op for _, _, _, op in log_of(own_redis.url)] == ["delete"]


def test_an_asynchronous_producer_forwards_it_too(own_redis: EmbeddedRedis, path: Path) -> None:
    settings = ProducerSettings(redis_url=own_redis.url)

    async def spooled_and_waited_for() -> list[tuple[int, str, str, str]]:
        async with AsyncContactProducer(settings=settings, spool=path) as producer:
            await producer.pressure()
            client.config_set("maxmemory", 1)
            receipt = await producer.delete("1", "1", at=T)
            assert receipt.spooled
            client.config_set("maxmemory", 0)
            while not log_of(own_redis.url):
                assert await producer.wait(receipt, timeout=0.1) == "waiting"
            return log_of(own_redis.url)

    with redis.Redis.from_url(own_redis.url) as client:
        assert [op for _, _, _, op in asyncio.run(asyncio.wait_for(spooled_and_waited_for(), 30))] == ["delete"]


@pytest.mark.parametrize("lines", [1, 4, 40])
def test_what_an_app_was_told_is_spooled_outlasts_its_kill(
    own_redis: EmbeddedRedis, path: Path, wait_until: WaitUntil, lines: int
) -> None:
    kill(own_redis, wait_until)
    with subprocess.Popen(
        [sys.executable, "-c", SAYS, own_redis.url, str(path)], stdout=subprocess.PIPE, text=True
    ) as app:
        assert app.stdout is not None
        told = [int(app.stdout.readline()) for _ in range(lines)]
        app.kill()
        told += [int(line) for line in app.stdout if line.endswith("\n")]
    own_redis.restart()
    with ContactProducer(settings=ProducerSettings(redis_url=own_redis.url), spool=path) as producer:
        assert producer.forward().left == 0
    contacts = [int(contact) for _, _, contact, _ in log_of(own_redis.url)]
    assert len(contacts) % 3 == 0  # each call as a whole, or not at all
    assert set(contacts) >= set(range(3 * len(told)))


def test_an_app_that_is_killed_while_it_forwards_loses_and_reorders_nothing(
    own_redis: EmbeddedRedis, path: Path, wait_until: WaitUntil
) -> None:
    settings = ProducerSettings(redis_url=own_redis.url)
    url = own_redis.url
    kill(own_redis, wait_until)
    count = 30_000
    with ContactProducer(settings=settings, spool=path) as producer:
        producer.send(
            {"owner": "1", "contact": str(n % 5), "op": ("upsert", "delete")[n % 2], "at": T + n} for n in range(count)
        )
    own_redis.restart()
    with subprocess.Popen([sys.executable, "-c", FORWARDS, url, str(path)]) as app:
        wait_until(lambda: len(log_of(url)) > 0, what="it forwards")
        app.kill()
    assert 0 < len(Spool(path, "contact-sync")) <= count  # what is in the log already may not be removed yet
    with ContactProducer(settings=settings, spool=path) as producer:
        assert producer.forward().left == 0
    log = log_of(url)
    assert {at for at, _, _, _ in log} == set(range(T, T + count))
    assert len(log) < count + 1_001  # what was in hand when it was killed, twice at most
    for contact in map(str, range(5)):
        times = [at for at, _, of, _ in log if of == contact]
        assert list(dict.fromkeys(times)) == sorted(set(times))


def test_nothing_overtakes_what_another_process_is_forwarding(own_redis: EmbeddedRedis, path: Path) -> None:
    settings, away = (ProducerSettings(redis_url=url) for url in (own_redis.url, "redis://127.0.0.1:1"))
    with ContactProducer(settings=away, spool=path) as without_redis:
        assert without_redis.upsert("1", "2", at=T) == "spooled"
    with ContactProducer(settings=settings, spool=path) as producer:
        with Spool(path, settings.namespace).claim() as claimed:
            assert claimed
            assert producer.delete("1", "2", at=T + 1) == "spooled"
        assert log_of(own_redis.url) == []
        assert producer.forward().left == 0
    assert log_of(own_redis.url) == [(T, "1", "2", "upsert"), (T + 1, "1", "2", "delete")]


def test_nothing_overtakes_what_another_process_spools_during_a_call(own_redis: EmbeddedRedis, path: Path) -> None:
    settings, away = (ProducerSettings(redis_url=url) for url in (own_redis.url, "redis://127.0.0.1:1"))
    chunks = 3 * CHUNK_SIZE
    with (
        ContactProducer(settings=away, spool=path) as without_redis,
        ContactProducer(settings=settings, spool=path) as producer,
    ):

        def changes() -> Iterator[dict[str, Any]]:
            for n in range(chunks):
                if n == chunks - 1:
                    assert without_redis.upsert("1", "x", at=T) == "spooled"
                yield {"owner": "1", "contact": "x" if n == chunks - 1 else str(n), "op": "delete", "at": T + 1}

        said = producer.send(changes())
        assert "spooled" not in said[:CHUNK_SIZE]
        assert said[-1] == "spooled"
        assert producer.forward().left == 0
    assert [op for _, _, contact, op in log_of(own_redis.url) if contact == "x"] == ["upsert", "delete"]
