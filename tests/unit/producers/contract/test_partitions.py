"""The number of partitions is recorded once, and all agree with it or refuse."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest
import redis

from producers.contract.errors import PartitionsMismatch, TooOld, UnknownLogFormat
from producers.contract.keys import Keys
from producers.contract.partitions import LOG_FORMAT, Agreed, agree_partitions, agreement
from producers.contract.query import Query, ask, ask_async
from producers.send.chunk import Chunk, XaddEncoder
from producers.send.stamp import Stamper

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


@pytest.mark.parametrize("config", [{"partitions": "64", "format": "3"}, {"partitions": "many"}, {"partitions": "0"}])
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


@pytest.mark.parametrize("reply", [1, None, b"OK", []])
def test_what_no_redis_replies_is_an_error_of_redis(reply: object) -> None:
    asking = agreement(KEYS, None)
    next(asking)
    with pytest.raises(redis.RedisError, match="a reply cannot be read"):
        asking.send([reply])


def test_agreement_asks_nothing_more_of_a_log_that_has_a_number() -> None:
    asking = agreement(KEYS, 5)
    assert next(asking) == Query(
        (("HMGET", "ns:config", "partitions", "format", "repartitioning", "least_reader", "least_writer"),)
    )
    with pytest.raises(StopIteration) as end:
        asking.send([[b"5", b"1", None, None, None]])
    assert end.value.value == Agreed(5, lanes=True)


def test_a_newer_form_is_no_reason_to_stop_while_it_can_be_written_by_this_version(client: fakeredis.FakeRedis) -> None:
    for name, value in {"partitions": 64, "format": 9, "least_reader": 9, "least_writer": LOG_FORMAT}.items():
        client.hset("ns:config", name, str(value))
    assert agree_partitions(client, KEYS, None) == 64


def test_a_producer_that_is_too_old_says_so_in_one_line(client: fakeredis.FakeRedis) -> None:
    client.hset("ns:config", mapping={"partitions": "64", "format": "1", "least_writer": str(LOG_FORMAT + 1)})
    said = rf"too old .*'ns': its producers must know format {LOG_FORMAT + 1}, and this one knows format {LOG_FORMAT};"
    with pytest.raises(TooOld, match=said):
        agree_partitions(client, KEYS, None)


@pytest.mark.parametrize(("least_reader", "log"), [(None, "bulk"), ("1", "events"), ("2", "bulk")])
def test_bulk_takes_no_lane_that_workers_which_may_come_back_do_not_read(
    client: fakeredis.FakeRedis, least_reader: str | None, log: str
) -> None:
    client.hset("ns:config", mapping={"partitions": "1", "format": "1"})
    if least_reader is not None:
        client.hset("ns:config", "least_reader", least_reader)
    asking = agreement(KEYS, None)
    replies = ask(client, next(asking))
    with pytest.raises(StopIteration) as end:
        asking.send(replies)
    agreed: Agreed = end.value.value
    chunk = Chunk(lane="bulk")
    chunk.admit({"owner": "1", "contact": "2", "op": "upsert"}, Stamper(lambda: 1_795_460_000.0))
    assert f"ns:{{0}}:{log}".encode() in XaddEncoder(KEYS, agreed.partitions, lanes=agreed.lanes).pack(chunk)
