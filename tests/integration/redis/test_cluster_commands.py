"""The commands on a Redis Cluster: what they tell with one node away, and what they change across slots."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from producers import ContactProducer
from producers.contract.partitions import agree_partitions
from producers.nodes.trip import NodeAwayError
from tests.support.clusters import away, begin_move, changes, connected, end_move, move_keys, move_slot, node_of
from tests.support.commands import COMMAND, run, running, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.recorded_messages import mapping
from tests.support.serving import metrics, serving
from tests.support.waiting import wait_until
from worker.admin.repartition import repartition
from worker.admin.status import acknowledge, read_status
from worker.core.codec import Unreadable
from worker.core.flow import FlowLimits, Left
from worker.core.gate import SINGLE_REJECTIONS_MAX
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect
from worker.store.gate import Gate
from worker.store.inbox import Inbox
from worker.store.loss_detector import LossDetector
from worker.store.namespace import Namespace
from worker.store.permissions import refused_when_tried
from worker.store.presence import Presence
from worker.store.suppressions import suppress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.local.cluster import EmbeddedCluster
    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(cluster: EmbeddedCluster, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    with Fleet(cluster.url, namespace, stand_in, broker_url="memory://") as made:
        yield made


def deliver(fleet: Fleet, many: int) -> None:
    with ContactProducer(settings=fleet.settings()) as producer:
        producer.send(changes(many))
    fleet.first.flusher.run(20.0)


def test_repartition_moves_what_is_remembered_across_nodes(cluster: EmbeddedCluster, fleet: Fleet) -> None:
    deliver(fleet, 1_000)
    with connect(cluster.url) as client:
        namespace = Namespace(client, fleet.keys, PARTITIONS)
        before = read_status(namespace).totals
        Gate(namespace).pause()
        LossDetector(namespace, itertools.count(step=2).__next__, Said(), lambda: None).check()
        assert any(client.hexists(fleet.keys.partition(p), "fleet_partitions") for p in range(PARTITIONS))
        moved = repartition(client, fleet.keys, 64)
        assert not any(client.hexists(fleet.keys.partition(p), "fleet_partitions") for p in range(64))
        assert (moved.before, moved.after) == (PARTITIONS, 64)
        after = Namespace(client, fleet.keys, 64)
        assert read_status(after).totals == before
        assert sum(client.hlen(fleet.keys.ledger_new(p)) for p in range(64)) == 1_000
        client.hset(fleet.keys.partition(50), "fleet_partitions", 64)
        moved = repartition(client, fleet.keys, 4)
        assert not any(client.hexists(fleet.keys.partition(p), "fleet_partitions") for p in range(64))
        assert agree_partitions(client, fleet.keys, None) == 4
        assert read_status(Namespace(client, fleet.keys, 4)).totals == before
        assert sum(client.hlen(fleet.keys.ledger_new(p)) for p in range(4)) == 1_000


def test_somebody_is_erased_on_every_node(fleet: Fleet) -> None:
    for n in range(200):
        fleet.append(str(n), "somebody", "upsert")
        fleet.append("somebody", str(n), "upsert")
        fleet.append(str(n), "else", "upsert")
    fleet.deliver()
    ran = run(fleet, "erase", "somebody", "--wait", "0", "--json")
    assert (ran.exit_code, "call it again" in ran.stderr) == (1, True)
    fleet.deliver()
    receipt = told(fleet, "erase", "somebody", "--wait", "0")
    assert (receipt["complete"], receipt["as_owner"], receipt["as_contact"]) == (True, 200, 200)
    fleet.append("1", "somebody", "upsert")
    fleet.deliver()
    assert {contact for _, contact in fleet.stand_in.contacts()} == {"else"}
    assert {contact for _, contact in fleet.remembered()} == {"else"}


def test_a_message_that_says_two_changes_waits_for_both_nodes_and_for_no_other(
    cluster: EmbeddedCluster, fleet: Fleet
) -> None:
    def node(owner: str) -> int:
        return node_of(cluster, key_slot(b"%d" % fleet.partition(owner)))

    inbox = Inbox(fleet.first.namespace, mapping("debezium-server"))
    home = node_of(cluster, key_slot(fleet.keys.inbox.encode()))
    gone, *others = sorted({node(str(n)): str(n) for n in range(99)}.items(), key=lambda each: each[0] == home)
    for before, after in (((gone[1], "9"), (others[0][1], "9")), ((others[0][1], "8"), (others[1][1], "8"))):
        rows = [{"user_id": owner, "friend_id": contact} for owner, contact in (before, after)]
        said = {"op": "u", "before": rows[0], "after": rows[1], "source": {"ts_ms": T}}
        fleet.client.xadd(fleet.keys.inbox, {"value": json.dumps(said)})
    with away(cluster, gone[0], "hung"):
        assert inbox.move() == 1
    wait_until(lambda: inbox.move() == 1, what="the node answers again")
    assert sum(len(fleet.client.xrange(fleet.keys.events(p))) for p in range(PARTITIONS)) == 4
    fleet.deliver()
    assert fleet.stand_in.contacts() == {(others[0][1], "9"), (others[1][1], "8")}


WAYS = [f"{how} {which}" for how in ("dead", "hung", "down") for which in ("gate", "log", "config")]


@pytest.mark.parametrize("lost", WAYS)
def test_status_health_and_check_name_the_node_that_is_away(cluster: EmbeddedCluster, fleet: Fleet, lost: str) -> None:
    how, _, which = lost.partition(" ")
    deliver(fleet, 100)
    detector = LossDetector(fleet.namespace, itertools.count(step=2).__next__, Said(), lambda: None)
    for _ in range(2):  # as each worker does; the first check learns where the partitions are
        detector.check()
    key = {"gate": fleet.keys.gate, "log": fleet.keys.events(0), "config": fleet.keys.config}[which]
    node = node_of(cluster, key_slot(key.encode()))
    config = key_slot(fleet.keys.config.encode())
    if which != "config" and node_of(cluster, config) == node:
        move_slot(cluster, config, (node + 1) % 3)
    theirs = [p for p in range(PARTITIONS) if node_of(cluster, key_slot(b"%d" % p)) == node]
    address = str(cluster.addresses[node])
    node_of_gate = node_of(cluster, key_slot(fleet.keys.gate.encode()))
    with away(cluster, node, how):
        said = told(fleet, "status")
        assert said["away_partitions"] == theirs
        assert [each["address"] for each in said["nodes"] if each["away"]] == [address]
        assert sum(each["partitions"] for each in said["nodes"]) == PARTITIONS
        health = run(fleet, "health", "--json")
        assert health.exit_code == 0
        assert json.loads(health.stdout)["reason"] == "redis_partly_away"
        assert address in json.loads(health.stdout)["message"]
        check = run(fleet, "check")
        assert check.exit_code == 1
        assert any(address in line and line.startswith("wrong") for line in check.stdout.splitlines())
        conform = run(fleet, "conform", "--json")
        assert (conform.exit_code, address in conform.stderr, conform.stdout) == (1, True, ""), conform.output
        drain = run(fleet, "drain", "--timeout", "1")
        assert (drain.exit_code, f"Redis is partly away: {address}" in drain.stderr) == (1, True), drain.stderr
        assert ("the endpoint's state is unknown" in drain.stderr) == (node_of_gate == node)


@pytest.mark.parametrize("how", ["dead", "hung"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_health_tells_how_the_others_are_whichever_node_is_away(
    cluster: EmbeddedCluster, fleet: Fleet, how: str, which: int
) -> None:
    """The first by its address, too: a command that any node can answer is asked of another one."""
    fleet.producer().send(changes(100))
    detector = LossDetector(fleet.namespace, itertools.count(step=2).__next__, Said(), lambda: None)
    for _ in range(2):  # as each worker does: it notes the number of partitions beside the configuration
        detector.check()
    node = cluster.addresses.index(sorted(cluster.addresses)[which])
    with away(cluster, node, how):
        health = run(fleet, "health", "--older-than", "0.001", "--json")
        assert (health.exit_code, json.loads(health.stdout)["reason"]) == (1, "no_progress"), health.stdout
        check = run(fleet, "check").stdout
        assert any(str(cluster.addresses[node]) in line and line.startswith("wrong") for line in check.splitlines())


@pytest.mark.parametrize("lost", ["gate", "config", "reconcile_history"])
def test_serve_tells_of_the_others_whichever_node_is_away(cluster: EmbeddedCluster, fleet: Fleet, lost: str) -> None:
    deliver(fleet, 100)
    detector = LossDetector(fleet.namespace, itertools.count(step=2).__next__, Said(), lambda: None)
    for _ in range(2):  # as each worker does
        detector.check()
    node = node_of(cluster, key_slot(str(getattr(fleet.keys, lost)).encode()))
    theirs = [p for p in range(PARTITIONS) if node_of(cluster, key_slot(b"%d" % p)) == node]
    with away(cluster, node, "dead"), serving(fleet) as client:
        said = client.get("/api/status")
        assert (said.status_code, said.json()["status"]["away_partitions"]) == (200, theirs)
        assert "contact_sync_changes_accepted_total" in metrics(client)
        assert client.get("/api/workers-wanted").status_code == 200


def test_a_slot_left_open_is_named_and_is_not_the_workers_fault(cluster: EmbeddedCluster, fleet: Fleet) -> None:
    deliver(fleet, 100)
    slot = key_slot(b"%d" % fleet.partition("1"))
    to = (node_of(cluster, slot) + 1) % 3
    fleet.producer().upsert("1", "2")
    assert json.loads(run(fleet, "health", "--older-than", "0.001", "--json").stdout)["reason"] == "no_progress"
    source = begin_move(cluster, slot, to)
    for moved in (0, 1, 100):
        move_keys(cluster, slot, source, to, most=moved)
        health = json.loads(run(fleet, "health", "--older-than", "0.001", "--json").stdout)
        assert (health["healthy"], health["reason"], health["outside"]) == (True, "slots_open", True)
        assert f"the slots of partitions {fleet.partition('1')} are on their way" in health["message"]
        assert [each["name"] for each in told(fleet, "status")["obstacles"]] == ["slots_open", "no_worker"]
        check = run(fleet, "check").stdout
        assert f"warn   slots        the slots of partitions {fleet.partition('1')} are on their way" in check
    end_move(cluster, slot, to)
    assert "slots_open" not in run(fleet, "status", "--json").stdout


@pytest.mark.parametrize("seen", [True, False])
def test_workers_are_not_said_to_be_asleep_because_the_tickers_node_is_away(
    cluster: EmbeddedCluster,
    fleet: Fleet,
    seen: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    deliver(fleet, 10)
    fleet.producer().send(changes(100))
    node = node_of(cluster, key_slot(fleet.keys.ticker.encode()))
    workers = key_slot(fleet.keys.workers.encode())
    if node_of(cluster, workers) == node:
        move_slot(cluster, workers, (node + 1) % 3)
    if seen:
        Presence(fleet.namespace, "one", 1, "threads", itertools.count().__next__).beat()
    with away(cluster, node, "dead"):
        said = told(fleet, "status")
        assert said["worker_awake"] is seen
        assert ("no_worker" in [each["name"] for each in said["obstacles"]]) is not seen


def test_a_process_keeps_to_the_limits_while_the_gates_node_is_away(cluster: EmbeddedCluster, fleet: Fleet) -> None:
    deliver(fleet, 10)
    now = 1_000.0
    with connect(cluster.url) as client:
        gate = Gate(Namespace(client, fleet.keys, PARTITIONS), FlowLimits.of(16, 3), monotonic=lambda: now)
        gate.leave(0, "unused", Left(gate.ask(1.0).token))
        with away(cluster, node_of(cluster, key_slot(fleet.keys.gate.encode())), "dead"):
            first, *others = [gate.ask(5.0) for _ in range(20)]
            assert (bool(first.token), first.gate.closed) == (True, False)
            assert {(each.token, each.gate.wait_ms) for each in others} == {("", 63)}
            now += 0.0625
            assert gate.ask(5.0).token
            assert gate.enter(first.token, 5.0, first.gate.generation).go
            gate.report(first.gate.generation, "limited", delay_seconds=0.5, left=Left(first.token, wait_ms=1_500))
            now += 0.5
            later = gate.ask(5.0)
            assert (later.token, later.gate.wait_ms) == ("", 1_000)
            assert not gate.enter("whoever", 5.0, first.gate.generation).go
            now += 5.0  # by then the request that is still under way is over
            assert gate.ask(5.0).token
            now += 1.0
            assert not gate.ask(5.0).token  # one at a time, until one succeeds


def test_an_endpoint_that_rejects_every_record_is_held_while_the_gates_node_is_away(
    cluster: EmbeddedCluster, fleet: Fleet
) -> None:
    now = 1_000.0
    with connect(cluster.url) as client:
        gate = Gate(Namespace(client, fleet.keys, PARTITIONS), monotonic=lambda: now)
        for _ in range(5):
            gate.report(0, "single_rejection")
        gate.leave(0, "unused", Left(gate.ask(1.0).token))
        with away(cluster, node_of(cluster, key_slot(fleet.keys.gate.encode())), "dead"):
            wanted = SINGLE_REJECTIONS_MAX - 5
            said = [gate.report(0, "single_rejection", delay_seconds=0.5) for _ in range(wanted)]
            assert said == [*["ok"] * (wanted - 1), "held"]
            permit = gate.enter("whoever", 5.0, 0)
            assert (permit.go, permit.single_rejections) == (False, SINGLE_REJECTIONS_MAX)
            now += 0.5
            assert gate.ask(5.0).gate.doubtful
            gate.leave(0, "confirmed", Left("whoever"))
            assert gate.report(0, "single_rejection") == "ok"


def test_what_the_endpoint_asked_for_while_the_gates_node_was_away_holds_for_the_fleet_once_it_is_back(
    cluster: EmbeddedCluster, fleet: Fleet
) -> None:
    now = 1_000.0
    with connect(cluster.url) as client:
        namespace = Namespace(client, fleet.keys, PARTITIONS)
        gate = Gate(namespace, monotonic=lambda: now)
        gate.leave(0, "unused", Left(gate.ask(1.0).token))
        with away(cluster, node_of(cluster, key_slot(fleet.keys.gate.encode())), "down"):
            token = gate.ask(5.0).token
            gate.report(0, "limited", delay_seconds=600.0, error="HTTP 429", left=Left(token, wait_ms=600_000))
        assert not gate.enter("whoever", 5.0, 0).go
        assert not gate.ask(5.0).token
        found = Gate(namespace).snapshot()
        assert (found.state, found.error, found.wait_ms > 500_000) == ("backing_off", "HTTP 429", True)
        assert not Gate(namespace).ask(5.0).token
        assert not gate.ask(5.0).token
        now += 601.0  # by the process' own clock it is over, and the gate's has the last word
        assert not gate.ask(5.0).token
        with connected(cluster.addresses[node_of(cluster, key_slot(fleet.keys.gate.encode()))]) as node:
            node.hset(fleet.keys.gate, "not_before", 1)
        assert gate.ask(5.0).token


@pytest.mark.parametrize("said", ["nothing", "pause", "resume", "resume unheard", "erase", "garbage"])
def test_an_idle_process_hears_of_a_pause_and_an_erasure_while_the_gates_node_is_away(
    cluster: EmbeddedCluster, fleet: Fleet, said: str
) -> None:
    now = 1_000.0
    node = node_of(cluster, key_slot(fleet.keys.gate.encode()))
    config = key_slot(fleet.keys.config.encode())
    if node_of(cluster, config) == node:
        move_slot(cluster, config, (node + 1) % 3)
    with connect(cluster.url) as client:
        gate = Gate(Namespace(client, fleet.keys, PARTITIONS), monotonic=lambda: now)
        before = gate.ask(1.0)
        gate.leave(0, "unused", Left(before.token))
        if said in {"pause", "resume"}:
            Gate(fleet.namespace).pause()
        if said == "resume":
            Gate(fleet.namespace).resume()
        if said == "resume unheard":  # the configuration's node was away then, and this process has seen the gate since
            fleet.client.hset(fleet.keys.config, "gate_paused", before.gate.now_ms - 60_000)
        if said == "erase":
            suppress(fleet.namespace, "erased", fleet.now_ms() + 60_000, fleet.now_ms())
            erased = Gate(fleet.namespace).snapshot().suppression
        if said == "garbage":
            fleet.client.hset(fleet.keys.config, "gate_paused", "x")
        now += 1_000.0
        with away(cluster, node, "dead"):
            if said == "garbage":
                with pytest.raises(Unreadable, match="the field gate_paused of NAMESPACE:config"):
                    gate.ask(5.0)
                return
            if said == "pause":
                with pytest.raises(NodeAwayError):
                    gate.ask(5.0)
                with pytest.raises(NodeAwayError):
                    gate.enter("whoever", 5.0, 0)
                assert gate.report(0, "retry") == "ok"  # of a request that went out before
                return
            place = gate.ask(5.0)
            assert place.token
            assert place.gate.suppression == (erased if said == "erase" else before.gate.suppression)
            assert gate.enter(place.token, 5.0, 0, place.gate.suppression).go
            assert gate.enter(place.token, 5.0, 0, before.gate.suppression).go == (said != "erase")


def test_what_a_redis_before_7_refuses_is_found_on_the_nodes(cluster: EmbeddedCluster, fleet: Fleet) -> None:
    """Such a Redis cannot be asked, so each command is tried."""
    assert refused_when_tried(fleet.namespace.client, fleet.keys) == []
    for address in cluster.addresses:
        with connected(address) as node:
            node.execute_command("ACL", "SETUSER", "some", "on", ">word", "~*", "+@all", "-hset", "-exec")
    with connect(cluster.url.replace("://", "://some:word@")) as client:
        assert refused_when_tried(client, fleet.keys) == ["HSET", "EXEC"]
    assert not [key for address in cluster.addresses for key in connected(address).scan_iter("*:permissions")]


def test_check_says_which_slots_to_move(cluster: EmbeddedCluster, fleet: Fleet) -> None:
    deliver(fleet, 100)
    for p in range(PARTITIONS):
        slot = key_slot(b"%d" % p)
        if node_of(cluster, slot) != 0:
            move_slot(cluster, slot, 0)
    [line] = [each for each in run(fleet, "check").stdout.splitlines() if " balance " in each]
    assert line.startswith("warn")
    assert line.count("slot ") == PARTITIONS * 2 // 3
    for move in line.partition(": move ")[2].split("; "):
        _, number, _, _, _, target = move.split()
        move_slot(cluster, int(number), [str(each) for each in cluster.addresses].index(target))
    [line] = [each for each in run(fleet, "check").stdout.splitlines() if " balance " in each]
    assert line.startswith("ok")


def test_a_worker_needs_a_broker(fleet: Fleet) -> None:
    environment = {name: value for name, value in fleet.environment().items() if "BROKER" not in name}
    refused = subprocess.run(
        [COMMAND, "worker"], env=environment | {"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "CONTACT_SYNC_BROKER_URL is required" in refused.stderr


@pytest.mark.parametrize("command", ["status", "check", "worker"])
def test_a_url_of_the_other_kind_is_said_in_one_line(fleet: Fleet, command: str) -> None:
    with EmbeddedRedis(tcp=True) as server:
        url = server.url.replace("redis://", "redis+cluster://").removesuffix("/0")
        environment = fleet.environment() | {"CONTACT_SYNC_REDIS_URL": url, "PATH": os.environ["PATH"]}
        refused = subprocess.run([COMMAND, command], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == (2 if command == "worker" else 1)
    assert "it is a single server, and the URL is that of a cluster" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_node_that_comes_back_empty_is_noticed_whichever_it_is(cluster: EmbeddedCluster, fleet: Fleet) -> None:
    deliver(fleet, 100)
    clock, log = itertools.count(step=2.0), Said()
    with connect(cluster.url) as client:
        namespace = Namespace(client, fleet.keys, PARTITIONS)
        detector = LossDetector(namespace, lambda: float(next(clock)), log, lambda: None)
        detector.check()
        detector.check()
        assert log.errors == []
        lost = next(i for i in range(3) if i != node_of(cluster, key_slot(fleet.keys.config.encode())))
        with connected(cluster.addresses[lost]) as node:
            node.flushall()
        detector.check()
        assert [name for name, _ in log.errors] == ["redis_lost_changes"]
        said = read_status(namespace).lost
        assert said is not None
        assert said.came_back
        acknowledge(namespace)
        assert read_status(namespace).lost is None
        detector.check()
        assert len(log.errors) == 1


def test_what_a_node_lost_is_noticed_although_its_slot_has_moved_since(cluster: EmbeddedCluster, fleet: Fleet) -> None:
    deliver(fleet, 100)
    clock, log = itertools.count(step=2.0), Said()
    slots = [key_slot(fleet.keys.partition(p).encode()) for p in range(PARTITIONS)]
    nodes = [node_of(cluster, slot) for slot in slots]
    with connect(cluster.url) as client:
        detector = LossDetector(
            Namespace(client, fleet.keys, PARTITIONS), lambda: float(next(clock)), log, lambda: None
        )
        for _ in range(3):  # the first learns which node has what
            detector.check()
        counted = max(map(nodes.index, set(nodes)))  # of the node whose first partition comes last
        with connected(cluster.addresses[nodes[counted]]) as node:
            node.hset(fleet.keys.partition(counted), "beat", 1)
        move_slot(cluster, slots[counted], nodes[0])
        client.hget(fleet.keys.partition(counted), "beat")  # so the client knows that it has moved
        detector.check()
        assert [name for name, _ in log.errors] == ["redis_lost_changes"]


class Said:
    """A log that remembers its errors."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, dict[str, object]]] = []

    def error(self, event: str, **fields: object) -> None:
        self.errors.append((event, fields))

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...


def test_up_starts_a_cluster(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with running(environment, "up", "--cluster", "--stand-in", cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("Redis     redis+cluster://127.0.0.1:")
        with ContactProducer(first.split()[1]) as producer:
            receipt = producer.upsert("1", "2")
            assert producer.wait(receipt, 30) == "confirmed"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
