"""Behind one name the primary changes: the old one keeps its connections, and refuses every write from then on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis

from producers import AsyncContactProducer, ContactProducer, NotAccepted
from tests.support.fleet import Fleet, T
from tests.support.redis_proxy import RedisProxy
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.standin.client import StandInClient


class Pair:
    """Two servers behind one name."""

    def __init__(self, old: EmbeddedRedis, new: EmbeddedRedis, name: RedisProxy) -> None:
        self.old, self.new, self.name = old, new, name
        self.url = name.url

    def fail_over(self) -> None:
        """The old primary becomes a replica, and the name points at the new one."""
        with redis.Redis.from_url(self.old.url) as client:
            client.replicaof("127.0.0.1", "1")
        self.name.point_at(self.new.url)

    def entries(self) -> int:
        """How many entries the new primary's logs have."""
        with redis.Redis.from_url(self.new.url) as client:
            return sum(client.xlen(key) for key in client.scan_iter("*:events"))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with EmbeddedRedis() as old, EmbeddedRedis() as new, RedisProxy(old.url) as name:
        yield Pair(old, new, name)


def test_a_producer_finds_the_new_primary(pair: Pair) -> None:
    with ContactProducer(pair.url) as producer:
        producer.upsert("1", "2")
        pair.fail_over()
        with pytest.raises(NotAccepted, match="read only"):
            producer.upsert("1", "3")
        producer.upsert("1", "3")
        assert pair.entries() == 1


def test_an_asynchronous_producer_finds_it_too(pair: Pair) -> None:
    async def run() -> None:
        async with AsyncContactProducer(pair.url) as producer:
            await producer.upsert("1", "2")
            pair.fail_over()
            with pytest.raises(NotAccepted, match="read only"):
                await producer.upsert("1", "3")
            await producer.upsert("1", "3")

    asyncio.run(run())
    assert pair.entries() == 1


def test_a_spool_forwards_to_it(pair: Pair, tmp_path: Path) -> None:
    with ContactProducer(pair.url, spool=tmp_path / "spool") as producer:
        producer.upsert("1", "2")
        pair.fail_over()
        assert producer.upsert("1", "3").spooled
        assert producer.forward().left == 0
        assert pair.entries() == 1


def test_a_worker_delivers_from_it(pair: Pair, namespace: str, stand_in: StandInClient) -> None:
    with Fleet(pair.url, namespace, stand_in) as fleet:
        fleet.append("1", "2", "upsert", T)
        fleet.deliver()
        waiting: dict[Any, Any] = {"owner": "1", "contact": "3", "op": "upsert"}
        for url in (pair.old.url, pair.new.url):  # the new primary has what the old one had
            with redis.Redis.from_url(url) as client:
                client.xadd(fleet.keys.events(fleet.partition("1")), waiting)
        pair.fail_over()
        with pytest.raises(redis.ReadOnlyError):
            fleet.first.flusher.run(5.0)
        fleet.first.flusher.run(5.0)
        assert fleet.stand_in.contacts() == {("1", "2"), ("1", "3")}
