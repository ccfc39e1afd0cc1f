"""examples/change-data-capture/bridge.py, run as it stands against the broker that its Kafka client brings."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support.fleet import Fleet
from tests.support.recorded_messages import ENDS, MAPS, mapping, recorded
from worker.local.redis import EmbeddedRedis
from worker.store.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.waiting import WaitUntil
    from worker.standin.client import StandInClient

TOPIC = "crm.public.friendships"


class Kafka:
    """A broker in this process; all messages are in one partition of its topic."""

    def __init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
        brokers = self._producer.list_topics(timeout=20).brokers.values()
        self.address = ",".join(f"{each.host}:{each.port}" for each in brokers)

    def write(self, messages: list[bytes | None]) -> None:
        for each in messages:
            self._producer.produce(TOPIC, value=each, partition=0)
        assert self._producer.flush(20) == 0

    def committed(self) -> int:
        """The offset that the bridge's group goes on with; less than 0 if it committed none."""
        asking = Consumer({"bootstrap.servers": self.address, "group.id": "contact-sync"})
        try:
            (found,) = asking.committed([TopicPartition(TOPIC, 0)], timeout=20)
        finally:
            asking.close()
        return int(found.offset)


@contextmanager
def bridge(kafka: Kafka, redis_url: str) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "KAFKA": kafka.address, "TOPIC": TOPIC, "CONTACT_SYNC_REDIS_URL": redis_url}
    process = subprocess.Popen([sys.executable, MAPS / "bridge.py"], env=environ, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


def test_offsets_are_committed_after_redis_accepted_and_a_crash_loses_nothing(
    kafka: Kafka, stand_in: StandInClient, wait_until: WaitUntil
) -> None:
    values: list[Any] = [flat[1] for flat in recorded("kafka")]
    assert values[-1] == b"null"
    kafka.write([None if each == b"null" else each for each in values])
    with EmbeddedRedis() as server, Fleet(server.url, "contact-sync", stand_in) as fleet:
        fleet.client.set(fleet.keys.inbox, "not ours")  # so that Redis refuses
        with bridge(kafka, server.url) as refused:
            _, said = refused.communicate(timeout=60)
        assert "WRONGTYPE" in said
        assert kafka.committed() < 0
        fleet.client.delete(fleet.keys.inbox)
        with bridge(kafka, server.url):
            wait_until(lambda: fleet.client.xlen(fleet.keys.inbox) == len(values), seconds=60, what="all came")
            wait_until(lambda: kafka.committed() == len(values), seconds=60, what="the offset is committed")
        by = mapping("kafka")
        assert Inbox(fleet.first.namespace, by).move() == len(values)
        fleet.deliver()
        assert fleet.stand_in.contacts() == ENDS["kafka"]
        assert fleet.dead_letters() == []
