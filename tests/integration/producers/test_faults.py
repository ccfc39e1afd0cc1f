"""Producers with a real Redis that is full, silent, killed or unavailable."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
import redis

from producers import AsyncContactProducer, ContactChange, ContactProducer, NotAccepted, ProducerSettings
from producers.contract.keys import Keys
from producers.contract.partitions import agree_partitions
from tests.support.processes import runs
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.waiting import WaitUntil


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """A Redis of this test alone, which it may break."""
    with EmbeddedRedis() as server:
        yield server


def settings(server: EmbeddedRedis) -> ProducerSettings:
    return ProducerSettings(redis_url=server.url)


def changes(count: int) -> Iterator[ContactChange]:
    return (ContactChange(owner=str(number), contact="1", op="upsert") for number in range(count))


def in_the_log(client: redis.Redis) -> int:
    return sum(client.xlen(key) for key in client.scan_iter("contact-sync:{*}:events"))


def test_a_full_redis_refuses_and_all_comes_back_as_stamped(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client, ContactProducer(settings=settings(own_redis)) as producer:
        producer.upsert("1", "2")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        with pytest.raises(NotAccepted, match="used memory > 'maxmemory'") as caught:
            producer.send(changes(2500))
        error = caught.value
        assert (error.accepted, len(error.refused), error.uncertain) == (0, 2500, ())
        assert all(change.at for change in error.changes)
        assert agree_partitions(client, Keys("contact-sync"), None) == 64  # a full Redis still says its number
        client.config_set("maxmemory", 0)
        assert len(producer.send(error.changes)) == 2500
        assert in_the_log(client) == 2501


def test_a_redis_killed_midway_loses_no_change_in_silence(own_redis: EmbeddedRedis, wait_until: WaitUntil) -> None:
    def killing() -> Iterator[ContactChange]:
        for number, change in enumerate(changes(5500)):
            if number == 2300:
                _kill(own_redis, wait_until)
            yield change

    with ContactProducer(settings=settings(own_redis)) as producer, pytest.raises(NotAccepted) as caught:
        producer.send(killing())
    error = caught.value
    assert error.accepted == 2000
    assert [change.owner for change in error.changes] == [str(number) for number in range(2000, 5500)]
    assert all(change.at for change in error.changes)
    assert isinstance(error.cause, redis.ConnectionError)


def _kill(server: EmbeddedRedis, wait_until: WaitUntil) -> None:
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid), what="the server is gone, and its sockets with it")


def test_a_change_without_a_reply_is_uncertain_and_is_not_sent_twice(
    own_redis: EmbeddedRedis, wait_until: WaitUntil
) -> None:
    with (
        redis.Redis.from_url(own_redis.url) as client,
        ContactProducer(settings=settings(own_redis)) as producer,
    ):
        producer.upsert("1", "2")
        # Writes wait in the server, as in one that hangs; it carries them out when it wakes.
        client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        with pytest.raises(NotAccepted) as caught:
            producer.send(changes(1500))
        assert (len(caught.value.uncertain), len(caught.value.refused)) == (1000, 500)
        client.execute_command("CLIENT", "UNPAUSE")
        # Late replies must not be taken for those of later commands, so that connection has to be closed.
        wait_until(lambda: len(client.client_list()) == 1, what="the connection without replies is closed")
        assert producer.upsert("2", "2")
        assert in_the_log(client) in {2, 1002}


def test_a_redis_that_is_away_refuses_everything(own_redis: EmbeddedRedis) -> None:
    away = ProducerSettings(redis_url=own_redis.url.replace("unix://", "unix:///nowhere"))
    with ContactProducer(settings=away) as producer, pytest.raises(NotAccepted) as caught:
        producer.send(changes(1500))
    assert (caught.value.accepted, len(caught.value.refused), caught.value.uncertain) == (0, 1500, ())
    assert all(change.at for change in caught.value.changes)


def test_a_producer_goes_on_when_redis_is_back(own_redis: EmbeddedRedis) -> None:
    with ContactProducer(settings=settings(own_redis)) as producer:
        producer.upsert("1", "2")
        own_redis.restart(kill=True)
        assert producer.upsert("1", "3")


def test_concurrent_tasks_share_round_trips_and_a_connection(own_redis: EmbeddedRedis) -> None:
    async def scenario() -> None:
        async with AsyncContactProducer(settings=settings(own_redis)) as producer:

            async def one(number: int) -> None:
                for contact in range(10):
                    await producer.upsert(str(number), str(contact))

            await asyncio.gather(*(one(number) for number in range(200)))

    with redis.Redis.from_url(own_redis.url) as client:
        before = client.info("stats")
        asyncio.run(asyncio.wait_for(scenario(), timeout=60))
        after = client.info("stats")
        assert in_the_log(client) == 2000
    assert after["total_connections_received"] - before["total_connections_received"] == 1
    assert after["total_reads_processed"] - before["total_reads_processed"] < 200  # 2,000 if each went alone


def test_a_task_is_told_when_redis_is_away(own_redis: EmbeddedRedis) -> None:
    away = ProducerSettings(redis_url=own_redis.url.replace("unix://", "unix:///nowhere"))

    async def scenario() -> None:
        async with AsyncContactProducer(settings=away) as producer:
            with pytest.raises(NotAccepted) as single:
                await producer.upsert("1", "2")
            assert len(single.value.refused) == 1
            with pytest.raises(NotAccepted) as many:
                await producer.send(changes(1500))
            assert (len(many.value.refused), many.value.uncertain) == (1500, ())

    asyncio.run(asyncio.wait_for(scenario(), timeout=30))
