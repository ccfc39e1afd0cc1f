"""What waits by the thousand, or waits behind what cannot be delivered, is found and delivered all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.fleet import Fleet, T
from tests.support.tickers import NoBroker, ticker_of
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect

if TYPE_CHECKING:
    from pathlib import Path

    from worker.standin.client import StandInClient


def test_an_outage_of_thousands_of_pairs_in_one_partition_drains(fleet: Fleet) -> None:
    fleet.change(partitions=1)
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 1})
    fleet.append_many([(f"o{i}", "c", "upsert", T) for i in range(12_000)])
    fleet.deliver(seconds=60)
    assert len(fleet.stand_in.contacts()) == 12_000
    assert fleet.totals()["records_confirmed"] == 12_000


def test_thousands_of_late_marks_in_one_partition_are_judged(fleet: Fleet) -> None:
    fleet.change(partitions=1)
    fleet.append_many([(f"o{i}", "c", "upsert", T) for i in range(8_000)])
    fleet.deliver(seconds=60)
    now_ms = fleet.now_ms()
    for i in range(8_000):
        fleet.mark_late(0, f"o{i}\x1fc".encode(), 0, now_ms)
    fleet.deliver(seconds=60)
    assert fleet.marks() == {}
    assert fleet.totals()["repairs"] == 8_000


def test_the_poison_of_one_owner_does_not_hold_up_the_others(fleet: Fleet) -> None:
    fleet.change(partitions=8)
    fleet.stand_in.settings(poisoned=["bad"])
    poison = [("bad", f"c{i}", "upsert", T) for i in range(25)]
    fleet.append_many([*poison, *((f"o{i}", "c", "upsert", T) for i in range(1000))])
    fleet.flush(20.0)
    assert len(fleet.stand_in.contacts()) == 1000
    assert len(fleet.dead_letters()) == 25
    assert fleet.first.gate.snapshot().state == "ok"


def test_every_worker_follows_a_key_that_was_replaced_once_a_probe_has_passed(fleet: Fleet, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("stand-in")
    fleet.change(server_key_secret=None, server_key_secret_file=secret)
    workers = [fleet.worker() for _ in range(3)]
    for number, worker in enumerate(workers):
        fleet.append(f"before{number}", "c", "upsert", T)
        fleet.deliver(worker)
    fleet.stand_in.settings(key_secret="new")
    secret.write_text("new")
    fleet.append("held", "c", "upsert", T)
    fleet.deliver(workers[0])
    generation = fleet.first.gate.snapshot().generation
    for number, worker in enumerate(workers):
        fleet.append(f"after{number}", "c", "upsert", T)
        fleet.deliver(worker)
    assert fleet.first.gate.snapshot().generation == generation  # nobody closed it again with the old key


def test_a_full_redis_has_a_ticker_and_drains(stand_in: StandInClient) -> None:
    with EmbeddedRedis() as server, Fleet(server.url, "full", stand_in, partitions=8) as fleet:
        assert fleet.first.namespace.partitions == 8
        fleet.append_many([(f"o{i}", "c" * 200, "upsert", T) for i in range(5_000)])
        used = int(fleet.client.info("memory")["used_memory"])
        fleet.client.config_set("maxmemory", used - 100_000)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fleet.append("one", "more", "upsert", T)
        client = connect(server.url, timeout_seconds=3.0)
        ticker = ticker_of(fleet.settings(), client, 8, broker=NoBroker(), flush=lambda _: 0, token="t")
        assert ticker.take_lead()
        fleet.deliver()
        assert len(stand_in.contacts()) == 5_000
        client.close()


@pytest.mark.parametrize("kind", ["pending", "late", "dead", "dead_pairs", "ledger_new", "ledger_old", "totals"])
def test_a_hash_of_the_wrong_type_stops_its_own_partition_alone(fleet: Fleet, kind: str) -> None:
    fleet.change(partitions=4)
    wrong_type = fleet.first.namespace.partitions - 1
    fleet.client.set(getattr(fleet.keys, kind)(wrong_type), "no hash")
    owners = [f"o{i}" for i in range(40)]
    fleet.append_many([(owner, "c", "upsert", T) for owner in owners])
    fleet.flush(2.0)
    assert {owner for owner, _ in fleet.stand_in.contacts()} == {o for o in owners if fleet.partition(o) != wrong_type}
    assert fleet.leases() == []


def test_a_quiet_partition_is_served_while_others_are_full_all_the_time(fleet: Fleet) -> None:
    """Each of the others holds more than a batch, has the oldest change, and never ends."""
    fleet.change(batch_size=20)
    quiet = fleet.partition("quiet")
    loud = {fleet.partition(f"o{i}"): f"o{i}" for i in range(100) if fleet.partition(f"o{i}") != quiet}
    fleet.append_many((owner, str(i), "upsert", T) for owner in loud.values() for i in range(500))
    fleet.append("quiet", "1", "upsert", T)
    served = 0
    while ("quiet", "1") not in fleet.stand_in.contacts():
        fleet.flush_once()
        served += 1
        assert served < 100, "one of eight by lot: 99 times another is less likely than one in half a million"
    assert fleet.backlog() > 0


def test_one_scan_serves_many_batches(fleet: Fleet) -> None:
    fleet.change(partitions=256, batch_size=10)
    fleet.append_many([(f"o{i}", "c", "upsert", T) for i in range(2_000)])
    fleet.client.config_resetstat()
    fleet.deliver(seconds=60)
    batches, stats = fleet.totals()["requests"], fleet.client.info("commandstats")
    assert len(fleet.stand_in.contacts()) == 2_000
    assert batches >= 200
    assert stats["cmdstat_xread"]["calls"] < batches / 2  # a scan is one XREAD of all logs
