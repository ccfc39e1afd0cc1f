"""Deletes first: a delete waits less for company than everything else, and is found by whoever looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import told
from tests.support.fleet import PARTITIONS, T
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from worker.core.backlog import PartitionBacklog
from worker.core.linger import Linger
from worker.store.backlog import BacklogScanner
from worker.store.client import connect
from worker.store.delete_scan import AT_ONCE, DEEP_ENTRIES, DeleteScan, decode_deletes
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import redis

    from tests.support.fleet import Fleet

ALL = range(PARTITIONS)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[redis.Redis]:
    with connect(fleet.settings().redis_url) as connected:
        yield connected


def look(client: redis.Redis, fleet: Fleet) -> Sequence[PartitionBacklog]:
    return BacklogScanner(Namespace(client, fleet.keys, PARTITIONS)).scan().waiting


def fill(fleet: Fleet, partition: int, entries: int, op_of: Callable[[int], str] = lambda _: "upsert") -> None:
    """So many entries in a log, a millisecond apart."""
    pipe = fleet.client.pipeline()
    for i in range(entries):
        fields = {"owner": "1", "contact": str(i), "op": op_of(i)}
        pipe.xadd(fleet.keys.events(partition), dict(fields), id=f"{T + i}-0")
    pipe.execute()


def ms(entry: str) -> int:
    return int(entry.partition("-")[0])


def test_the_oldest_delete_of_each_log_is_found_and_told_to_the_fleet(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    for op in ("upsert", "upsert"):
        fleet.append_raw(1, {"owner": "1", "contact": op, "op": op})
        fleet.append_raw(2, {"op": op, "owner": "delete", "contact": "op"})
    assert deletes.find(look(client, fleet), ALL, long=False) == {}
    first = fleet.append_raw(1, {"owner": "1", "contact": "2", "op": "delete"})
    fleet.append_raw(1, {"owner": "1", "contact": "3", "op": "delete"})
    assert deletes.find(look(client, fleet), ALL, long=False) == {1: ms(first)}
    assert {each.partition: each.delete_ms for each in look(client, fleet)} == {1: ms(first), 2: 0}


def test_what_was_looked_at_once_is_not_read_again(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    for op in ("upsert", "delete"):
        for _ in range(20):
            fleet.append_raw(1, {"owner": "1", "contact": "2", "op": op})
            deletes.find(look(client, fleet), ALL, long=False)
    fleet.client.config_resetstat()
    deletes.find(look(client, fleet), ALL, long=False)
    stats: Any = fleet.client.info("commandstats")
    assert "cmdstat_xrange" not in stats
    assert "cmdstat_set" not in stats


def test_of_a_long_log_the_oldest_delete_is_found(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    fill(fleet, 1, DEEP_ENTRIES + 10)
    fleet.append_raw(1, {"owner": "1", "contact": "2", "op": "delete"}, entry=f"{T + 9_000}-0")
    fleet.append_raw(1, {"owner": "1", "contact": "2", "op": "upsert"}, entry=f"{T + 9_001}-0")
    assert deletes.find(look(client, fleet), long=True) == {}
    fleet.append_raw(1, {"owner": "1", "contact": "3", "op": "delete"}, entry=f"{T + 9_002}-0")
    for _ in range(2):
        assert deletes.find(look(client, fleet), long=True) == {1: T + 9_000}
        assert [each.delete_ms for each in look(client, fleet)] == [T + 9_000]
    fleet.append_raw(1, {"owner": "1", "contact": "4", "op": "upsert"}, entry=f"{T + 9_003}-0")
    fleet.client.xtrim(fleet.keys.events(1), minid=f"{T + 9_003}-0", approximate=False)
    assert deletes.find(look(client, fleet), long=True) == {}
    assert [each.delete_ms for each in look(client, fleet)] == [0]


def test_each_entry_that_waited_before_anybody_looked_is_read_once(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    for partition in (1, 2):
        fill(fleet, partition, AT_ONCE + 10, lambda _: "delete")
    for _ in range(3):
        deletes.find(look(client, fleet), long=True)
    assert [each.entries for each in deletes.searched.values()] == [AT_ONCE + 10] * 2


def test_what_waits_in_many_short_logs_is_read_as_fast_as_in_one(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    for partition in range(PARTITIONS):
        fleet.append_raw(partition, {"owner": "1", "contact": "1", "op": "delete"}, entry=f"{T}-0")
    assert deletes.find(look(client, fleet), long=True) == dict.fromkeys(range(PARTITIONS), T)


def test_a_log_that_was_empty_is_read_from_its_start_before_those_that_waited(
    fleet: Fleet, client: redis.Redis
) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    fill(fleet, 1, 2 * DEEP_ENTRIES)
    deletes.find(look(client, fleet), long=True)
    fleet.append_raw(2, {"owner": "1", "contact": "1", "op": "delete"}, entry=f"{T}-0")
    assert deletes.find(look(client, fleet), long=True) == {2: T}


def test_what_was_found_as_a_log_lingered_is_known_when_it_is_due(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    for partition, op in ((1, "delete"), (2, "upsert")):
        fleet.append_raw(partition, {"owner": "1", "contact": "1", "op": op}, entry=f"{T}-0")
    for lingering, long, found in (((1, 2), True, {1: T}), ((), True, {1: T}), ((), False, {})):
        assert deletes.find(look(client, fleet), lingering, long=long) == found


def test_the_clock_of_a_node_does_not_hide_a_delete(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    fleet.append_raw(1, {"owner": "1", "contact": "1", "op": "delete"}, entry=f"{T}-0")
    (found,) = look(client, fleet)
    found.shift(60_000)
    assert deletes.find([found], ALL, long=False) == {1: T}


def test_a_log_full_of_deletes_may_be_sent_in_its_order(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    fill(fleet, 1, AT_ONCE, lambda i: "upsert" if i % 20 else "delete")
    fill(fleet, 2, DEEP_ENTRIES)
    fleet.append_raw(2, {"owner": "1", "contact": "2", "op": "delete"}, entry=f"{T + 9_000}-0")
    found = {}
    for in_order in (True, False, True):
        for _ in range(3):
            deletes.find(look(client, fleet), long=True, in_order=in_order)
        found[in_order] = {each.partition: each.delete_ms for each in look(client, fleet)}
        assert found[in_order] == {1: 0 if in_order else T, 2: T + 9_000}


def test_many_short_logs_that_hold_many_deletes_together_may_be_sent_in_their_order(
    fleet: Fleet, client: redis.Redis
) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    for partition in range(PARTITIONS):
        fill(fleet, partition, AT_ONCE // 2, lambda i: "upsert" if i % 20 else "delete")
    deletes.find(look(client, fleet), long=True, in_order=True)
    found = [deletes.find(look(client, fleet), (), long=True, in_order=in_order) for in_order in (True, False)]
    assert [sorted(each) for each in found] == [[], [*ALL]]
    assert [*deletes.find(look(client, fleet), {1}, long=True, in_order=True)] == [1], "it is due sooner"


def test_a_delete_that_was_settled_is_none(fleet: Fleet, client: redis.Redis) -> None:
    deletes = DeleteScan(Namespace(client, fleet.keys, PARTITIONS))
    first = fleet.append_raw(1, {"owner": "1", "contact": "2", "op": "delete"}, entry=f"{T}-0")
    fleet.append_raw(1, {"owner": "1", "contact": "2", "op": "upsert"}, entry=f"{T + 5}-0")
    assert deletes.find(look(client, fleet), ALL, long=False) == {1: ms(first)}
    fleet.client.xdel(fleet.keys.events(1), first)
    assert [each.delete_ms for each in look(client, fleet)] == [0]
    assert deletes.find(look(client, fleet), ALL, long=False) == {}


@pytest.mark.parametrize("told", [b"", b"1", b"a:b", b"1:2:3", b"\xff"])
def test_what_is_none_of_ours_tells_nothing(fleet: Fleet, client: redis.Redis, told: bytes) -> None:
    assert decode_deletes(told) == {}
    fleet.append_raw(1, {"owner": "1", "contact": "2", "op": "delete"})
    fleet.client.set(fleet.keys.deletes, told)
    assert [each.delete_ms for each in look(client, fleet)] == [0]
    fleet.client.delete(fleet.keys.deletes)
    fleet.client.hset(fleet.keys.deletes, "a", "b")
    assert [each.delete_ms for each in look(client, fleet)] == [0]


def test_a_delete_is_due_before_what_lingers_longer(fleet: Fleet) -> None:
    snapshot = fleet.first.gate.snapshot()
    linger = Linger(1_000, 100)
    assert PartitionBacklog(0, oldest_ms=T, entries=2).due_ms(snapshot, linger, 100) == T + 1_000
    assert PartitionBacklog(0, oldest_ms=T, entries=2, delete_ms=T + 50).due_ms(snapshot, linger, 100) == T + 150
    assert PartitionBacklog(0, oldest_ms=T, entries=2, delete_ms=T + 990).due_ms(snapshot, linger, 100) == T + 1_000


def test_a_delete_never_lingers_for_longer_than_anything_else(fleet: Fleet) -> None:
    settings = fleet.settings(linger_seconds=0.05, delete_linger_seconds=10.0)
    assert Linger.of(settings.linger_seconds, settings.delete_linger_seconds) == Linger(50, 50)


def test_a_worker_delivers_a_delete_while_upserts_linger(process_fleet: Fleet, tmp_path: Path) -> None:
    environ = process_fleet.environment(linger_seconds=600.0, delete_linger_seconds=0.1)
    with WorkerProcess(environ, tmp_path) as worker:
        worker.wait_until_ready()
        process_fleet.append("1", "1", "upsert")
        process_fleet.append("1", "2", "delete")
        wait_until(lambda: process_fleet.totals().get("deletes_confirmed"), seconds=30, what="the delete was delivered")
    # What lingers beside it goes with it: it makes the request no dearer.
    assert process_fleet.totals()["upserts_confirmed"] == 1


def test_its_age_has_its_own_figure_in_the_log_and_behind_it(fleet: Fleet) -> None:
    now = fleet.now_ms()
    fleet.append("1", "2", "upsert", entry=f"{now - 90_000}-0")
    assert told(fleet, "status")["oldest_delete_seconds"] is None
    fleet.append("1", "3", "delete", entry=f"{now - 60_000}-0")
    assert 60 <= told(fleet, "status")["oldest_delete_seconds"] < 85
    fleet.stand_in.faults({"kind": "status", "status": 503})
    fleet.flush_once()
    fleet.append("1", "4", "delete")
    wait_until(lambda: fleet.flush(0.2) < 0 or len(fleet.pending()) >= 2, what="they were read")
    found = told(fleet, "status")
    assert 60 <= found["oldest_delete_seconds"] < 85
    assert found["oldest_seconds"] >= 90
