"""An endpoint that is away: what waits is bounded by pairs, and one probe at a time goes out, fleet-wide."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import PARTITIONS, T, run_once
from tests.support.waiting import wait_until
from worker.core.backlog import ABSORB_ENTRIES, ABSORB_READ

if TYPE_CHECKING:
    from tests.support.fleet import Fleet
    from worker.core.gate import What


def close_gate(fleet: Fleet, seconds: float = 600.0) -> None:
    """An outage that was noticed before, and whose next probe is far away."""
    fleet.first.gate.report(fleet.first.gate.snapshot().generation, "retry", delay_seconds=seconds, error="HTTP 503")


def open_gate(fleet: Fleet) -> None:
    fleet.client.hdel(fleet.keys.gate, "not_before")


def test_ten_thousand_changes_of_a_hundred_pairs_wait_as_a_hundred_pairs(fleet: Fleet) -> None:
    owners = [str(i) for i in range(100) if fleet.partition(str(i)) == 0][:10]
    close_gate(fleet)
    fleet.append_many((owners[i % 10], str(i // 10 % 10), "upsert", T + i) for i in range(10_000))
    fleet.flush(2.0)
    assert len(fleet.pending()) == 100
    assert fleet.backlog() < ABSORB_ENTRIES  # trimmed: a log that is short is left until it can be sent
    assert fleet.stand_in.counts()["requests"] == 0
    assert not fleet.leases()
    open_gate(fleet)
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == 100
    totals = fleet.totals()
    assert (totals["events"], totals["coalesced"], totals["records_confirmed"]) == (10_000, 9_900, 100)


def test_a_waiting_pair_takes_no_more_than_120_bytes(fleet: Fleet) -> None:
    close_gate(fleet)
    owners = [str(i) for i in range(200_000, 200_400) if fleet.partition(str(i)) == 0]
    fleet.append_many((owners[i % len(owners)], str(100_000 + i), "upsert", T + i) for i in range(5_000))
    fleet.flush(2.0)
    waiting = len(fleet.pending())
    used = fleet.client.memory_usage(fleet.keys.pending(0), samples=0)
    assert waiting >= 4_000
    assert used is not None
    assert used / waiting <= 120


def test_what_was_read_in_an_outage_and_what_came_later_end_as_one_record(fleet: Fleet) -> None:
    close_gate(fleet)
    owner = next(str(i) for i in range(100) if fleet.partition(str(i)) == 3)
    fleet.append_many((owner, "2", "upsert", T + i) for i in range(ABSORB_ENTRIES))
    fleet.flush(0.5)
    assert set(fleet.pending()) == {(owner, "2")}
    fleet.append(owner, "2", "delete", T + ABSORB_ENTRIES)
    open_gate(fleet)
    fleet.deliver()
    assert fleet.requests() == [[(owner, "2", "delete")]]


@pytest.mark.parametrize("between", [40, ABSORB_READ + 40], ids=["beyond a batch", "beyond what is read at once"])
def test_a_delete_far_behind_in_the_log_still_wins_before_a_retry_goes_out(fleet: Fleet, between: int) -> None:
    fleet.change(batch_size=20)
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 1})
    fleet.append("1", "0", "upsert", T)
    fleet.flush_once()
    fleet.append_many(("1", str(1 + i % 40), "upsert", T + i) for i in range(between))
    fleet.append("1", "0", "delete", T + 1)
    fleet.stand_in.clear_history()
    fleet.deliver()
    assert ("1", "0", "upsert") not in [record for records in fleet.requests() for record in records]


def test_an_idle_backlog_in_an_outage_keeps_no_worker_busy(fleet: Fleet) -> None:
    close_gate(fleet)
    fleet.append("1", "2", "upsert", T)
    assert fleet.flush(5.0) == 0


def test_one_probe_at_a_time_goes_out_however_many_workers_there_are(fleet: Fleet) -> None:
    workers = [fleet.worker() for _ in range(4)]
    close_gate(fleet, seconds=0.0)
    fleet.append_many((str(i), "x", "upsert", T) for i in range(64))
    fleet.stand_in.faults({"kind": "hang", "times": 1})
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(worker.flusher.run, 0.3) for worker in workers]
        wait_until(lambda: fleet.stand_in.counts()["requests"] == 1, what="the probe is out")
        wait_until(lambda: sum(run.done() for run in runs) == 3, what="the others have found the gate closed")
        assert fleet.stand_in.counts()["requests"] == 1
        fleet.stand_in.remove_faults()
        assert all(run.result() >= 0 for run in runs)
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == 64


def test_requests_that_fail_at_once_are_one_attempt(fleet: Fleet) -> None:
    fleet.change(request_timeout_seconds=60.0, lease_seconds=70.0, backoff_base_seconds=30.0, backoff_max_seconds=60.0)
    fleet.change(in_flight=PARTITIONS)
    owners = {fleet.partition(str(i)): str(i) for i in range(200)}
    fleet.stand_in.faults({"kind": "hang", "times": PARTITIONS})
    with ThreadPoolExecutor(PARTITIONS) as pool:
        runs = []
        for p in range(PARTITIONS):
            # One change after the other, so that each worker finds one partition that nobody works on.
            fleet.append(owners[p], "x", "upsert", T)
            runs.append(pool.submit(run_once, fleet.worker().flusher))
            wait_until(lambda out=p + 1: fleet.stand_in.counts()["in_flight"] == out, what="one more is out")  # type: ignore[misc] # mypy: default of a lambda
        fleet.stand_in.reset()  # closes every connection without an answer
        assert [run.result() for run in runs] == [1] * PARTITIONS
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.attempts) == ("backing_off", 1)
    assert fleet.totals()["retries"] == PARTITIONS


@pytest.mark.parametrize("what", ["retry", "hold"])
def test_a_request_that_was_sent_before_the_gate_closed_does_not_reopen_it(fleet: Fleet, what: What) -> None:
    fleet.stand_in.faults({"kind": "hang", "times": 1})
    fleet.append("1", "2", "upsert", T)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_once, fleet.first.flusher)
        wait_until(lambda: fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
        fleet.worker().gate.report(0, what, delay_seconds=60, reason="endpoint_refuses", error="HTTP 404")
        fleet.stand_in.remove_faults()
        run.result()
    assert fleet.first.gate.snapshot().closed
    assert fleet.totals()["records_confirmed"] == 1


def test_a_worker_that_dies_with_the_right_to_probe_blocks_the_fleet_for_a_lease_at_most(fleet: Fleet) -> None:
    close_gate(fleet, seconds=0.0)
    assert fleet.first.gate.enter("a worker that dies now", 0.2).probe
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
