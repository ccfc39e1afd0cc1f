"""The client for asyncio keeps the same promises."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import fakeredis
import pytest

from producers import (
    AsyncContactProducer,
    ContactChange,
    InvalidChange,
    NotAccepted,
    PartitionsMismatch,
    ProducerSettings,
)
from tests.support.log_entries import entries_of, stream_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path
    from typing import Any

SETTINGS = ProducerSettings(namespace="ns")


class Log:
    """A Redis, looked at from outside."""

    def __init__(self) -> None:
        self.server = fakeredis.FakeServer()
        self.client = fakeredis.FakeRedis(server=self.server)

    def producer(self, settings: ProducerSettings = SETTINGS) -> AsyncContactProducer:
        return AsyncContactProducer(settings=settings, client=fakeredis.FakeAsyncRedis(server=self.server))


@pytest.fixture
def log() -> Log:
    return Log()


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, timeout=30))


def test_changes_of_many_tasks_land_each_with_its_own_id(log: Log) -> None:
    async def scenario() -> None:
        async with log.producer() as producer:
            ids = await asyncio.gather(
                *(producer.upsert("1", str(number)) for number in range(1500)), producer.delete("2", "9")
            )
        stored = {entry.fields[b"contact"].decode(): entry.id for entry in entries_of(log.client, "1")}
        assert ids[:1500] == [stored[str(number)] for number in range(1500)]
        assert [entry.fields[b"op"] for entry in entries_of(log.client, "2")] == [b"delete"]

    run(scenario())


def test_send_takes_plain_and_asynchronous_iterables(log: Log) -> None:
    async def later() -> AsyncIterator[ContactChange]:
        for number in range(1200):
            yield ContactChange(owner="1", contact=str(number), op="upsert")

    async def scenario() -> None:
        producer = log.producer()
        assert len(await producer.send(later())) == 1200
        assert len(await producer.send([{"owner": "1", "contact": "2", "op": "delete"}])) == 1

    run(scenario())
    assert log.client.xlen(stream_of("1")) == 1201


def test_an_invalid_change_stops_the_send_right_there(log: Log) -> None:
    items = [{"owner": "1", "contact": "2", "op": "upsert"}, {"owner": "1", "op": "upsert"}]

    async def scenario() -> None:
        with pytest.raises(InvalidChange, match=r"^changes\[1\]: contact is required"):
            await log.producer().send(items)

    run(scenario())
    assert log.client.xlen(stream_of("1")) == 1


def test_a_refusal_reaches_the_task_it_belongs_to_and_no_other(log: Log) -> None:
    log.client.set(stream_of("2"), "in the way")

    async def scenario() -> None:
        producer = log.producer()
        good, bad = await asyncio.gather(producer.upsert("1", "a"), producer.upsert("2", "b"), return_exceptions=True)
        assert isinstance(good, str)
        assert isinstance(bad, NotAccepted)
        assert [(change.contact, change.at is None) for change in bad.refused] == [("b", False)]

    run(scenario())


def test_another_number_of_partitions_refuses_everyone_who_waits(log: Log) -> None:
    log.client.hset("ns:config", "partitions", "64")

    async def scenario() -> None:
        producer = log.producer(ProducerSettings(namespace="ns", partitions=32))
        errors = await asyncio.gather(*(producer.upsert("1", str(n)) for n in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [PartitionsMismatch] * 3

    run(scenario())


def test_a_cancelled_task_leaves_the_others_their_round_trip(log: Log) -> None:
    async def scenario() -> None:
        producer = log.producer()
        tasks = [asyncio.create_task(producer.upsert("1", str(number))) for number in range(3)]
        await asyncio.sleep(0)  # each has stamped its change and waits
        tasks[1].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[1]
        assert await tasks[0] < await tasks[2]
        await producer.aclose()

    run(scenario())


@pytest.mark.parametrize("spooling", [False, True])
def test_closing_with_a_time_limit_takes_no_change_from_the_tasks_that_wait(tmp_path: Path, *, spooling: bool) -> None:
    async def scenario() -> None:
        over = asyncio.Event()

        async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()
            writer.close()

        async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
            url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
            producer = AsyncContactProducer(url, spool=tmp_path / "spool" if spooling else None)
            tasks = [asyncio.create_task(producer.upsert("1", str(number))) for number in range(3)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(producer.aclose(), 0.2)
            over.set()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            if spooling:
                assert ended == ["spooled"] * 3
            else:
                back = [each.changes[0].contact for each in ended if isinstance(each, NotAccepted)]
                assert back == ["0", "1", "2"]
            await producer.aclose()

    run(scenario())


def test_one_pair_in_a_burst_of_tasks_gets_rising_stamps(log: Log) -> None:
    async def scenario() -> None:
        producer = log.producer()
        await asyncio.gather(*(producer.upsert("1", "hot") for _ in range(30)))

    run(scenario())
    stored = entries_of(log.client, "1")
    ats = [entry.at for entry in stored]
    assert ats == sorted(set(ats))
    assert len(ats) == 30
    assert all(entry.at <= entry.time_ms for entry in stored)
