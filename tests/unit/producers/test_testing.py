"""The recorder for tests of an app: during a test producers use its fake Redis, and afterwards their own again."""

from __future__ import annotations

import asyncio

import fakeredis

from producers import AsyncContactProducer, ContactProducer, ProducerSettings
from producers.contract.change import partition_of
from producers.testing import ContactChanges

SETTINGS = ProducerSettings(namespace="ns")
OWNER = "1"


def log_with_partitions(count: int) -> fakeredis.FakeServer:
    server = fakeredis.FakeServer()
    fakeredis.FakeRedis(server=server).hset("ns:config", mapping={"partitions": count, "format": 1})
    return server


def entries(server: fakeredis.FakeServer, partitions: int) -> int:
    return int(fakeredis.FakeRedis(server=server).xlen(f"ns:{{{partition_of(OWNER, partitions)}}}:events"))


def test_a_producer_agrees_with_the_fake_redis_in_a_test_and_with_its_own_outside() -> None:
    assert partition_of(OWNER, 3) != partition_of(OWNER, 64)
    server = log_with_partitions(3)
    producer = ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server))
    fresh = ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server))
    producer.upsert(OWNER, "before")
    with ContactChanges() as changes:
        producer.upsert(OWNER, "2")
        fresh.upsert(OWNER, "3")
        assert changes == [("upsert", OWNER, "2"), ("upsert", OWNER, "3")]
        # A number of partitions agreed with a real Redis would have put them elsewhere.
        assert changes._reader.xlen(f"ns:{{{partition_of(OWNER, 64)}}}:events") == 2  # noqa: SLF001 - its fake Redis
    producer.upsert(OWNER, "after")
    fresh.upsert(OWNER, "after")
    assert entries(server, 3) == 3


def test_an_asyncio_producer_too() -> None:
    server = log_with_partitions(3)

    async def scenario() -> None:
        producer = AsyncContactProducer(settings=SETTINGS, client=fakeredis.FakeAsyncRedis(server=server))
        with ContactChanges() as changes:
            await producer.upsert(OWNER, "2")
            await producer.send([{"owner": OWNER, "contact": "3", "op": "delete"}])
            assert changes == [("upsert", OWNER, "2"), ("delete", OWNER, "3")]
        await producer.upsert(OWNER, "after")

    asyncio.run(scenario())
    assert entries(server, 3) == 1
