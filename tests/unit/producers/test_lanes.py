"""The lane of a change decides its stream, wherever the lane was named, and however the change gets there."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, Final

import fakeredis
import pytest

from producers import AsyncContactProducer, ContactProducer, InvalidChange, NotAccepted, ProducerSettings
from producers.contract.change import partition_of
from producers.contract.keys import Keys

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ProducerSettings(namespace="ns")
T = 1_795_460_847_757
LIVE, BULK = (key(partition_of("1", 64)) for key in (Keys("ns").events, Keys("ns").bulk))
CHANGE: Final[dict[str, Any]] = {"owner": "1", "contact": "9", "op": "upsert"}


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def producer(server: fakeredis.FakeServer) -> ContactProducer:
    return ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server))


def streams(server: fakeredis.FakeServer) -> dict[str, list[str]]:
    """The contacts in each stream of owner 1."""
    with fakeredis.FakeRedis(server=server, decode_responses=True) as client:
        found: Any = {name: client.xrange(name) for name in (LIVE, BULK)}
    return {name.rpartition(":")[2]: [fields["contact"] for _, fields in entries] for name, entries in found.items()}


def test_a_single_change_takes_the_stream_of_its_lane(server: fakeredis.FakeServer, producer: ContactProducer) -> None:
    receipts = [
        producer.upsert("1", "a"),
        producer.upsert("1", "b", lane="bulk"),
        producer.delete("1", "c", lane="live"),
    ]
    assert streams(server) == {"events": ["a", "c"], "bulk": ["b"]}
    assert [each.lane for each in receipts] == ["live", "bulk", "live"]


def test_many_take_the_lane_of_the_call_unless_they_have_their_own(
    server: fakeredis.FakeServer, producer: ContactProducer
) -> None:
    producer.send([CHANGE, {**CHANGE, "contact": "now", "lane": "live"}], lane="bulk")
    producer.send([{**CHANGE, "contact": "later", "lane": "bulk"}, {**CHANGE, "contact": "10"}])
    assert streams(server) == {"events": ["now", "10"], "bulk": ["9", "later"]}


def test_a_bulk_change_has_the_same_fields_and_is_stamped(server: fakeredis.FakeServer) -> None:
    client = fakeredis.FakeRedis(server=server)
    ContactProducer(settings=SETTINGS, client=client, clock=lambda: T / 1000).send([CHANGE], lane="bulk")
    found: Any = client.xrange(BULK)
    [(_, fields)] = found
    assert list(fields.items()) == [(b"owner", b"1"), (b"contact", b"9"), (b"op", b"upsert"), (b"at", b"%d" % T)]


def test_the_asynchronous_producer_does_the_same(server: fakeredis.FakeServer) -> None:
    async def say() -> list[str]:
        async with AsyncContactProducer(settings=SETTINGS, client=fakeredis.FakeAsyncRedis(server=server)) as contacts:
            one, two = await asyncio.gather(contacts.upsert("1", "a"), contacts.delete("1", "b", lane="bulk"))
            await contacts.send([{**CHANGE, "contact": "c"}], lane="bulk")
            return [one.lane, two.lane]

    assert asyncio.run(say()) == ["live", "bulk"]
    assert streams(server) == {"events": ["a"], "bulk": ["b", "c"]}


@pytest.mark.parametrize("lane", ["x", "", "BULK"])
def test_another_lane_is_refused_in_one_line(
    server: fakeredis.FakeServer, producer: ContactProducer, lane: Any
) -> None:
    for call in (
        lambda: producer.upsert("1", "9", lane=lane),
        lambda: producer.send([CHANGE], lane=lane),
        lambda: asyncio.run(AsyncContactProducer(settings=SETTINGS).send([CHANGE], lane=lane)),
    ):
        with pytest.raises(InvalidChange, match=r"^lane must be 'live' or 'bulk'$"):
            call()
    assert streams(server) == {"events": [], "bulk": []}


def test_what_was_not_accepted_keeps_its_lane(server: fakeredis.FakeServer, producer: ContactProducer) -> None:
    server.connected = False
    with pytest.raises(NotAccepted) as failed:
        producer.send([CHANGE], lane="bulk")
    server.connected = True
    producer.send(failed.value.changes)
    assert streams(server) == {"events": [], "bulk": ["9"]}


def test_the_spool_keeps_the_lane(server: fakeredis.FakeServer, tmp_path: Path) -> None:
    client = fakeredis.FakeRedis(server=server)
    with ContactProducer(settings=SETTINGS, client=client, spool=tmp_path / "spool") as contacts:
        server.connected = False
        assert contacts.send([CHANGE], lane="bulk") == ["spooled"]
        contacts.upsert("1", "now")
        server.connected = True
        contacts.forward()
    assert streams(server) == {"events": ["now"], "bulk": ["9"]}


@pytest.mark.parametrize("set_aside", [False, True])
def test_a_spool_of_an_earlier_version_is_read_as_live(
    server: fakeredis.FakeServer, tmp_path: Path, *, set_aside: bool
) -> None:
    path = tmp_path / "spool"
    with sqlite3.connect(path) as old:
        old.execute(
            "CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, contact TEXT NOT NULL, "
            "op TEXT NOT NULL, at INTEGER NOT NULL, source TEXT, traceparent TEXT)"
        )
        old.execute("CREATE TABLE log (namespace TEXT NOT NULL)")
        old.execute("INSERT INTO log VALUES ('ns')")
        old.execute(f"PRAGMA application_id = {0x4373_7031}")
        if set_aside:
            old.execute("CREATE TABLE invalid AS SELECT * FROM changes")
        insert = "INSERT INTO changes (owner, contact, op, at) VALUES ('1', ?, ?, ?)"
        old.executemany(insert, [("9", "upsert", T), ("10", "none", T)])
    old.close()
    with ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server), spool=path) as contacts:
        assert contacts.forward() == (1, 0, None)
        with sqlite3.connect(path) as still_old:  # a process of the earlier version that shares the file
            still_old.execute(insert, ("11", "delete", T))
        still_old.close()
        assert contacts.forward() == (1, 0, None)
    assert streams(server) == {"events": ["9", "11"], "bulk": []}
