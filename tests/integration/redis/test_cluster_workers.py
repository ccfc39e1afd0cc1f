"""Workers and commands on a Redis Cluster: everything is delivered, whatever becomes of one node."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from producers import ContactProducer, NotAccepted
from producers.contract.change import partition_of
from producers.contract.keys import Keys
from tests.support.clusters import away, begin_move, changes, connected, end_move, kill, move_keys, move_slot, node_of
from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, Fleet
from tests.support.processes import is_stopped, runs
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, PROCESS, THREADS, WorkerProcess
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from producers import ContactChange
    from worker.local.cluster import EmbeddedCluster
    from worker.local.redis import EmbeddedRedis
    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def fleet(cluster: EmbeddedCluster, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    with Fleet(cluster.url, namespace, stand_in, **PROCESS, broker_url="memory://") as made:
        yield made


def test_a_worker_delivers_from_all_nodes(fleet: Fleet, stand_in: StandInClient) -> None:
    fleet.producer().send(changes(3_000))
    fleet.worker(linger_seconds=0.0).flusher.run(20.0)
    assert len(stand_in.contacts()) == 3_000
    assert not fleet.waits()


@pytest.mark.parametrize("pool", [THREADS, PREFORK])
def test_worker_processes_without_a_broker_share_the_work(
    fleet: Fleet, stand_in: StandInClient, tmp_path: Path, pool: tuple[str, ...]
) -> None:
    with (
        WorkerProcess(fleet.environment(), tmp_path, pool) as one,
        WorkerProcess(fleet.environment(), tmp_path, pool) as other,
    ):
        one.wait_until_ready()
        other.wait_until_ready()
        stand_in.settings(latency_seconds=0.05)
        fleet.producer().send(changes(20_000))
        wait_until(lambda: stand_in.counts()["contacts"] == 20_000, seconds=60, what="all are delivered")
        assert one.end() == other.end() == 0
        assert all(" confirmed" in each.said() or "batch_confirmed" in each.said() for each in (one, other))


@pytest.mark.parametrize("lost", [f"{how} {node}" for how in ("dead", "hung", "down") for node in range(3)])
def test_one_node_away_stops_its_own_partitions_alone(
    cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient, tmp_path: Path, lost: str
) -> None:
    """Each node in turn, so those of gate, configuration and ticker too."""
    how, _, number = lost.partition(" ")
    producer = fleet.producer()
    with WorkerProcess(fleet.environment(), tmp_path) as worker:
        worker.wait_until_ready()
        producer.upsert("1", "2")
        wait_until(lambda: stand_in.counts()["contacts"] == 1, seconds=20, what="the first is delivered")
        _others_go_on(cluster, producer, stand_in, int(number), how)


@pytest.mark.parametrize("lost", ["dead", "hung"])
def test_the_node_of_the_ticker_is_away_from_workers_with_a_broker(  # noqa: PLR0913, PLR0917 - fixtures
    cluster: EmbeddedCluster,
    fleet: Fleet,
    stand_in: StandInClient,
    tmp_path: Path,
    redis_server: EmbeddedRedis,
    lost: str,
) -> None:
    """The tickers cannot agree who leads, and everything is delivered all the same."""
    fleet.change(broker_url=redis_server.url)
    producer = fleet.producer()
    with (
        WorkerProcess(fleet.environment(), tmp_path) as one,
        WorkerProcess(fleet.environment(), tmp_path) as other,
    ):
        one.wait_until_ready()
        other.wait_until_ready()
        producer.upsert("1", "2")
        wait_until(lambda: stand_in.counts()["contacts"] == 1, seconds=20, what="the first is delivered")
        _others_go_on(cluster, producer, stand_in, node_of(cluster, key_slot(fleet.keys.ticker.encode())), lost)


@pytest.mark.parametrize("which", ["gate", "log"])
def test_a_node_that_accepts_no_writes_stops_its_own_partitions_alone(
    cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient, which: str
) -> None:
    key = {"gate": fleet.keys.gate, "log": fleet.keys.events(0)}[which]
    lost = node_of(cluster, key_slot(key.encode()))
    theirs = {p for p in range(PARTITIONS) if node_of(cluster, key_slot(b"%d" % p)) == lost}
    flusher = fleet.first.flusher
    producer = fleet.producer()
    producer.upsert("1", "0")
    wait_until(lambda: (flusher.run(1.0), stand_in.contacts())[1], what="the first is delivered")
    producer.send(changes(100))
    others = {(str(i), "1") for i in range(100) if partition_of(str(i), PARTITIONS) not in theirs}
    with away(cluster, lost, "alone"):
        wait_until(lambda: (flusher.run(1.0), _has(stand_in, others))[1], seconds=30, what="the others are delivered")
        assert len(stand_in.contacts()) == len(others) + 1
    fleet.deliver()
    assert len(stand_in.contacts()) == 101


def test_a_server_key_that_was_mended_is_read_while_the_gates_node_is_away(
    cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient, tmp_path: Path
) -> None:
    names = ("server_key_id", "server_key_secret")
    files = {name: tmp_path / name for name in names}
    for each in files.values():
        each.write_text(DEFAULT_KEY)
    fleet.change(**dict.fromkeys(names), **{f"{name}_file": each for name, each in files.items()})
    lost = node_of(cluster, key_slot(fleet.keys.gate.encode()))
    theirs = {p for p in range(PARTITIONS) if node_of(cluster, key_slot(b"%d" % p)) == lost}
    owner = next(str(i) for i in range(100) if fleet.partition(str(i)) not in theirs)
    flusher = fleet.first.flusher
    fleet.append(owner, "1", "upsert")
    wait_until(lambda: (flusher.run(1.0), stand_in.contacts())[1], what="the first is delivered")
    with away(cluster, lost, "down"):
        stand_in.settings(key_secret="another")
        before = stand_in.counts()["requests"]
        fleet.append(owner, "2", "upsert")
        wait_until(lambda: (flusher.run(1.0), stand_in.counts()["requests"] > before)[1], what="one is refused")
        files["server_key_secret"].write_text("another")
        wait_until(lambda: (flusher.run(1.0), len(stand_in.contacts()) == 2)[1], what="the new key is used")


def test_the_node_of_the_key_that_tells_of_deletes_is_away(
    cluster: EmbeddedCluster, namespace: str, stand_in: StandInClient, tmp_path: Path
) -> None:
    def node(key: str) -> int:
        return node_of(cluster, key_slot(key.encode()))

    names = (f"{namespace}-{i}" for i in range(100))
    keys = next(each for each in map(Keys, names) if node(each.deletes) not in {node(each.gate), node(each.ticker)})
    lost = node(keys.deletes)
    settings = {**PROCESS, "linger_seconds": 1.0, "delete_linger_seconds": 0.2, "broker_url": "memory://"}
    with (
        Fleet(cluster.url, keys.namespace, stand_in, **settings) as fleet,
        WorkerProcess(fleet.environment(), tmp_path) as worker,
    ):
        worker.wait_until_ready()
        theirs = {p for p in range(PARTITIONS) if node(fleet.keys.events(p)) == lost}
        owners = [str(i) for i in range(100) if fleet.partition(str(i)) not in theirs]
        producer = fleet.producer()
        for owner in owners:
            producer.upsert(owner, "1")
        wait_until(lambda: len(stand_in.contacts()) == len(owners), seconds=20, what="all are at the endpoint")
        kill(cluster, lost)
        for owner in owners:
            producer.delete(owner, "1")
        wait_until(lambda: not stand_in.contacts(), seconds=30, what="all are deleted")
        assert "redis_away" not in worker.said()


def _others_go_on(
    cluster: EmbeddedCluster, producer: ContactProducer, stand_in: StandInClient, node: int, how: str
) -> None:
    """Sees wave after wave of changes to the partitions of other nodes delivered, while one node is away."""
    theirs = {p for p in range(PARTITIONS) if node_of(cluster, key_slot(b"%d" % p)) == node}
    assert theirs
    assert len(theirs) < PARTITIONS
    pid = cluster.servers[node].pid
    with away(cluster, node, how):
        for wave in range(5):
            with pytest.raises(NotAccepted) as caught:
                producer.send(changes(500, contact=str(wave)))
            assert {partition_of(change.owner, PARTITIONS) for change in caught.value.changes} == theirs
            wanted = {(str(i), str(wave)) for i in range(500) if partition_of(str(i), PARTITIONS) not in theirs}
            wait_until(partial(_has, stand_in, wanted), seconds=60, what=f"wave {wave} of the others is delivered")
            assert is_stopped(pid) if how == "hung" else runs(pid) == (how != "dead")


def _has(stand_in: StandInClient, wanted: set[tuple[str, str]]) -> bool:
    return wanted <= stand_in.contacts()


def test_slots_move_under_load(cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient, tmp_path: Path) -> None:
    producer = fleet.producer()
    with WorkerProcess(fleet.environment(), tmp_path) as worker:
        worker.wait_until_ready()
        sent = 0
        for p in range(PARTITIONS):
            slot = key_slot(b"%d" % p)
            to = (node_of(cluster, slot) + 1) % 3
            producer.send(changes(500, contact=str(p)))
            move_slot(cluster, slot, to)
            sent += 500
        wait_until(lambda: stand_in.counts()["contacts"] == sent, seconds=60, what="all are delivered")


def test_a_slot_left_open_waits_and_is_delivered_after(
    cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient, tmp_path: Path
) -> None:
    producer = fleet.producer()
    with WorkerProcess(fleet.environment(), tmp_path) as worker:
        worker.wait_until_ready()
        slot = key_slot(b"%d" % fleet.partition("1"))
        to = (node_of(cluster, slot) + 1) % 3
        producer.send(changes(500))
        wait_until(lambda: stand_in.counts()["contacts"] == 500, seconds=20, what="the first are delivered")
        source = begin_move(cluster, slot, to)
        move_keys(cluster, slot, source, to, most=1)
        producer.send(changes(500, contact="2"))
        others = sum(fleet.partition(str(i)) != fleet.partition("1") for i in range(500))
        wait_until(lambda: stand_in.counts()["contacts"] >= 500 + others, seconds=30, what="the others are delivered")
        move_keys(cluster, slot, source, to)
        end_move(cluster, slot, to)
        wait_until(lambda: stand_in.counts()["contacts"] == 1_000, seconds=30, what="its own are delivered after")


def test_a_slot_that_each_node_sends_on_to_another_stops_its_own_partition_alone(
    cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient, tmp_path: Path
) -> None:
    """As when its former node gave it away, and its new one was not told before whoever moved it was cut off."""
    producer = fleet.producer()
    partition = fleet.partition("1")
    slot = key_slot(b"%d" % partition)
    to = (node_of(cluster, slot) + 1) % 3
    with WorkerProcess(fleet.environment(), tmp_path) as worker:
        worker.wait_until_ready()
        producer.send(changes(500))
        wait_until(lambda: stand_in.counts()["contacts"] == 500, seconds=20, what="the first are delivered")
        source = begin_move(cluster, slot, to)
        move_keys(cluster, slot, source, to)
        with connected(cluster.addresses[to]) as there, connected(cluster.addresses[source]) as here:
            here.execute_command("CLUSTER", "SETSLOT", slot, "NODE", there.execute_command("CLUSTER", "MYID"))
        with pytest.raises(NotAccepted) as caught:
            producer.send(changes(500, contact="2"))
        assert {partition_of(change.owner, PARTITIONS) for change in caught.value.refused} == {partition}
        assert not caught.value.uncertain
        wait_until(
            lambda: stand_in.counts()["contacts"] == 500 + caught.value.accepted, what="the others are delivered"
        )
        said = told(fleet, "status")
        assert said["away_partitions"] == [partition]
        assert not any(each["away"] for each in said["nodes"])
        assert run(fleet, "health").exit_code == 0
        assert f"wrong  streams      Redis is partly away: no node serves the slots of partitions {partition};" in (
            run(fleet, "check").stdout
        )
        end_move(cluster, slot, to)
        wait_until(lambda: _accepts(producer, caught.value.changes), what="its own are accepted")
        wait_until(lambda: stand_in.counts()["contacts"] == 1_000, what="its own are delivered after")


def _accepts(producer: ContactProducer, changes: Sequence[ContactChange]) -> bool:
    with suppress(NotAccepted):
        producer.send(changes)
        return True
    return False


def test_a_settle_waits_while_its_slot_is_on_its_way(
    cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient
) -> None:
    worker = fleet.worker(linger_seconds=0.0, request_timeout_seconds=5.0, lease_seconds=20.0)
    slot = key_slot(b"%d" % fleet.partition("1"))
    to = (node_of(cluster, slot) + 1) % 3
    fleet.producer().upsert("1", "2")
    stand_in.settings(latency_seconds=1.0)
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(worker.flusher.run, 3.0)
        wait_until(lambda: stand_in.counts()["requests"] == 1, what="the request is out")
        source = begin_move(cluster, slot, to)
        move_keys(cluster, slot, source, to, most=1)
        time.sleep(2.0)  # the answer came a second ago
        assert not ran.done()
        move_keys(cluster, slot, source, to)
        end_move(cluster, slot, to)
        assert ran.result(10)
    assert fleet.totals()["records_confirmed"] == stand_in.counts()["requests"] == 1
    assert not fleet.waits()


def test_a_killed_master_with_a_replica_loses_nothing_that_was_replicated(
    replicated: EmbeddedCluster, namespace: str, stand_in: StandInClient, tmp_path: Path
) -> None:
    with (
        Fleet(replicated.url, namespace, stand_in, **PROCESS, broker_url="memory://") as fleet,
        WorkerProcess(fleet.environment(), tmp_path, THREADS) as worker,
        ContactProducer(settings=fleet.settings()) as producer,
    ):
        worker.wait_until_ready()
        stand_in.settings(latency_seconds=0.2)
        producer.send(changes(2_000))
        time.sleep(1.0)  # the replicas have it
        kill(replicated, node_of(replicated, key_slot(b"0")))
        wait_until(lambda: stand_in.counts()["contacts"] == 2_000, seconds=60, what="all are delivered")
        assert worker.end() == 0
