"""A Redis that is full to the last byte is drained by workers that find it so, and nobody has to do anything.

What was confirmed is remembered in the same memory, so it takes changes again when enough of that is forgotten.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
import redis

from producers import NotAccepted
from producers.contract.change import partition_of
from tests.support.commands import run, told
from tests.support.fleet import Fleet, T
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, PROCESS, THREADS, WorkerProcess, wait_until_delivered
from worker.local.redis import EmbeddedRedis
from worker.store.ledger_rotation import LedgerRotation
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from pathlib import Path

    from producers import ContactProducer
    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(180)

ROOM_BYTES = 3_000_000
"""What may be used on top of an empty server: some ten thousand changes, more than a batch of each partition."""


def fill(producer: ContactProducer) -> set[tuple[str, str]]:
    """Says changes until not one more is accepted; returns the pairs that were."""
    accepted: set[tuple[str, str]] = set()
    refused = number = 0
    while refused < 20:  # now and then one fits, where Redis has given a little back
        pair = (f"owner{number % 40}", f"{number}-{'c' * 40}")
        number += 1
        try:
            producer.upsert(*pair)
        except NotAccepted:
            refused += 1
        else:
            accepted.add(pair)
            refused = 0
    return accepted


def takes(producer: ContactProducer, pair: tuple[str, str]) -> bool:
    """Whether a change is accepted."""
    try:
        producer.upsert(*pair)
    except NotAccepted:
        return False
    return True


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared broker", "a broker apart"])
def test_workers_that_find_redis_full_drain_it_and_producers_go_on(
    tmp_path: Path, namespace: str, stand_in: StandInClient, options: tuple[str, ...], *, shared: bool
) -> None:
    with ExitStack() as undo:
        server = undo.enter_context(EmbeddedRedis())
        broker = None if shared else undo.enter_context(EmbeddedRedis()).url
        fleet = undo.enter_context(
            Fleet(server.url, namespace, stand_in, **PROCESS, broker_url=broker, ledger_seconds=1)
        )
        producer = fleet.producer()
        fleet.client.config_set("maxmemory", int(fleet.client.info("memory")["used_memory"]) + ROOM_BYTES)
        accepted = fill(producer)
        assert len(accepted) > 5_000
        with pytest.raises(NotAccepted):
            producer.upsert("1", "one more")
        # From here on nobody but the workers does anything.
        worker = undo.enter_context(WorkerProcess(fleet.environment(), tmp_path / "one", options))
        wait_until_delivered(fleet, seconds=90)
        assert stand_in.contacts() == accepted
        wait_until(lambda: takes(producer, ("1", "one more")), seconds=60, what="it takes changes again")
        wait_until(lambda: ("1", "one more") in stand_in.contacts(), seconds=30, what="it is delivered")
        assert worker.end() == 0, worker.said()
        assert fleet.client.info("stats")["evicted_keys"] == 0


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_workers_drain_a_redis_that_an_inbox_filled_before_any_worker_or_producer_was_there(
    tmp_path: Path, namespace: str, stand_in: StandInClient, options: tuple[str, ...]
) -> None:
    with ExitStack() as undo:
        server = undo.enter_context(EmbeddedRedis())
        fleet = undo.enter_context(Fleet(server.url, namespace, stand_in, **PROCESS))
        fleet.client.delete(fleet.keys.config)
        fleet.client.config_set("maxmemory", int(fleet.client.info("memory")["used_memory"]) + ROOM_BYTES)
        accepted = 0
        with suppress(redis.OutOfMemoryError):
            while True:
                fields = {"owner": str(accepted % 40), "contact": f"{accepted}-{'c' * 40}", "op": "upsert"}
                fleet.client.xadd(fleet.keys.inbox, fields)
                accepted += 1
        assert accepted > 5_000
        undo.enter_context(WorkerProcess(fleet.environment(), tmp_path / "one", options))
        wait_until(lambda: len(stand_in.contacts()) == accepted, seconds=90, what="everything is delivered")


def test_workers_that_worked_when_redis_became_full_drain_it(
    tmp_path: Path, namespace: str, stand_in: StandInClient
) -> None:
    """The endpoint is away meanwhile, so that what waits is joined in what room is left."""
    with EmbeddedRedis() as server, Fleet(server.url, namespace, stand_in, **PROCESS) as fleet, ExitStack() as undo:
        workers = [undo.enter_context(WorkerProcess(fleet.environment(), tmp_path / name)) for name in "ab"]
        for worker in workers:
            worker.wait_until_ready()
        stand_in.faults({"kind": "status", "status": 503})
        fleet.client.config_set("maxmemory", int(fleet.client.info("memory")["used_memory"]) + ROOM_BYTES)
        accepted = fill(fleet.producer())
        stand_in.remove_faults()
        wait_until_delivered(fleet, seconds=90)
        assert stand_in.contacts() == accepted
        assert [worker.end() for worker in workers] == [0, 0]


def test_what_an_operator_asks_is_answered_by_a_full_redis(namespace: str, stand_in: StandInClient) -> None:
    with EmbeddedRedis() as server, Fleet(server.url, namespace, stand_in, partitions=8) as fleet:
        fleet.append_many([("1", f"{i}", "upsert", T) for i in range(100)])
        fleet.client.config_set("maxmemory", int(fleet.client.info("memory")["used_memory"]) - 100_000)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fleet.append("1", "2", "upsert", T)
        assert told(fleet, "status")["backlog_events"] == 100
        assert [each["op"] for each in told(fleet, "explain", "1", "2")["waiting"]] == ["upsert"]
        assert told(fleet, "health")["reason"] == "progress"
        assert "100 entries and 0 pairs are waiting" in run(fleet, "drain", "--timeout", "0").stderr


def test_a_log_that_somebody_emptied_is_noticed_on_a_full_redis(namespace: str, stand_in: StandInClient) -> None:
    with EmbeddedRedis() as server, Fleet(server.url, namespace, stand_in, partitions=8) as fleet:
        fleet.append("1", "2", "upsert", T)
        events = fleet.keys.events(partition_of("1", 8))
        fleet.client.xtrim(events, maxlen=0)
        fleet.client.config_set("maxmemory", int(fleet.client.info("memory")["used_memory"]) - 100_000)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fleet.append("1", "2", "upsert", T)
        clock = iter((0.0, 1e6, 1e6))
        LedgerRotation(Namespace(fleet.client, fleet.keys, 8), lambda: next(clock), 60.0).rotate_due()
        assert fleet.client.hget(fleet.keys.partition(partition_of("1", 8)), "trimmed") == b"1"
