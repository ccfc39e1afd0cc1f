"""Commands wait until replicas have what they wrote, or say that they have not; so does what moves between nodes."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
from redis.crc import key_slot

from producers.contract.change import partition_of
from producers.contract.keys import Keys
from producers.nodes.cluster import ClusterClient
from producers.nodes.trip import NotReplicatedError
from tests.support.clusters import hung, node_of, stopped
from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from worker.local.cluster import EmbeddedCluster
from worker.local.redis import EmbeddedRedis
from worker.store.gate import Gate
from worker.store.inbox import Inbox
from worker.store.suppressions import suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)

PAIRS = {(str(owner), "9") for owner in range(40)}


class Replicated(NamedTuple):
    """A fleet whose Redis has a replica, and how to hang the replica of the node that has a key."""

    fleet: Fleet
    without_replica: Callable[[str], AbstractContextManager[None]]


@contextmanager
def one_server(namespace: str, stand_in: StandInClient) -> Iterator[Replicated]:
    with EmbeddedRedis(tcp=True) as master:
        address = master.url.removeprefix("redis://").partition("/")[0].replace(":", " ")
        with (
            EmbeddedRedis(tcp=True, config={"replicaof": address, "repl-diskless-sync-delay": "0"}) as replica,
            Fleet(master.url, namespace, stand_in, wait_replicas=1) as fleet,
        ):
            wait_until(lambda: fleet.client.execute_command("WAIT", 1, 100) == 1, what="the replica follows")
            yield Replicated(fleet, lambda _: stopped(replica.pid))


@contextmanager
def a_cluster(namespace: str, stand_in: StandInClient) -> Iterator[Replicated]:
    with (
        EmbeddedCluster(3, 1) as cluster,
        Fleet(cluster.url, namespace, stand_in, broker_url="memory://", wait_replicas="all") as fleet,
    ):
        yield Replicated(fleet, lambda key: hung(cluster, node_of(cluster, key_slot(key.encode())) + 3))


@pytest.fixture(params=[one_server, a_cluster])
def replicated(request: pytest.FixtureRequest, namespace: str, stand_in: StandInClient) -> Iterator[Replicated]:
    with request.param(namespace, stand_in) as made:
        for owner, contact in PAIRS:
            made.fleet.append(owner, contact, "upsert", T)
        made.fleet.deliver()
        yield made


@pytest.fixture
def cluster_replicated(namespace: str, stand_in: StandInClient) -> Iterator[Replicated]:
    with a_cluster(namespace, stand_in) as made:
        yield made


def node_slot(partition: int) -> int:
    """Which third of the slots a partition is in: the nodes of the cluster have one each."""
    return key_slot(b"%d" % partition) * 3 // 16_384


def is_refused(fleet: Fleet, *words: str) -> None:
    ran = run(fleet, *words)
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "CONTACT_SYNC_WAIT_REPLICAS: 0 of 1 replicas have it" in ran.stderr


def test_a_pause_counts_when_replicas_have_it(replicated: Replicated) -> None:
    fleet = replicated.fleet
    with replicated.without_replica(fleet.keys.gate):
        is_refused(fleet, "pause")
        is_refused(fleet, "pause")  # also if it is paused here already
        assert told(fleet, "status")["endpoint"]["paused_since"] is not None
    assert run(fleet, "pause").exit_code == 0
    with replicated.without_replica(fleet.keys.gate):
        is_refused(fleet, "resume")
        is_refused(fleet, "resume")  # also if nothing is paused any more
    assert run(fleet, "resume").exit_code == 0


def test_what_too_few_replicas_have_is_repeated_beside_the_configuration(cluster_replicated: Replicated) -> None:
    fleet = cluster_replicated.fleet

    def third(key: str) -> int:
        return key_slot(key.encode()) * 3 // 16_384

    # Who is erased must be on another node than the gate: else it is refused before the gate is told.
    several = (Keys(f"{fleet.keys.namespace}-{n}") for n in itertools.count())
    keys = next(each for each in several if third(each.gate) != third(each.suppressed))
    namespace = fleet.namespace._replace(keys=keys)
    gate = Gate(namespace)

    def repeated() -> tuple[bool, bytes | None]:
        paused, suppression = fleet.client.hmget(keys.config, ["gate_paused", "gate_suppression"])
        return paused not in {None, b"0"}, suppression

    with cluster_replicated.without_replica(keys.gate):
        with pytest.raises(NotReplicatedError):
            gate.pause("all")
        assert repeated() == (True, None)
        with pytest.raises(NotReplicatedError):
            gate.resume("all")
        assert repeated() == (False, None)
        with pytest.raises(NotReplicatedError):
            suppress(namespace, "erased", fleet.now_ms() + 60_000, fleet.now_ms(), "all")
        assert repeated() == (False, gate.snapshot().suppression.encode())


def test_an_upgrade_counts_when_replicas_have_it(replicated: Replicated) -> None:
    fleet = replicated.fleet
    fleet.client.hset(fleet.keys.config, mapping={"format": 1, "least_reader": 1, "least_writer": 1})
    with replicated.without_replica(fleet.keys.config):
        is_refused(fleet, "upgrade")
        is_refused(fleet, "upgrade")  # also if it is raised here already
    assert told(fleet, "upgrade")["raised"] is False


def test_a_letter_of_another_partition_stays_until_replicas_have_its_change(replicated: Replicated) -> None:
    fleet = replicated.fleet
    home = fleet.partition("7")
    elsewhere = next(p for p in range(PARTITIONS) if node_slot(p) != node_slot(home))
    fleet.append_raw(elsewhere, {"owner": "7", "contact": "8", "op": "upsert", "at": str(T)})
    fleet.deliver()
    with replicated.without_replica(fleet.keys.events(home)):
        is_refused(fleet, "dead-letters", "redrive")
        assert len(fleet.dead_letters()) == 1
    assert run(fleet, "dead-letters", "redrive").exit_code == 0
    assert fleet.dead_letters() == []
    fleet.deliver()
    assert set(fleet.remembered()) == PAIRS | {("7", "8")}


def test_letters_are_purged_when_replicas_have_lost_them(replicated: Replicated) -> None:
    fleet = replicated.fleet
    fleet.append_raw(3, {"owner": "7"})
    fleet.deliver()
    with replicated.without_replica(fleet.keys.dead(3)):
        is_refused(fleet, "dead-letters", "purge", "--yes")
    assert fleet.dead_letters() == []


def test_a_message_stays_in_the_inbox_until_replicas_have_its_change(replicated: Replicated) -> None:
    fleet = replicated.fleet
    home = fleet.partition("7")
    inbox = Inbox(fleet.first.namespace, wait=fleet.settings().wait_replicas)
    fleet.client.xadd(fleet.keys.inbox, {"owner": "7", "contact": "8", "op": "upsert"})
    with replicated.without_replica(fleet.keys.events(home)):
        moved = [inbox.move() for _ in range(4)]
        if isinstance(fleet.client, ClusterClient):
            assert moved == [0] * 4
            assert fleet.client.xlen(fleet.keys.inbox) == 1
            assert fleet.backlog() <= 1  # what is refused is not appended again and again
        else:
            assert moved == [1, 0, 0, 0]  # whichever server leads has both writes, or the first one, or none
    assert inbox.move() == 1 - sum(moved)
    fleet.deliver()
    assert set(fleet.remembered()) == PAIRS | {("7", "8")}


def test_an_inbox_that_waits_for_replicas_is_named(cluster_replicated: Replicated, tmp_path: Path) -> None:
    fleet = cluster_replicated.fleet

    def is_named() -> bool:
        return any(each["name"] == "replicas_absent" for each in told(fleet, "status")["obstacles"])

    with WorkerProcess(fleet.environment(), tmp_path) as worker:
        worker.wait_until_ready()
        with cluster_replicated.without_replica(fleet.keys.events(fleet.partition("7"))):
            fleet.client.xadd(fleet.keys.inbox, {"owner": "7", "contact": "8", "op": "upsert"})
            wait_until(is_named, seconds=30, what="it is named")
            health = told(fleet, "health", "--older-than", "0.5")
            assert (health["healthy"], health["outside"], health["reason"]) == (True, True, "replicas_absent")
        wait_until(lambda: not is_named(), seconds=30, what="it is over")
    assert fleet.client.xlen(fleet.keys.inbox) == 0


def test_check_says_how_many_replicas_there_are(replicated: Replicated) -> None:
    fleet = replicated.fleet
    nodes = 3 if isinstance(fleet.client, ClusterClient) else 1

    def replicas() -> list[str]:
        found = json.loads(run(fleet, "check", "--json").stdout)["checks"]
        return [each["severity"] for each in found if each["name"] == "replicas"]

    assert replicas() == ["ok"] * nodes
    fleet.change(wait_replicas=2)
    assert replicas() == ["wrong"] * nodes
    fleet.change(wait_replicas=0)
    assert replicas() == []


def test_who_is_forgotten_is_forgotten_by_replicas(replicated: Replicated) -> None:
    fleet = replicated.fleet
    with replicated.without_replica(fleet.keys.ledger_new(partition_of("7", PARTITIONS))):
        is_refused(fleet, "forget", "7", "--yes")
        is_refused(fleet, "forget", "7", "--yes")  # also if nothing is left here
    assert run(fleet, "forget", "7", "--yes").exit_code == 0
    assert set(fleet.remembered()) == PAIRS - {("7", "9")}


def test_who_is_erased_is_suppressed_on_replicas_first(replicated: Replicated) -> None:
    fleet = replicated.fleet
    for key in (fleet.keys.suppressed, fleet.keys.gate, fleet.keys.events(partition_of("7", PARTITIONS))):
        with replicated.without_replica(key):
            is_refused(fleet, "erase", "7", "--wait", "0")
            if key != fleet.keys.events(partition_of("7", PARTITIONS)):
                is_refused(fleet, "erase", "7", "--wait", "0")  # also if it is suppressed here already
    assert run(fleet, "erase", "7", "--wait", "0").exit_code == 1  # what it says now has to be confirmed
    fleet.deliver()
    assert run(fleet, "erase", "7", "--wait", "0").exit_code == 0
    assert set(fleet.remembered()) == PAIRS - {("7", "9")}


@pytest.mark.parametrize("which", ["config", "partition"])
def test_a_repartition_goes_on_only_when_replicas_have_what_it_did(replicated: Replicated, which: str) -> None:
    fleet = replicated.fleet
    assert run(fleet, "pause").exit_code == 0
    key = {"config": fleet.keys.config, "partition": fleet.keys.events(PARTITIONS - 1)}[which]
    with replicated.without_replica(key):
        is_refused(fleet, "repartition", "3")
        is_refused(fleet, "repartition", "3")
    assert run(fleet, "repartition", "3").exit_code == 0
    fleet.change(partitions=3)
    with replicated.without_replica(fleet.keys.config):
        is_refused(fleet, "repartition", "3")  # what the last run recorded may have been lost, too
    assert "there are already 3 partitions" in run(fleet, "repartition", "3").stderr
    assert set(fleet.remembered()) == PAIRS


def test_without_the_setting_nobody_waits(replicated: Replicated) -> None:
    fleet = replicated.fleet
    fleet.change(wait_replicas=0)
    with replicated.without_replica(fleet.keys.gate):
        assert run(fleet, "pause").exit_code == 0
