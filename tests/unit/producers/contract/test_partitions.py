"""The number of partitions is recorded once, and all agree with it or refuse."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest

from producers.contract.errors import PartitionsMismatch, UnknownLogFormat
from producers.contract.keys import Keys
from producers.contract.partitions import agree_partitions, agreement
from producers.contract.query import Query, ask, ask_async

KEYS = Keys("ns")


@pytest.fixture
def client() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.mark.parametrize(("configured", "recorded"), [(None, 64), (7, 7)])
def test_the_first_use_records_the_number(client: fakeredis.FakeRedis, configured: int | None, recorded: int) -> None:
    assert agree_partitions(client, KEYS, configured) == recorded
    assert client.hgetall("ns:config") == {b"partitions": b"%d" % recorded, b"format": b"1"}


def test_who_has_none_configured_takes_the_recorded_one(client: fakeredis.FakeRedis) -> None:
    agree_partitions(client, KEYS, 12)
    assert agree_partitions(client, KEYS, None) == 12


def test_who_is_configured_otherwise_is_told_both_numbers(client: fakeredis.FakeRedis) -> None:
    agree_partitions(client, KEYS, 64)
    with pytest.raises(PartitionsMismatch, match=r"CONTACT_SYNC_PARTITIONS is 32, but .* has 64 partitions") as caught:
        agree_partitions(client, KEYS, 32)
    assert (caught.value.configured, caught.value.recorded) == (32, 64)


@pytest.mark.parametrize("config", [{"partitions": "64", "format": "2"}, {"partitions": "many"}, {"partitions": "0"}])
def test_a_record_of_another_version_is_refused(client: fakeredis.FakeRedis, config: dict[str, str]) -> None:
    for name, value in config.items():
        client.hset("ns:config", name, value)
    with pytest.raises(UnknownLogFormat, match="'ns'"):
        agree_partitions(client, KEYS, None)


async def _ask_twice(server: fakeredis.FakeServer) -> list[list[object]]:
    client = fakeredis.FakeAsyncRedis(server=server)
    queries = (Query((("HSETNX", "h", "a", "1"),)), Query((("HMGET", "h", "a"), ("HLEN", "h"))))
    return [await ask_async(client, query) for query in queries]


def test_asyncio_is_answered_alike() -> None:
    server = fakeredis.FakeServer()
    asked = asyncio.run(_ask_twice(server))
    assert asked == [[1], [[b"1"], 1]]
    assert ask(fakeredis.FakeRedis(server=server), Query((("HMGET", "h", "a"), ("HLEN", "h")))) == asked[1]


def test_agreement_asks_nothing_more_of_a_log_that_has_a_number() -> None:
    asking = agreement(KEYS, 5)
    assert next(asking) == Query((("HMGET", "ns:config", "partitions", "format", "repartitioning"),))
    with pytest.raises(StopIteration) as end:
        asking.send([[b"5", b"1", None]])
    assert end.value.value == 5
