"""The spool: changes that Redis does not accept wait in a file, in order per pair, until Redis is back."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import fakeredis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producers import (
    AsyncContactProducer,
    ContactChange,
    ContactProducer,
    InvalidChange,
    NotAccepted,
    PartitionsMismatch,
    ProducerSettings,
    SettingsError,
    SpoolError,
    SpoolFull,
)
from producers.contract.change import partition_of
from producers.send.chunk import Chunk
from producers.send.report import Replies
from producers.spool.drain import SpoolDrain, spool_unaccepted
from producers.spool.file import release_reserve
from producers.spool.store import SPOOL_MIN_BYTES, Spool
from tests.support.log_entries import entries_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = ProducerSettings(namespace="ns")
T = 1_795_460_847_757


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "changes.spool"


@pytest.fixture
def producer(server: fakeredis.FakeServer, path: Path) -> Iterator[ContactProducer]:
    with ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server), spool=path) as producer:
        yield producer


def log_of(server: fakeredis.FakeServer, owner: str) -> list[tuple[bytes, bytes, int]]:
    server.connected = True
    entries = entries_of(fakeredis.FakeRedis(server=server), owner)
    return [(each.fields[b"contact"], each.fields[b"op"], int(each.fields[b"at"])) for each in entries]


def change(contact: str, at: int, op: str = "upsert", owner: str = "1") -> ContactChange:
    return ContactChange.model_validate({"owner": owner, "contact": contact, "op": op, "at": at})


def test_what_is_said_while_redis_is_away_is_spooled_and_forwarded_as_stamped(
    server: fakeredis.FakeServer, producer: ContactProducer, path: Path
) -> None:
    assert not producer.upsert("1", "2", at=T).spooled
    server.connected = False
    receipt = producer.delete("1", "2", source="crm", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert receipt == "spooled"
    assert (receipt.spooled, receipt.op) == (True, "delete")
    assert producer.send([change("3", T), change("4", T)]) == ["spooled", "spooled"]
    assert len(Spool(path, "ns")) == 3
    server.connected = True
    done = producer.forward()
    assert (done.accepted, done.left, done.cause) == (3, 0, None)
    assert log_of(server, "1") == [
        (b"2", b"upsert", T),
        (b"2", b"delete", receipt.at),
        (b"3", b"upsert", T),
        (b"4", b"upsert", T),
    ]
    second = entries_of(fakeredis.FakeRedis(server=server), "1")[1].fields
    assert (second[b"source"], second[b"traceparent"][:5]) == (b"crm", b"00-aa")


def test_nothing_overtakes_what_is_spooled_and_the_next_producer_forwards_it(
    server: fakeredis.FakeServer, producer: ContactProducer, path: Path
) -> None:
    server.connected = False
    producer.upsert("1", "2", at=T)
    server.connected = True
    # Redis failed just now and is not tried again for a moment, so new changes go behind the spooled one.
    assert producer.delete("1", "2", at=T + 1) == "spooled"
    with ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server), spool=path) as other:
        assert other.upsert("1", "2", at=T + 2) != "spooled"
    assert [op for _, op, _ in log_of(server, "1")] == [b"upsert", b"delete", b"upsert"]


def test_close_forwards_and_what_it_cannot_forward_stays(server: fakeredis.FakeServer, path: Path) -> None:
    client = fakeredis.FakeRedis(server=server)
    server.connected = False
    with ContactProducer(settings=SETTINGS, client=client, spool=path) as producer:
        producer.upsert("1", "2", at=T)
    assert len(Spool(path, "ns")) == 1
    with ContactProducer(settings=SETTINGS, client=client, spool=path) as producer:
        producer.upsert("1", "3", at=T)
        server.connected = True
    assert [contact for contact, _, _ in log_of(server, "1")] == [b"2", b"3"]
    assert len(Spool(path, "ns")) == 0


def test_a_change_that_breaks_a_rule_is_never_spooled(server: fakeredis.FakeServer, producer: ContactProducer) -> None:
    server.connected = False
    with pytest.raises(InvalidChange):
        producer.upsert("", "2")
    with pytest.raises(InvalidChange, match=r"changes\[1\]"):
        producer.send([change("2", T), {"owner": "1", "contact": "3", "op": "update"}])
    assert producer.forward().left == 1


def test_another_number_of_partitions_is_an_error_and_spools_nothing(path: Path, server: fakeredis.FakeServer) -> None:
    client = fakeredis.FakeRedis(server=server)
    client.hset("ns:config", mapping={"partitions": 8, "format": 1})
    settings = ProducerSettings(namespace="ns", partitions=4)
    with (
        ContactProducer(settings=settings, client=client, spool=path) as producer,
        pytest.raises(PartitionsMismatch),
    ):
        producer.upsert("1", "2")
    assert len(Spool(path, "ns")) == 0


def test_one_key_of_the_wrong_type_holds_up_the_changes_of_its_partition_alone(
    server: fakeredis.FakeServer, producer: ContactProducer
) -> None:
    client = fakeredis.FakeRedis(server=server)
    producer.upsert("2", "9", at=T)  # the number of partitions is agreed
    client.set(stream_of("1"), "none of ours")
    assert partition_of("1", 64) != partition_of("2", 64)
    said = producer.send([change("9", T), change("9", T + 1, owner="2"), change("9", T + 2, "delete")])
    assert [each == "spooled" for each in said] == [True, False, True]
    assert producer.forward().left == 2
    assert "WRONGTYPE" in str(producer.forward().cause)
    client.delete(stream_of("1"))
    assert producer.forward().accepted == 2
    assert [op for _, op, _ in log_of(server, "1")] == [b"upsert", b"delete"]


def test_a_full_spool_is_one_clear_error_with_all_that_it_did_not_take(
    server: fakeredis.FakeServer, path: Path
) -> None:
    server.connected = False
    client = fakeredis.FakeRedis(server=server)
    with ContactProducer(settings=SETTINGS, client=client, spool=path, spool_bytes=SPOOL_MIN_BYTES) as producer:
        spooled = 0

        def say_until_it_is_full() -> None:
            nonlocal spooled
            for n in range(100):
                spooled += len(producer.send(change(f"{n}-{i}" * 8, T) for i in range(50)))

        with pytest.raises(SpoolFull, match=r"the spool .* is full \(65536 bytes, or its disk\)") as caught:
            say_until_it_is_full()
        assert spooled
        assert spooled % 50 == 0  # each call is spooled as a whole, or not at all
        assert len(caught.value.refused) == 50
        assert all(each.at == T for each in caught.value.changes)
        assert len(Spool(path, "ns", SPOOL_MIN_BYTES)) == spooled
        server.connected = True
        assert producer.forward().accepted == spooled
        assert len(producer.send(caught.value.changes)) == 50


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no database at all, but long enough to be taken for one" * 40, "cannot be opened"), (b"", "")],
)
def test_a_file_that_is_no_spool_is_refused_and_an_empty_one_taken(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    if not said:
        assert len(Spool(path, "ns")) == 0
        return
    with pytest.raises(SettingsError, match=said):
        ContactProducer(settings=SETTINGS, spool=path)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else_another_namespace_and_no_directory_are_refused(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE mine (n)")
    foreign.commit()
    foreign.close()
    Spool(tmp_path / "other", "other").close()
    for name, said in (("foreign", "not a spool of this version"), ("other", "is for namespace 'other', not 'ns'")):
        with pytest.raises(SettingsError, match=said):
            ContactProducer(settings=SETTINGS, spool=tmp_path / name)
    with pytest.raises(SettingsError, match="No such file or directory"):
        ContactProducer(settings=SETTINGS, spool=tmp_path / "nowhere" / "spool")
    with pytest.raises(SettingsError, match="65536 or more"):
        ContactProducer(settings=SETTINGS, spool=tmp_path / "small", spool_bytes=10)
    with pytest.raises(SettingsError, match="no spool is given"):
        ContactProducer(settings=SETTINGS, spool_bytes=1 << 20)
    assert oct((tmp_path / "other").stat().st_mode & 0o777) == "0o600"  # ids are in it


def test_a_spool_that_breaks_on_the_way_is_said_and_nothing_is_lost(
    server: fakeredis.FakeServer, producer: ContactProducer, path: Path
) -> None:
    server.connected = False
    with Spool(path, "ns")._connected() as connection:  # noqa: SLF001 - somebody breaks the file from outside
        connection.execute("DROP TABLE changes")
    with pytest.raises(NotAccepted, match=r"the spool .* failed: no such table") as caught:
        producer.upsert("1", "2", at=T)
    assert caught.value.changes == (change("2", T),)
    with pytest.raises(SpoolError):
        producer.forward()


def test_only_one_forwards_at_a_time(server: fakeredis.FakeServer, producer: ContactProducer, path: Path) -> None:
    server.connected = False
    producer.upsert("1", "2", at=T)
    server.connected = True
    with Spool(path, "ns").claim() as claimed:
        assert claimed
        assert producer.forward() == (0, 1, None)
    assert producer.forward() == (1, 0, None)


def test_it_may_be_used_on_both_sides_of_a_fork(
    server: fakeredis.FakeServer, producer: ContactProducer, path: Path
) -> None:
    server.connected = False
    producer.upsert("1", "2", at=T)
    child = os.fork()
    if not child:
        said = producer.upsert("1", "3", at=T)
        os._exit(0 if said == "spooled" else 1)
    assert os.waitpid(child, 0)[1] == 0
    producer.upsert("1", "4", at=T)
    assert [each.change.contact for each in Spool(path, "ns").after(0, 10)] == ["2", "3", "4"]


def test_the_async_producer_spools_and_forwards_too(server: fakeredis.FakeServer, path: Path) -> None:
    async def said() -> None:
        producer = AsyncContactProducer("redis://127.0.0.1:1/0", spool=path)
        receipts = await asyncio.gather(*(producer.upsert("1", str(n), at=T + n) for n in range(20)))
        assert {*receipts} == {"spooled"}
        assert await producer.send([change("x", T)]) == ["spooled"]
        assert (await producer.forward()).left == 21
        await producer.aclose()

    asyncio.run(said())
    assert len(Spool(path, "contact-sync")) == 21
    with ContactProducer(
        settings=ProducerSettings(), client=fakeredis.FakeRedis(server=server), spool=path
    ) as producer:
        assert producer.forward().accepted == 21


def test_the_async_producer_takes_a_client_and_a_spool(server: fakeredis.FakeServer, path: Path) -> None:
    async def scenario() -> None:
        client = fakeredis.FakeAsyncRedis(server=server)
        async with AsyncContactProducer(settings=SETTINGS, client=client, spool=path) as producer:
            assert not (await producer.upsert("1", "2", at=T)).spooled
            server.connected = False
            assert await producer.delete("1", "2", at=T + 1) == "spooled"
            server.connected = True
            assert await producer.upsert("1", "2", at=T + 2) == "spooled"  # behind the delete

    asyncio.run(scenario())
    assert log_of(server, "1") == [(b"2", b"upsert", T), (b"2", b"delete", T + 1), (b"2", b"upsert", T + 2)]


def test_a_cancelled_forward_leaves_the_right_to_forward(server: fakeredis.FakeServer, path: Path) -> None:
    server.connected = False
    with ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server), spool=path) as producer:
        producer.upsert("1", "2", at=T)

    async def scenario() -> None:
        stuck = asyncio.Event()

        class Stuck(fakeredis.FakeAsyncRedis):
            async def execute_command(self, *_: object, **__: object) -> object:
                stuck.set()
                return await asyncio.Event().wait()

        producer = AsyncContactProducer(settings=SETTINGS, client=Stuck(server=server), spool=path)
        forwarding = asyncio.create_task(producer.forward())
        await stuck.wait()
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)

    asyncio.run(scenario())
    with Spool(path, "ns").claim() as claimed:
        assert claimed


PAIRS = st.tuples(st.sampled_from("12"), st.sampled_from("89"))
WORLD = st.lists(st.tuples(PAIRS, st.sampled_from(["taken", "refused", "lost"])), max_size=12)


@pytest.mark.slow
@example(calls=[[(("1", "8"), "refused"), (("1", "8"), "taken")]], ways=[])  # rarely drawn
@given(calls=st.lists(WORLD, max_size=4), ways=st.lists(st.lists(st.booleans(), max_size=6), max_size=3))
def test_whatever_redis_refuses_no_change_is_lost_or_overtaken(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[list[tuple[tuple[str, str], str]]],
    ways: list[list[bool]],
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool") / "s", "ns")
    log: list[ContactChange] = []
    said: list[ContactChange] = []
    for call in calls:
        chunk = Chunk()
        for (owner, contact), _ in call:
            chunk.changes.append(change(contact, T + len(said), owner=owner))
            chunk.stamps.append(T + len(said))
            said.append(chunk.changes[-1])
        if spool.holds_any():
            answer = Replies([], None, written=False)
        else:
            fates = [fate for _, fate in call]
            answered = fates[: fates.index("lost")] if "lost" in fates else fates
            replies = [b"1-1" if fate == "taken" else Exception("WRONGTYPE") for fate in answered]
            log += [each for each, fate in zip(chunk.changes, answered, strict=False) if fate == "taken"]
            answer = Replies(replies, ConnectionError() if "lost" in fates else None)
        spool_unaccepted(spool, chunk, answer)
    for taken in [*ways, [True] * 100]:
        drain = SpoolDrain(spool, 64, cluster=False)
        while batch := drain.take():
            fits = [*taken, *[True] * len(batch)][: len(batch)]
            log += [each for each, fit in zip(batch.changes, fits, strict=True) if fit]
            drain.record(Replies([b"1-1" if fit else Exception("WRONGTYPE") for fit in fits]))
    assert not spool.holds_any()
    for pair in {(each.owner, each.contact) for each in said}:
        last = [each for each in log if (each.owner, each.contact) == pair]
        first_seen = list(dict.fromkeys(each.at for each in last))
        assert set(first_seen) == {each.at for each in said if (each.owner, each.contact) == pair}
        newest = max(first_seen, key=lambda at: at or 0)
        assert last[-1].at == newest  # a reader that only looks at the order of arrival ends with the newest


def test_a_row_that_no_producer_wrote_is_set_aside_and_blocks_nobody(server: fakeredis.FakeServer, path: Path) -> None:
    spool = Spool(path, "ns")
    spool.append([ContactChange(owner="1", contact=str(n), op="upsert", at=T) for n in range(3)])
    with sqlite3.connect(path) as file:
        file.execute("UPDATE changes SET op = 'rename' WHERE contact = '0'")
        file.execute("UPDATE changes SET owner = '' WHERE contact = '1'")
        file.execute("INSERT INTO changes (owner, contact, op, at) VALUES (CAST(x'ff' AS TEXT), '1', 'upsert', 1)")
    file.close()
    with ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server), spool=path) as producer:
        assert producer.forward().left == 0
        producer.delete("1", "2", at=T + 1)
    assert [contact for contact, *_ in log_of(server, "1")] == [b"2", b"2"]
    assert (spool.set_aside(), len(spool)) == (3, 0)


@pytest.mark.slow
def test_however_many_such_rows_lie_before_a_change_it_is_found(path: Path) -> None:
    spool = Spool(path, "ns")
    spool.append([ContactChange(owner="1", contact="2", op="upsert", at=T)] * 3_000)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE changes SET op = '' WHERE seq < 3000")
    file.close()
    assert [each.seq for each in spool.after(0, 1)] == [3_000]


@pytest.mark.parametrize("damage", [b"CREATE \x9cABLE log", b"CREATE \nABLE log"])
def test_a_spool_whose_damage_is_quoted_is_refused_in_one_line(path: Path, damage: bytes) -> None:
    Spool(path, "ns").close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE log", damage))
    with pytest.raises(SettingsError, match=r"^the spool \S+ cannot be opened: .*$"):
        Spool(path, "ns")


@pytest.mark.parametrize("damage", ["DELETE FROM log", "INSERT INTO log VALUES ('ns')"])
def test_a_spool_that_does_not_name_one_namespace_is_refused(path: Path, damage: str) -> None:
    Spool(path, "ns").close()
    with sqlite3.connect(path) as file:
        file.execute(damage)
    file.close()
    with pytest.raises(SettingsError, match=r"is damaged: it names [02] namespaces and not one"):
        Spool(path, "ns")


def test_behind_a_dangling_link_it_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.MonkeyPatch.context():
        before = os.umask(0o022)
        try:
            Spool(tmp_path / "link", "ns").append([ContactChange(owner="1", contact="2", op="upsert", at=T)])
        finally:
            os.umask(before)
    assert {each.name: each.stat().st_mode & 0o777 for each in tmp_path.glob("target*")} == dict.fromkeys(
        ("target", "target-wal", "target-shm", "target-reserve"), 0o600
    )


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize(
    ("megabytes", "used"), [(24, False), (6, False), (24, True)], ids=["", "a small one", "another used the reserve"]
)
def test_a_spool_that_filled_its_disk_drains_when_redis_is_back(
    server: fakeredis.FakeServer, tmp_path: Path, megabytes: int, *, used: bool
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        server.connected = False
        client = fakeredis.FakeRedis(server=server)
        with ContactProducer(settings=SETTINGS, client=client, spool=disk / "spool") as producer:
            producer.upsert("1", "2")
            if used:
                release_reserve(disk / "spool")  # as another process does that forwards from a full disk
            spooled = 0
            with suppress(NotAccepted):
                for first in range(0, 10_000_000, 1_000):
                    producer.send(
                        [
                            ContactChange(owner="1", contact=f"{n:0200}", op="upsert", at=T)
                            for n in range(first, first + 1_000)
                        ]
                    )
                    spooled += 1_000
            (disk / "other").write_bytes(b"x" * shutil.disk_usage(disk).free)
            server.connected = True
            time.sleep(0.6)  # the producer's cooldown
            assert producer.forward().left == 0
            producer.delete("1", "2")
        assert len(log_of(server, "1")) > spooled > 0
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
