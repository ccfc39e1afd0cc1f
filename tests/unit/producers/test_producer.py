"""The client: what it appends to the log, in which order, and which errors it raises."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import fakeredis
import pytest

import producers
from producers import (
    ContactChange,
    ContactProducer,
    InvalidChange,
    NotAccepted,
    PartitionsMismatch,
    ProducerSettings,
    SettingsError,
)
from producers.contract.change import partition_of
from tests.support.log_entries import entries_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW_MS = 1_795_460_847_757
SETTINGS = ProducerSettings(namespace="ns")


@pytest.fixture
def client() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture
def producer(client: fakeredis.FakeRedis) -> ContactProducer:
    return ContactProducer(settings=SETTINGS, client=client)


def changes(count: int, owner: str = "1") -> Iterator[ContactChange]:
    return (ContactChange(owner=owner, contact=str(number), op="upsert") for number in range(count))


def test_a_change_is_one_entry_in_the_stream_of_its_owners_partition(client: fakeredis.FakeRedis) -> None:
    producer = ContactProducer(settings=SETTINGS, client=client, clock=lambda: NOW_MS / 1000)
    entry_id = producer.upsert("ünï", "2")
    [entry] = entries_of(client, "ünï")
    assert entry_id == entry.id
    # In this order, which the worker reads fastest.
    assert list(entry.fields.items()) == [
        (b"owner", "ünï".encode()),
        (b"contact", b"2"),
        (b"op", b"upsert"),
        (b"at", b"%d" % NOW_MS),
    ]


def test_a_delete_may_say_when_who_and_in_which_trace(client: fakeredis.FakeRedis, producer: ContactProducer) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    producer.delete("1", "9", at=10**12, source="crm", traceparent=trace)
    assert list(entries_of(client, "1")[0].fields.items())[2:] == [
        (b"op", b"delete"),
        (b"at", b"1000000000000"),
        (b"source", b"crm"),
        (b"traceparent", trace.encode()),
    ]


def test_the_ids_come_back_in_the_order_of_the_changes(client: fakeredis.FakeRedis, producer: ContactProducer) -> None:
    ids = producer.send(changes(2500))
    stored = entries_of(client, "1")
    assert ids == [entry.id for entry in stored]
    assert [entry.fields[b"contact"] for entry in stored] == [b"%d" % number for number in range(2500)]


def test_an_iterable_is_sent_as_it_is_taken(client: fakeredis.FakeRedis, producer: ContactProducer) -> None:
    seen: list[int] = []

    def watched() -> Iterator[ContactChange]:
        for number, change in enumerate(changes(3000)):
            if number % 1000 == 999:
                seen.append(client.xlen(stream_of("1")))
            yield change

    producer.send(watched())
    assert seen == [0, 1000, 2000]


def test_mappings_are_changes_too(client: fakeredis.FakeRedis, producer: ContactProducer) -> None:
    producer.send([{"owner": "1", "contact": "2", "op": "delete"}])
    assert entries_of(client, "1")[0].fields.items() >= {(b"owner", b"1"), (b"contact", b"2"), (b"op", b"delete")}


def test_an_invalid_change_stops_the_send_right_there(client: fakeredis.FakeRedis, producer: ContactProducer) -> None:
    items: Iterator[object] = iter([*changes(1500), {"owner": "1", "contact": "", "op": "upsert"}, *changes(1)])
    with pytest.raises(InvalidChange, match=r"^changes\[1500\]: contact must be") as caught:
        producer.send(items)  # type: ignore[arg-type] # a mix, as a caller may have read it
    assert caught.value.index == 1500
    assert client.xlen(stream_of("1")) == 1500
    assert len(list(items)) == 1  # not even taken


def test_what_the_iterable_raises_reaches_the_caller_after_what_it_gave(
    client: fakeredis.FakeRedis, producer: ContactProducer
) -> None:
    def broken() -> Iterator[ContactChange]:
        yield from changes(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        producer.send(broken())
    assert client.xlen(stream_of("1")) == 3


def test_a_stream_of_another_type_refuses_its_changes_and_no_others(
    client: fakeredis.FakeRedis, producer: ContactProducer
) -> None:
    assert partition_of("1", 64) != partition_of("2", 64)
    client.set(stream_of("2"), "in the way")
    with pytest.raises(NotAccepted, match=r"WRONGTYPE") as caught:
        producer.send([*changes(2), *changes(2, owner="2"), *changes(2)])
    error = caught.value
    assert (error.accepted, error.uncertain, len(error.refused)) == (4, (), 2)
    assert {change.owner for change in error.refused} == {"2"}
    client.delete(stream_of("2"))
    assert len(producer.send(error.changes)) == 2
    assert [entry.at for entry in entries_of(client, "2")] == [change.at for change in error.changes]


def test_stamps_in_the_log_never_run_ahead_of_the_clock_of_redis(
    client: fakeredis.FakeRedis, producer: ContactProducer
) -> None:
    producer.send(ContactChange(owner="1", contact="hot", op="upsert") for _ in range(50))
    stored = entries_of(client, "1")
    ats = [entry.at for entry in stored]
    assert ats == sorted(set(ats))
    assert all(entry.at <= entry.time_ms for entry in stored)


def test_an_invalid_argument_is_refused_without_an_index(producer: ContactProducer) -> None:
    with pytest.raises(InvalidChange, match=r"^owner must be .*, not int$"):
        producer.upsert(1, "2")  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(InvalidChange, match=r"^at must be at most 5 minutes ahead of this machine's clock$"):
        producer.upsert("1", "2", at=2 * NOW_MS)


def test_an_unknown_option_is_refused_in_one_line(producer: ContactProducer) -> None:
    with pytest.raises(InvalidChange, match=r"^'when' is not a field of a change$"):
        producer.upsert("1", "2", when=1)  # type: ignore[call-arg] # the mistake under test
    with pytest.raises(TypeError, match="'op'"):
        producer.upsert("1", "2", op="delete")  # type: ignore[call-arg] # the same


def test_another_number_of_partitions_refuses_before_anything_is_taken(client: fakeredis.FakeRedis) -> None:
    ContactProducer(settings=SETTINGS, client=client).upsert("1", "2")
    items = changes(3)
    with pytest.raises(PartitionsMismatch, match=r"is 32, .* has 64"):
        ContactProducer(settings=ProducerSettings(namespace="ns", partitions=32), client=client).send(items)
    assert len(list(items)) == 3


def test_a_client_that_decodes_its_replies_serves_too() -> None:
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True)
    entry_id = ContactProducer(settings=SETTINGS, client=client).upsert("1", "2")
    assert client.xinfo_stream(stream_of("1"))["last-generated-id"] == entry_id


def test_a_client_that_was_given_stays_open(client: fakeredis.FakeRedis) -> None:
    with ContactProducer(settings=SETTINGS, client=client) as producer:
        producer.upsert("1", "2")
        connections = client.connection_pool._available_connections  # noqa: SLF001 - redis-py shows it nowhere else
        open_before = [connection.is_connected for connection in connections]
    assert open_before == [connection.is_connected for connection in connections] == [True]


@pytest.mark.parametrize("url", ["http://localhost", "redis+cluster://localhost/1", "localhost:6379", "redis://h?a=1"])
def test_a_url_that_is_none_of_redis_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^the argument url [^\n]+$"):
        ContactProducer(url)


def test_a_url_and_settings_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="not both"):
        ContactProducer("redis://localhost", settings=SETTINGS)


def _loaded_by(statement: str) -> set[str]:
    """The modules that a new process has after this statement, packages by their first name too."""
    code = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return {*loaded, *(name.partition(".")[0] for name in loaded)}


def test_importing_a_producer_needs_neither_celery_nor_httpx() -> None:
    loaded = _loaded_by("from producers import ContactProducer, AsyncContactProducer")
    assert {"producers", "redis", "pydantic"} <= loaded
    unneeded = {"celery", "kombu", "httpx", "httpcore", "click", "rich", "structlog", "starlette", "dotenv", "worker"}
    unneeded |= {"sqlite3", "sqlalchemy", "django", "producers.spool", "producers.outbox", "producers.testing"}
    assert not unneeded & loaded


def test_each_name_loads_no_more_than_it_needs() -> None:
    assert not {"redis", "pydantic", "asyncio"} & _loaded_by("import producers")
    assert not {"redis", "asyncio", "producers.producer"} & _loaded_by("from producers import ContactChange")
    assert not {"producers.producer", "producers.send"} & _loaded_by("import worker.cli.health")


def test_every_name_is_there_and_no_other() -> None:
    assert {name for name in dir(producers) if name in producers.__all__} == set(producers.__all__)
    assert all(getattr(producers, name) for name in producers.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'ContactConsumer'"):
        producers.ContactConsumer  # noqa: B018 - the mistake under test
