"""What Redis keeps: the ledger and what it forgets, totals that add up, and a Redis that answers badly."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import redis
from structlog.testing import capture_logs

from producers.contract.errors import PartitionsMismatch
from tests.support.fleet import PARTITIONS, T
from tests.support.redis_proxy import RedisProxy
from tests.support.waiting import wait_until
from worker.store.scripts import CLAIM, GATE_REPORT, MARK_LATE, SETTLE

if TYPE_CHECKING:
    from tests.support.fleet import Fleet
    from worker.local.redis import EmbeddedRedis
    from worker.store.scripts import Script


# The ledger


def test_the_ledger_remembers_an_outcome_for_at_least_its_time(fleet: Fleet) -> None:
    fleet.change(ledger_seconds=1.0, batch_size=1)  # a full batch is due at once, whatever its entry's time says
    start = fleet.now_ms()
    fleet.append("1", "2", "delete", T, entry=f"{start}-1")
    fleet.deliver()
    fleet.append("1", "3", "upsert", T, entry=f"{start + 3_000}-1")
    fleet.deliver()
    p = fleet.partition("1")
    assert fleet.client.exists(fleet.keys.ledger_old(p)) == 1  # it has rotated, and still remembers
    fleet.append("1", "2", "upsert", T - 1, entry=f"{start + 3_001}-1")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "3")}
    assert fleet.totals()["stale"] == 1


def test_the_ledger_forgets_after_twice_its_time_so_that_memory_is_bounded(fleet: Fleet) -> None:
    fleet.change(ledger_seconds=1.0, batch_size=1)
    start = fleet.now_ms()
    for i in range(20):
        fleet.append("1", str(i), "upsert", T, entry=f"{start + 700 * i}-1")
        fleet.deliver()
    remembered = set(fleet.remembered())
    assert {("1", "18"), ("1", "19")} <= remembered
    assert len(remembered) <= 4


def test_an_outcome_counts_for_the_ledger_from_its_confirmation_on_and_not_from_its_entry(fleet: Fleet) -> None:
    fleet.change(ledger_seconds=5.0)
    hours_ago = fleet.now_ms() - 7_200_000
    for i in range(4):  # a backlog that has waited for hours, worked off now
        fleet.append("1", str(i), "delete", T, entry=f"{hours_ago + 600_000 * i}-1")
        fleet.deliver()
    assert set(fleet.remembered()) == {("1", str(i)) for i in range(4)}


def test_the_ledger_forgets_nothing_while_anything_older_waits(fleet: Fleet) -> None:
    fleet.change(ledger_seconds=1.0, batch_size=1)
    start = fleet.now_ms()
    fleet.append("1", "confirmed", "delete", T, entry=f"{start}-1")
    fleet.deliver()
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 1})
    fleet.append("1", "waits", "upsert", T, entry=f"{start}-2")
    fleet.flush_once()
    # While the endpoint is away the log is read whole; one request later much of it has been settled.
    for i in range(1, 4):
        fleet.append("1", str(i), "upsert", T, entry=f"{start + 2_500 * i}-1")
    fleet.deliver()
    fleet.append("1", "confirmed", "upsert", T - 1, entry=f"{start + 9_000}-1")
    fleet.deliver()
    assert ("1", "confirmed") not in fleet.stand_in.contacts()


# Totals


def waiting(fleet: Fleet) -> int:
    return sum(state.live for state in fleet.pending().values())


@pytest.mark.parametrize("readd", ["resend", "absorb"])
@pytest.mark.parametrize("seed", range(3))
def test_every_accepted_entry_ends_in_exactly_one_total_or_waits(fleet: Fleet, seed: int, readd: str) -> None:
    chance = random.Random(seed)
    fleet.change(batch_size=chance.choice([2, 5, 100]), readd=readd)
    fleet.stand_in.settings(poisoned=["4"])
    for fault in ("drop_after", "garbage", "reset"):
        fleet.stand_in.faults({"kind": fault, "probability": 0.05, "seed": seed})
    appended = 0
    for _ in range(12):
        for _ in range(chance.randrange(20)):
            at = chance.choice([None, T + chance.randrange(9)])
            op = chance.choice(["upsert", "delete", "upsert", "delete", "nonsense"])
            fleet.append(str(chance.randrange(3)), str(chance.randrange(6)), op, at)
            appended += 1
        fleet.flush(seconds=0.03)
        totals = fleet.totals()
        ended = [totals.get(name, 0) for name in ("coalesced", "superseded", "stale", "records_confirmed")]
        assert totals.get("events", 0) == sum(ended) + totals.get("dead_lettered", 0) + waiting(fleet)
        assert totals.get("events", 0) + fleet.backlog() == appended
    fleet.stand_in.remove_faults()
    fleet.deliver()
    totals = fleet.totals()
    assert totals["events"] == appended
    assert totals["records_confirmed"] == totals["upserts_confirmed"] + totals["deletes_confirmed"]
    assert totals["dead_lettered"] == len(fleet.dead_letters())


def test_inserted_and_deleted_are_what_the_endpoint_said(fleet: Fleet) -> None:
    fleet.append_many((str(i), "x", "upsert", T) for i in range(30))
    fleet.deliver()
    fleet.append_many((str(i), "x", "delete", T + 1) for i in range(0, 40, 2))
    fleet.deliver()
    counts, totals = fleet.stand_in.counts(), fleet.totals()
    assert (totals["inserted"], totals["deleted"]) == (counts["inserted"], counts["deleted"]) == (30, 15)
    assert totals["requests"] == counts["requests"] == 2


# A Redis that answers badly


def test_a_settle_whose_reply_was_lost_is_not_done_twice(redis_server: EmbeddedRedis, fleet: Fleet) -> None:
    with RedisProxy(redis_server.url) as proxy:
        worker = fleet.worker(redis_url=proxy.url)
        fleet.append("1", "1", "upsert", T)
        worker.flusher.run(1.0)  # from here on Redis knows the scripts
        fleet.append("1", "2", "upsert", T)
        proxy.lose_reply_to(SETTLE.sha.encode())
        worker.flusher.run(1.0)
    assert proxy.cuts == 1
    totals = fleet.totals()
    assert (totals["events"], totals["records_confirmed"], totals["requests"]) == (2, 2, 2)
    assert (fleet.waits(), fleet.leases()) == (False, [])


@pytest.mark.parametrize("script", [CLAIM, GATE_REPORT, MARK_LATE], ids=["claim", "gate_report", "mark_late"])
def test_a_connection_that_breaks_at_any_other_step_loses_nothing(
    redis_server: EmbeddedRedis, fleet: Fleet, script: Script
) -> None:
    fleet.stand_in.faults({"kind": "drop_after"})  # until it is removed: each request comes to every step
    with RedisProxy(redis_server.url) as proxy:
        worker = fleet.worker(redis_url=proxy.url)
        fleet.append("1", "1", "upsert", T)
        worker.flusher.run(0.3)
        fleet.append("1", "2", "upsert", T)
        wait_until(lambda: not fleet.first.gate.snapshot().closed, what="a probe may go out")
        proxy.lose_reply_to(script.sha.encode())
        with pytest.raises(redis.RedisError):
            wait_until(lambda: worker.flusher.run(0.3) > 10_000, what="the connection breaks")
        assert proxy.cuts == 1
    fleet.stand_in.remove_faults()
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "1"), ("1", "2")}
    assert fleet.totals()["records_confirmed"] == 2


def test_scripts_that_redis_forgot_are_loaded_again(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    fleet.client.script_flush()
    fleet.append("1", "2", "delete", T + 1)
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()


def test_a_worker_that_is_configured_with_another_number_of_partitions_is_refused_with_both(fleet: Fleet) -> None:
    fleet.worker()
    with pytest.raises(PartitionsMismatch, match=rf"{PARTITIONS}.*16|16.*{PARTITIONS}"):
        fleet.worker(partitions=16)


def test_a_worker_without_a_number_of_partitions_takes_the_recorded_one(fleet: Fleet) -> None:
    fleet.worker()
    assert fleet.worker(partitions=None).namespace.partitions == PARTITIONS


def test_settled_entries_leave_the_log_and_the_position_stays(fleet: Fleet) -> None:
    last = fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    p = fleet.partition("1")
    assert fleet.backlog() == 0
    assert fleet.client.hget(fleet.keys.partition(p), "position") == last.encode()


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, 2**64 - 1])
def test_an_entry_whose_id_somebody_chose_is_settled_once(fleet: Fleet, number: int) -> None:
    """Lua knows no number above 2^53 exactly."""
    ms = fleet.now_ms() - 5_000
    fleet.append("1", "1", "upsert", entry=f"{ms}-{number}")
    fleet.flush(0.5)
    with capture_logs() as logs:
        fleet.append("1", "2", "upsert", entry="*" if number == 2**64 - 1 else f"{ms}-{number + 1}")
        fleet.deliver()
    assert fleet.totals()["requests"] == fleet.totals()["events"] == 2
    assert [each for each in logs if each["log_level"] == "error"] == []
