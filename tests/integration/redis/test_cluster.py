"""A Redis Cluster: producers answer for each change, whichever node is away, hangs, or gives its slots away."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from producers import AsyncContactProducer, ContactProducer, NotAccepted
from producers.contract.change import partition_of
from producers.settings import ProducerSettings
from producers.spool import sender
from tests.support.clusters import (
    away,
    begin_move,
    changes,
    connected,
    end_move,
    entries,
    hung,
    kill,
    move_keys,
    move_slot,
    node_of,
    wait_for_failover,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from producers.nodes.trip import Replicas
    from worker.local.cluster import EmbeddedCluster

pytestmark = pytest.mark.timeout(120)


def slot_of_owner(owner: str) -> int:
    return key_slot(b"%d" % partition_of(owner, 64))


def partitions_of(cluster: EmbeddedCluster, node: int) -> set[int]:
    return {p for p in range(64) if node_of(cluster, key_slot(b"%d" % p)) == node}


def test_a_producer_appends_to_all_nodes(cluster: EmbeddedCluster) -> None:
    with ContactProducer(cluster.url) as producer:
        assert len(producer.send(changes(3_000))) == 3_000
        receipt = producer.upsert("1", "2")
        assert producer.status_of(receipt) == "waiting"
        assert producer.pressure() < 0.5
    assert entries(cluster) == 3_001
    assert len({node_of(cluster, slot_of_owner(str(i))) for i in range(100)}) == 3


def test_an_asynchronous_producer_does_too(cluster: EmbeddedCluster) -> None:
    async def run() -> None:
        async with AsyncContactProducer(cluster.url) as producer:
            await producer.send(changes(3_000))
            receipts = await asyncio.gather(*(producer.upsert(str(i), "2") for i in range(100)))
            assert await producer.status_of(receipts[0]) == "waiting"

    asyncio.run(run())
    assert entries(cluster) == 3_100


@pytest.mark.parametrize("how", ["dead", "hung", "down"])
def test_one_node_away_costs_its_own_changes_alone(cluster: EmbeddedCluster, how: str) -> None:
    """Whichever node it is: that of the configuration, too."""
    with ContactProducer(cluster.url) as producer:
        producer.send(changes(100))
        lost = node_of(cluster, key_slot(b"contact-sync:config"))
        theirs = {str(i) for i in range(1_000) if node_of(cluster, slot_of_owner(str(i))) == lost}
        with away(cluster, lost, how):
            for _ in range(2):
                with pytest.raises(NotAccepted) as caught:
                    producer.send(changes(1_000))
                assert {change.owner for change in caught.value.changes} == theirs
                assert caught.value.accepted == 1_000 - len(theirs)
            assert caught.value.uncertain == ()
            rest = [each for each in changes(1_000) if each["owner"] not in theirs]
            began, sent = time.monotonic(), 0
            while time.monotonic() - began < 6:
                producer.send(rest)
                sent += 1
            assert sent > 20


def test_a_slot_that_moved_is_followed(cluster: EmbeddedCluster) -> None:
    slot = slot_of_owner("1")
    with ContactProducer(cluster.url) as producer:
        producer.upsert("1", "2")
        move_slot(cluster, slot, (node_of(cluster, slot) + 1) % 3)
        producer.upsert("1", "3")
        producer.send(changes(1_000))
    assert entries(cluster) == 1_002


def test_a_slot_on_its_way_takes_changes(cluster: EmbeddedCluster) -> None:
    slot = slot_of_owner("1")
    with ContactProducer(cluster.url) as producer:
        producer.upsert("1", "2")
        to = (node_of(cluster, slot) + 1) % 3
        source = begin_move(cluster, slot, to)
        producer.upsert("1", "3")
        move_keys(cluster, slot, source, to)
        producer.upsert("1", "4")
        producer.send([{"owner": "1", "contact": str(i), "op": "upsert"} for i in range(100)])
        end_move(cluster, slot, to)
        producer.upsert("1", "5")
    assert entries(cluster) == 104


def test_every_master_begins_with_an_epoch_of_its_own(replicated: EmbeddedCluster) -> None:
    """Masters of one epoch settle it later, and who dies meanwhile is never replaced."""
    epochs = []
    for address in replicated.addresses[:3]:
        with connected(address) as client:
            told = bytes(client.execute_command("CLUSTER", "INFO")).decode()
        epochs.append(told.partition("cluster_my_epoch:")[2].split()[0])
    assert epochs == ["1", "2", "3"]


def test_a_killed_master_is_replaced_by_its_replica(replicated: EmbeddedCluster) -> None:
    slot = slot_of_owner("1")
    with ContactProducer(replicated.url) as producer:
        producer.upsert("1", "2")
        lost = node_of(replicated, slot)
        kill(replicated, lost)
        began = time.monotonic()
        while True:
            try:
                producer.upsert("1", "3")
                break
            except NotAccepted:
                assert time.monotonic() - began < 30
                time.sleep(0.05)
        assert wait_for_failover(replicated, slot, lost) >= 3


def test_a_spool_is_not_blocked_by_one_node(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    with ContactProducer(cluster.url, spool=tmp_path / "spool") as producer:
        producer.send(changes(100))
        lost = node_of(cluster, slot_of_owner("1"))
        there = partitions_of(cluster, lost)
        theirs = sum(partition_of(str(i), 64) in there for i in range(1_000))
        with hung(cluster, lost):
            ids = producer.send(changes(1_000))
            assert ids.count("spooled") == theirs
            assert producer.upsert("other", "1")
            forwarded = producer.forward()
            assert forwarded.left <= theirs + 1
        wait_until(lambda: producer.forward().left == 0, seconds=20, what="the spool is empty")
    assert entries(cluster) >= 1_101


def test_with_changes_of_one_node_in_the_spool_others_go_straight(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    with ContactProducer(cluster.url, spool=tmp_path / "spool") as producer:
        producer.send(changes(100))
        lost = node_of(cluster, slot_of_owner("1"))
        there = partitions_of(cluster, lost)
        theirs = {i for i in range(1_000) if partition_of(str(i), 64) in there}
        with hung(cluster, lost):
            producer.send(changes(1_000))
            time.sleep(0.6)  # until the producer tries again what it spooled
            for contact in ("2", "3"):
                ids = producer.send(changes(1_000, contact=contact))
                assert {i for i, entry in enumerate(ids) if entry == "spooled"} == theirs
        wait_until(lambda: producer.forward().left == 0, seconds=20, what="the spool is empty")


def test_what_is_spooled_behind_a_lot_of_one_node_gets_out(
    cluster: EmbeddedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = node_of(cluster, slot_of_owner("1"))
    other = next(str(i) for i in range(99) if node_of(cluster, slot_of_owner(str(i))) != lost)
    with ContactProducer("redis://127.0.0.1:1/0", spool=tmp_path / "spool") as nowhere:
        nowhere.send({"owner": "1", "contact": str(i), "op": "upsert"} for i in range(5_000))
        nowhere.send({"owner": other, "contact": str(i), "op": "upsert"} for i in range(10))
    monkeypatch.setattr(sender, "FORWARD_SECONDS", 0.01)
    with ContactProducer(cluster.url, spool=tmp_path / "spool") as producer:
        producer.pressure()  # the number of partitions is agreed, whichever node dies
        kill(cluster, lost)
        wait_until(lambda: producer.upsert(other, "last") != "spooled", seconds=30, what="the spool is passed through")
        assert producer.forward().left == 5_000


@pytest.mark.parametrize("wait", [1, "all"])
def test_a_change_that_no_replica_has_is_uncertain(replicated: EmbeddedCluster, wait: Replicas) -> None:
    settings = ProducerSettings(redis_url=replicated.url, wait_replicas=wait)
    with ContactProducer(settings=settings) as producer:
        assert len(producer.send(changes(1_000))) == 1_000
        lost = node_of(replicated, slot_of_owner("1"))
        theirs = {str(i) for i in range(1_000) if node_of(replicated, slot_of_owner(str(i))) == lost}
        with hung(replicated, lost + 3), pytest.raises(NotAccepted, match="0 of 1 replicas") as caught:
            producer.send(changes(1_000))
        assert {change.owner for change in caught.value.uncertain} == theirs
        assert caught.value.refused == ()


def test_an_asynchronous_producer_waits_too(replicated: EmbeddedCluster) -> None:
    async def run() -> None:
        settings = ProducerSettings(redis_url=replicated.url, wait_replicas=1)
        async with AsyncContactProducer(settings=settings) as producer:
            await producer.send(changes(1_000))
            with hung(replicated, 3), pytest.raises(NotAccepted, match="0 of 1 replicas"):
                await producer.send(changes(1_000))

    asyncio.run(run())
