"""No request has more words than hosted services take, however much there is to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from producers import ContactProducer
from tests.support.commands import run, told
from tests.support.fleet import Fleet, T
from tests.support.longest_request import LongestRequest
from tests.support.waiting import wait_until
from worker.local.redis import EmbeddedRedis
from worker.store.backlog import BacklogScanner
from worker.store.client import ARGUMENTS_MAX, connect
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(180)

MANY = 6_000
"""Pairs of one owner, which are in one partition: a request of many words names them all."""


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as made, LongestRequest(made) as longest:
        yield made
    assert 0 < longest.words <= ARGUMENTS_MAX, f"{longest.name} with {longest.words:,} words"


@pytest.fixture
def fleet(server: EmbeddedRedis, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    slow = {"request_timeout_seconds": 5.0, "lease_seconds": 20.0}
    with Fleet(server.url, namespace, stand_in, partitions=2, batch_size=10_000, **slow) as made:
        yield made


def close_gate(fleet: Fleet) -> None:
    fleet.first.gate.report(fleet.first.gate.snapshot().generation, "retry", delay_seconds=600, error="HTTP 503")


def many(op: str = "upsert", at: int = T) -> list[tuple[str, str, str, int | None]]:
    return [("1", str(i), op, at) for i in range(MANY)]


def test_a_large_batch_is_confirmed(fleet: Fleet) -> None:
    fleet.append_many(many())
    fleet.deliver()
    fleet.append_many(many("delete", T + 1), lane="bulk")
    fleet.deliver()
    assert fleet.totals()["deletes_confirmed"] == MANY
    assert fleet.stand_in.contacts() == set()


def test_a_large_batch_waits_and_is_tried_again(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 1})
    fleet.append_many(many())
    fleet.flush_once()
    fleet.append_many(many("delete", T + 1))
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()


def test_a_large_batch_without_an_answer_is_marked_late(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "drop_after", "times": 1})
    fleet.append_many(many())
    fleet.flush_once()
    assert len(fleet.marks()) == MANY
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == MANY


def test_much_that_waits_in_an_outage_is_read(fleet: Fleet) -> None:
    close_gate(fleet)
    fleet.append_many(many())
    fleet.append_many(many("delete", T + 1), lane="bulk")
    wait_until(lambda: (fleet.flush(), not fleet.backlog())[1], what="the logs were read")
    assert len(fleet.pending()) == MANY


def test_who_has_much_is_forgotten(fleet: Fleet) -> None:
    fleet.append_many(many())
    for _ in range(MANY):
        fleet.append_raw(fleet.partition("1"), {"owner": "1", "op": "upsert"})
    fleet.deliver()
    assert run(fleet, "dead-letters", "purge", "--reason", "missing_contact", "--yes").exit_code == 0
    fleet.append_many(many("delete", T + 1))
    assert run(fleet, "forget", "1", "--yes", "--also-waiting").exit_code == 0
    assert fleet.remembered() == {}


def test_the_commands_with_very_many_partitions(fleet: Fleet) -> None:
    fleet.append_many(many())
    fleet.deliver()
    assert run(fleet, "pause").exit_code == 0
    assert run(fleet, "repartition", "2100").exit_code == 0
    fleet.change(partitions=2_100, batch_size=500)
    assert run(fleet, "resume").exit_code == 0
    fleet.append_many(many("delete", T + 1))
    assert told(fleet, "status")["waiting_changes"] == MANY
    assert run(fleet, "health").exit_code in {0, 1}
    with connect(fleet.settings().redis_url) as client:
        survey = BacklogScanner(Namespace(client, fleet.keys, 2_100)).scan(1_000)
        assert [(each.partition, each.entries) for each in survey.waiting] == [(fleet.partition("1"), MANY)]
    run_on = fleet.first.flusher.run
    wait_until(lambda: (run_on(1.0), not fleet.stand_in.contacts())[1], seconds=60, what="all was delivered")
    with connect(fleet.settings().redis_url) as client:
        assert BacklogScanner(Namespace(client, fleet.keys, 2_100)).scan(100).waiting == []


def test_producers_and_the_inbox(fleet: Fleet) -> None:
    with ContactProducer(settings=fleet.settings()) as producer:
        producer.send({"owner": "1", "contact": str(i), "op": "upsert"} for i in range(MANY))
    for i in range(1_000):
        fleet.client.xadd(fleet.keys.inbox, {"owner": "1", "contact": str(i), "op": "delete", "at": str(T)})
    fleet.deliver()
