"""Requests that act after nobody waits for them any more, and leases that pass from one worker to another."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import T, run_once
from tests.support.waiting import wait_until
from worker.store.scripts import CLAIM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fleet import Fleet
    from worker.process.runtime import Runtime


@contextmanager
def in_flight(fleet: Fleet, worker: Runtime) -> Iterator[Future[int]]:
    """A round of this worker whose request is out and has no answer until the faults are removed."""
    fleet.stand_in.faults({"kind": "hang", "times": 1})
    before = fleet.stand_in.counts()["requests"]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_once, worker.flusher)
        wait_until(lambda: fleet.stand_in.counts()["requests"] > before, what="the request is out")
        try:
            yield run
        finally:
            fleet.stand_in.remove_faults()


def expire(fleet: Fleet, owner: str = "1") -> None:
    """The lease runs out, as if its holder had stood still for that long."""
    assert fleet.client.delete(fleet.keys.lease(fleet.partition(owner)))


# A request without an answer that acts later


@pytest.mark.parametrize(("unanswered", "confirmed"), [("upsert", "delete"), ("delete", "upsert")])
def test_what_an_unanswered_request_does_late_is_repaired(fleet: Fleet, unanswered: str, confirmed: str) -> None:
    fleet.stand_in.faults({"kind": "late", "seconds": 0.5, "times": 1})
    fleet.append("1", "2", unanswered, T)
    fleet.flush_once()
    fleet.append("1", "2", confirmed, T + 1)
    fleet.deliver()
    # An upsert known to be later than the delete goes out after it, so that there is one request more.
    ends = [op for _, _, _, op in fleet.applied()]
    assert ends[-2:] == [unanswered, confirmed]
    assert fleet.stand_in.contacts() == ({("1", "2")} if confirmed == "upsert" else set())
    totals = fleet.totals()
    assert totals["repairs"] == 1
    assert totals["records_confirmed"] == len(fleet.requests()) - 2


def test_a_late_act_of_the_op_that_was_confirmed_needs_no_repair(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "late", "seconds": 0.3, "times": 1})
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert "repairs" not in fleet.totals()
    assert fleet.marks() == {}


def test_a_mark_stays_until_a_request_begun_after_its_time_was_confirmed(fleet: Fleet) -> None:
    fleet.change(late_seconds=60.0)
    fleet.stand_in.faults({"kind": "drop_after", "times": 1})
    fleet.append("1", "2", "upsert", T)
    wait_until(lambda: fleet.flush() >= 0 and fleet.totals().get("records_confirmed"), what="the upsert is confirmed")
    assert fleet.marks()["1", "2"].upsert_until_ms > fleet.now_ms()
    fleet.append("1", "2", "delete", T + 1)
    fleet.flush()
    assert fleet.stand_in.contacts() == set()
    assert set(fleet.marks()) == {("1", "2")}


def test_a_stale_change_of_a_marked_pair_brings_its_repair_no_earlier(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "late", "seconds": 0.6, "times": 1})
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    fleet.append("1", "2", "delete", T + 1)
    wait_until(lambda: fleet.flush() >= 0 and fleet.totals().get("records_confirmed"), what="the delete is confirmed")
    fleet.append("1", "2", "delete", T + 1)
    fleet.flush()
    assert fleet.totals()["stale"] == 1
    fleet.deliver()
    wait_until(lambda: not fleet.stand_in.counts()["late"], what="the first request has acted")
    assert fleet.stand_in.contacts() == set()


def test_a_repair_that_fails_is_tried_again(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "late", "seconds": 0.5, "times": 1})
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    fleet.append("1", "2", "delete", T + 1)
    wait_until(lambda: fleet.flush() >= 0 and fleet.totals().get("records_confirmed"), what="the delete is confirmed")
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 2})
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert fleet.totals()["repairs"] == 1


def test_repairs_of_many_pairs_share_a_request(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "late", "seconds": 0.5, "times": 1})
    fleet.append_many((str(i), "x", "upsert", T) for i in range(50))
    fleet.flush_once()
    fleet.append_many((str(i), "x", "delete", T + 1) for i in range(50))
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert fleet.totals()["repairs"] == 50
    assert fleet.stand_in.counts()["requests"] <= 12


# A lease that passes to another


def test_a_worker_whose_lease_passed_to_another_changes_no_state_and_says_what_it_sent(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    with in_flight(fleet, fleet.first) as run:
        expire(fleet)
        assert run_once(fleet.worker().flusher) == 1  # confirms the same pair
        fleet.append("1", "2", "delete", T + 1)
        before = (fleet.backlog(), fleet.pending(), fleet.remembered(), fleet.totals(), fleet.leases())
        fleet.stand_in.remove_faults()
        run.result()
    assert (fleet.backlog(), fleet.pending(), fleet.remembered(), fleet.totals(), fleet.leases()) == before
    assert fleet.marks()["1", "2"].upsert_until_ms > 0
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert fleet.totals()["records_confirmed"] == 2


def test_what_a_fenced_worker_does_after_the_others_confirmation_is_repaired(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    with in_flight(fleet, fleet.first) as run:
        expire(fleet)
        other = fleet.worker()
        fleet.append("1", "2", "delete", T + 1)
        wait_until(lambda: other.flusher.run(1.0), what="the other worker has the partition")
        assert fleet.applied()[-1][3] == "delete"
        fleet.stand_in.remove_faults()  # only now the first request acts
        run.result()
    assert fleet.stand_in.contacts() == {("1", "2")}
    fleet.deliver(other)
    assert fleet.stand_in.contacts() == set()
    assert fleet.totals()["repairs"] >= 1


def test_what_a_fenced_worker_does_long_after_the_takeover_is_repaired_by_its_own_word(fleet: Fleet) -> None:
    fleet.change(late_seconds=0.0)  # so that the takeover itself expects nothing of the former holder any more
    fleet.append("1", "2", "upsert", T)
    with in_flight(fleet, fleet.first) as run:
        expire(fleet)
        other = fleet.worker()
        fleet.append("1", "2", "delete", T + 1)
        wait_until(lambda: other.flusher.run(1.0), what="the other worker has the partition")
        assert (fleet.applied()[-1][3], fleet.marks()) == ("delete", {})
        fleet.stand_in.remove_faults()
        run.result()
    assert fleet.stand_in.contacts() == {("1", "2")}
    fleet.deliver(other)
    assert fleet.stand_in.contacts() == set()


def test_a_partition_that_is_fenced_does_not_fail_the_others_of_its_request(fleet: Fleet) -> None:
    owners = {fleet.partition(str(i)): str(i) for i in range(100)}
    for owner in owners.values():
        fleet.append(owner, "2", "upsert", T)
    with in_flight(fleet, fleet.first) as run:
        expire(fleet, owners[3])
        fleet.stand_in.remove_faults()
        run.result()
    assert set(fleet.remembered()) == {(owner, "2") for p, owner in owners.items() if p != 3}
    assert fleet.backlog() == 1
    fleet.deliver()
    assert fleet.totals()["records_confirmed"] == len(owners)


def test_taking_over_an_expired_lease_notes_what_its_holder_may_have_sent(fleet: Fleet) -> None:
    p = fleet.partition("1")
    known = int(fleet.append("1", "2", "upsert", T).partition("-")[0])
    keys = [fleet.keys.lease(p), fleet.keys.partition(p), fleet.keys.events(p), fleet.keys.bulk(p)]
    keys += [fleet.keys.late(p), fleet.keys.dead(p), fleet.keys.dead_pairs(p), *fleet.keys.pending_classes(p)]
    keys += [fleet.keys.parked(p), fleet.keys.ledger_new(p), fleet.keys.ledger_old(p), fleet.keys.totals(p)]
    assert fleet.client.eval(CLAIM.text, len(keys), *keys, "60000", "300")
    expire(fleet)
    before_ms = fleet.now_ms()
    fleet.flush_once()
    held = fleet.client.hmget(fleet.keys.partition(p), "late_until", "late_to")
    late_until, late_to = (int(each or 0) for each in held)
    assert late_until >= before_ms + 300
    assert late_to >= known
    # Nobody knows what was sent: what is confirmed counts as marked both ways, and is said once more when it is over.
    mark = fleet.marks()["1", "2"]
    assert (mark.upsert_until_ms, mark.delete_until_ms) == (late_until, late_until)
    fleet.deliver()
    assert [op for _, _, _, op in fleet.applied()] == ["upsert", "upsert"]
    assert fleet.totals()["repairs"] == 1


def test_what_came_after_the_takeover_is_confirmed_once(fleet: Fleet) -> None:
    fleet.change(late_seconds=60.0)
    p = fleet.partition("1")
    fleet.append("1", "2", "upsert", T)
    with in_flight(fleet, fleet.first) as run:
        expire(fleet)
        run_once(fleet.worker().flusher)
        fleet.stand_in.remove_faults()
        run.result()
    known_ms = int(fleet.client.hget(fleet.keys.partition(p), "late_to") or 0)
    wait_until(lambda: fleet.now_ms() > known_ms, what="the clock is past what the dead holder can have known")
    fleet.append("1", "3", "upsert", T)
    fleet.flush()
    assert set(fleet.marks()) == {("1", "2")}


def test_a_lease_that_was_released_leaves_nothing_to_repair(fleet: Fleet) -> None:
    for at in range(3):
        fleet.append("1", "2", "upsert", T + at)
        fleet.deliver(fleet.worker())
    assert [op for _, _, _, op in fleet.applied()] == ["upsert"] * 3
    assert "repairs" not in fleet.totals()


def test_no_request_goes_out_under_a_lease_that_does_not_outlive_its_deadline(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    with in_flight(fleet, fleet.first) as run:
        assert fleet.worker().flusher.run(0.05) == 0  # leased by the first worker: nothing to take
        fleet.stand_in.remove_faults()
        run.result()
    assert fleet.stand_in.counts()["requests"] == 1
