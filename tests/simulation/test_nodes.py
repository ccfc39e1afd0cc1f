"""The clocks of a cluster's nodes differ: what is due in a partition is told by the clock of the node that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from producers.nodes.exchange import Answer
from producers.nodes.trip import NodeAwayError
from tests.simulation.chance import Chance
from tests.simulation.chronicle import Broken
from tests.simulation.client import ModelCluster
from tests.simulation.fleet import KEYS, PARTITIONS, Watch
from tests.simulation.losses import Noticed
from tests.simulation.nodes_model import ClusterModel
from tests.simulation.redis_model import RedisModel
from tests.simulation.world import START_US, World
from worker.core.lane import CLASSES
from worker.core.read import ReadRequest
from worker.store import scripts
from worker.store.namespace import Namespace
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producers.nodes.url import Address
    from tests.simulation.client import Line

AHEAD_US = 1_500_000
PAIR = b"4\x1f7"


class Wire:
    """Nodes that always answer at once: gate and configuration on one, the partitions on one whose clock is behind."""

    def __init__(self) -> None:
        self.model = RedisModel(lambda: START_US)
        self.cluster = ClusterModel(self.model, KEYS, [0, 0, 0, 0, *[1] * PARTITIONS], [AHEAD_US, 0])
        self.hangs: Address | None = None
        for node in self.cluster.nodes:
            node.known_scripts = {each.sha for each in vars(scripts).values() if isinstance(each, scripts.Script)}

    def write(self, parcels: Mapping[Address, Sequence[Line]]) -> dict[Address, Answer]:
        return {
            at: Answer([], redis.TimeoutError("hung"))
            if at == self.hangs
            else Answer([self.cluster.apply(self.cluster.at(at), op, asking=asking) for op, asking in lines])
            for at, lines in parcels.items()
        }

    def slots_told_by(self, node: Address) -> Any:
        _ = node
        return self.cluster.slots()

    def answers(self, node: Address) -> bool:
        return bool(node)

    def wait(self, seconds: float) -> None:
        """Nobody waits here."""

    def monotonic(self) -> float:
        return 1.0


def partitions_of(wire: Wire) -> Partitions:
    client = ModelCluster([each.address for each in wire.cluster.nodes], wire)
    namespace = Namespace(client.as_redis, KEYS, PARTITIONS)
    return Partitions(namespace, wire.monotonic, lease_seconds=2.5, late_seconds=2.0, ledger_seconds=3600.0)


def test_a_late_mark_is_due_by_the_clock_of_the_node_that_has_it() -> None:
    wire = Wire()
    partitions = partitions_of(wire)
    now_ms = START_US // 1000
    for until_ms, due in ((now_ms, True), (now_ms + AHEAD_US // 1000, False)):
        wire.model.data.clear()
        wire.model.hset(KEYS.late(0), PAIR, b"%d,0" % until_ms)
        wire.model.hset(KEYS.partition(0), "late_due", until_ms)
        [lease] = partitions.claim([0])
        [read] = partitions.read([lease], [ReadRequest(10, 10, [10] * CLASSES, marks=10)])
        assert (read.now_ms, PAIR in read.marks) == (now_ms, due)


def test_the_clock_of_a_partition_is_that_of_its_node() -> None:
    partitions = partitions_of(Wire())
    assert [partitions.clock_of(p) for p in range(PARTITIONS)] == [START_US // 1000] * PARTITIONS


def test_a_lease_that_is_lost_is_told_of_whatever_clock_was_asked_last() -> None:
    world = World(Chance(1), told=True)
    world.cluster = ClusterModel(world.model, KEYS, [0, 0, 0, 0, *[1] * PARTITIONS], [2 * AHEAD_US, 0])
    world.go_by(KEYS.lease(0))
    world.model.set(KEYS.lease(0), b"1", expires_in_ms=2_500)
    world.go_by(KEYS.gate)
    world.lose_lease(0, KEYS.lease(0))
    assert [line for line in world.story or [] if "is lost" in line]


def test_a_check_that_reaches_no_node_need_not_notice_a_loss() -> None:
    world = World(Chance(1))
    world.cluster = ClusterModel(world.model, KEYS, [0, 0, 0, 0, *[1] * PARTITIONS], [0, 0])
    wire = Wire()
    client = ModelCluster([each.address for each in wire.cluster.nodes], wire)
    watch = Watch(world, Namespace(client.as_redis, KEYS, PARTITIONS), "w1")
    watch.check()
    world.mono_us += 2_000_000
    watch.check()
    world.losses_noticed.lose(1_000_000, ["w1"], certain=True)
    world.mono_us += 2_000_000
    wire.hangs = wire.cluster.nodes[1].address
    with pytest.raises(NodeAwayError):
        client.execute_command("HLEN", KEYS.late(0))  # from now on it is left alone, and nothing is written to it
    watch.check()


def test_a_check_that_began_before_the_tail_is_not_lost_with_it() -> None:
    now_us = 0
    noticed = Noticed(lambda: now_us)
    noticed.begin("w1")
    now_us = 2_000_000
    noticed.checked("w1")
    noticed.lose(1_000_000, ["w1"], certain=True)
    noticed.begin("w1")
    noticed.checked("w1")
    noticed.lose(1_000_000, ["w1"], certain=True)
    with pytest.raises(Broken, match="w1 does not notice"):
        noticed.checked("w1")
