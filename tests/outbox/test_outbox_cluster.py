"""The relay with a cluster: one node that is away holds up its own changes, however many, and those of no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot
from sqlalchemy.orm import Session

from producers import ContactProducer
from producers.contract.change import partition_of
from producers.outbox import Outbox, Relay
from producers.relay.forward import BATCH
from producers.relay.lane import lane_of
from tests.support.clusters import connected, hung, node_of
from tests.support.waiting import wait_until
from worker.local.cluster import EmbeddedCluster

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

pytestmark = pytest.mark.timeout(120)

T = 1_795_460_847_757
MANY = 3 * BATCH
"""Changes of the node that is away, before all others of their lane."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[EmbeddedCluster]:
    """Three nodes, without replicas. Tests leave them awake."""
    with EmbeddedCluster(3) as made:
        yield made


def owners_of_a_lane(cluster: EmbeddedCluster) -> tuple[int, str, list[str]]:
    """A node, an owner on it, and owners of the same lane on other nodes."""
    served = [node_of(cluster, key_slot(b"%d" % partition)) for partition in range(64)]
    away = served[partition_of("1", 64)]
    lane = [str(i) for i in range(2, 2_000) if lane_of(str(i)) == lane_of("1")]
    others = [owner for owner in lane if served[partition_of(owner, 64)] != away][:5]
    assert len(others) == 5
    return away, "1", others


def record(engine: Engine, said: Iterable[tuple[str, str, int]]) -> None:
    with Session(engine) as session, session.begin():
        rows = [{"op": "upsert", "owner": owner, "contact": contact, "at": at} for owner, contact, at in said]
        Outbox().record(session, rows)


def times(cluster: EmbeddedCluster) -> dict[str, list[int]]:
    """The times of each owner's entries, in the log's order."""
    found: dict[str, list[int]] = {}
    for address in cluster.addresses:
        with connected(address) as client:
            for key in client.scan_iter("*:events"):
                entries: Any = client.xrange(key)
                for _, fields in entries:
                    found.setdefault(fields[b"owner"].decode(), []).append(int(fields[b"at"]))
    return found


@pytest.fixture
def relay(nodes: EmbeddedCluster, engine: Engine) -> Iterator[Relay]:
    for address in nodes.addresses:
        with connected(address) as client:
            client.flushall()
    with ContactProducer(nodes.url) as producer:
        producer.pressure()  # the number of partitions is agreed, whichever node is away then
        yield Relay(engine, producer)


def test_more_than_a_batch_of_one_node_holds_up_no_other(nodes: EmbeddedCluster, engine: Engine, relay: Relay) -> None:
    away, blocked, others = owners_of_a_lane(nodes)
    record(engine, ((blocked, str(n), T + n) for n in range(MANY)))
    record(engine, ((owner, str(n), T + n) for n in range(2 * BATCH) for owner in others))
    record(engine, [(blocked, "last", T + MANY)])
    with hung(nodes, away):
        forwarded = 0

        def all_of_the_others() -> bool:
            nonlocal forwarded
            done = relay.run_once()
            forwarded += done.forwarded
            return done.partly and forwarded == 2 * BATCH * len(others)

        wait_until(all_of_the_others, seconds=20, what="the others' are forwarded")
        assert relay.waiting().changes == MANY + 1
    wait_until(lambda: (relay.run_once(), relay.waiting().changes)[1] == 0, seconds=20, what="the rest is forwarded")
    said = times(nodes)
    assert {owner: len(set(each)) for owner, each in said.items()} == {
        blocked: MANY + 1,
        **dict.fromkeys(others, 2 * BATCH),
    }
    for each in said.values():
        first_seen = list(dict.fromkeys(each))
        assert first_seen == sorted(first_seen)


def test_a_change_that_is_committed_late_is_not_overtaken(nodes: EmbeddedCluster, engine: Engine, relay: Relay) -> None:
    """Its row has an older number than what is being forwarded; the owner's next change has a newer one."""
    if engine.dialect.name == "sqlite":
        pytest.skip("nobody else writes while a transaction is open")
    away, blocked, (late, busy, *_) = owners_of_a_lane(nodes)
    record(engine, ((blocked, str(n), T + n) for n in range(MANY)))
    with Session(engine) as session, ContactProducer(nodes.url) as producer:
        Outbox().upsert(session, late, "1", at=T)
        session.flush()
        record(engine, ((busy, str(n), T + n) for n in range(2 * BATCH)))
        producer.pressure()
        forwards = producer.send

        def send(changes: Any, **options: Any) -> list[str]:
            sent = forwards(changes, **options)  # raises for what is of the node that is away
            if session.in_transaction():
                session.commit()
                record(engine, [(late, "1", T + 1)])
            return sent

        producer.send = send  # type: ignore[method-assign] # something happens at this very moment
        with hung(nodes, away):
            relay = Relay(engine, producer)
            wait_until(lambda: relay.run_once().partly, seconds=20, what="the others' are forwarded")
    assert times(nodes)[late] == [T, T + 1]
    assert len(times(nodes)[busy]) == 2 * BATCH
