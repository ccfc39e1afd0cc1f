"""The number of partitions is recorded once, and all agree with it or refuse."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest

from producers.contract.errors import PartitionsMismatch, UnknownLogFormat
from producers.contract.keys import Keys
from producers.contract.partitions import agree_partitions, agree_partitions_async

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
    with pytest.raises(PartitionsMismatch, match=r"CONTACT_SYNC_PARTITIONS is 32, but .* begun with 64") as caught:
        agree_partitions(client, KEYS, 32)
    assert (caught.value.configured, caught.value.recorded) == (32, 64)


@pytest.mark.parametrize("config", [{"partitions": "64", "format": "2"}, {"partitions": "many"}, {"partitions": "0"}])
def test_a_record_of_another_version_is_refused(client: fakeredis.FakeRedis, config: dict[str, str]) -> None:
    for name, value in config.items():
        client.hset("ns:config", name, value)
    with pytest.raises(UnknownLogFormat, match="'ns'"):
        agree_partitions(client, KEYS, None)


async def _agree_both_ways(server: fakeredis.FakeServer) -> tuple[int, int]:
    client = fakeredis.FakeAsyncRedis(server=server)
    return await agree_partitions_async(client, KEYS, 5), await agree_partitions_async(client, KEYS, None)


def test_asyncio_agrees_by_the_same_rules() -> None:
    assert asyncio.run(_agree_both_ways(fakeredis.FakeServer())) == (5, 5)
