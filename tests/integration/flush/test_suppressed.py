"""Whoever was erased stays so: through both lanes, the inbox, redrives, requests under way and late ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import T, run_once
from tests.support.waiting import wait_until
from worker.core.codec import Unreadable
from worker.store.dead_letters import DeadLetters, Wanted
from worker.store.inbox import Inbox
from worker.store.suppressions import Suppressions, suppress

if TYPE_CHECKING:
    from producers.contract.change import Lane
    from tests.support.fleet import Fleet

DAY_MS = 86_400_000
ENDS = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered", "forgotten", "suppressed")


def erased(fleet: Fleet, user: str, for_ms: int = DAY_MS) -> bytes:
    now_ms = fleet.now_ms()
    return suppress(fleet.namespace, user, now_ms + for_ms, now_ms)


def nothing_lost(fleet: Fleet) -> bool:
    totals = fleet.totals()
    return totals["events"] == sum(totals.get(name, 0) for name in ENDS)


@pytest.mark.parametrize("lane", ["live", "bulk"])
def test_upserts_are_refused_on_both_sides_and_counted_and_deletes_go_through(fleet: Fleet, lane: Lane) -> None:
    fleet.append("u", "2", "upsert", T)
    fleet.append("3", "4", "upsert", T)
    fleet.deliver()
    erased(fleet, "u")
    fleet.append("u", "2", "delete", T - 1, lane=lane)  # older than what was confirmed: it goes all the same
    fleet.append("u", "5", "upsert", T + 1, lane=lane)
    fleet.append("6", "u", "upsert", T + 1, lane=lane)
    fleet.append("6", "7", "upsert", T + 1, lane=lane)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("3", "4"), ("6", "7")}
    assert fleet.totals()["suppressed"] == 2
    assert set(fleet.remembered()) == {("3", "4"), ("6", "7")}
    assert nothing_lost(fleet)


def test_nothing_goes_out_while_something_else_is_in_the_list_and_one_line_names_it(fleet: Fleet) -> None:
    fleet.client.hset(fleet.keys.suppressed, "something", "else")
    fleet.append("1", "2", "upsert", T)
    with pytest.raises(Unreadable, match=r"^a value in NAMESPACE:suppressed cannot be read: "):
        fleet.flush()
    assert (fleet.requests(), fleet.first.gate.snapshot().in_flight) == ([], 0)
    fleet.client.hdel(fleet.keys.suppressed, "something")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_what_is_confirmed_of_somebody_is_forgotten_by_both_ledgers(fleet: Fleet) -> None:
    p = fleet.partition("u")
    for key in (fleet.keys.ledger_old(p), fleet.keys.ledger_new(p)):
        fleet.client.hset(key, mapping={"u\x1f2": f"u,{T}", "u2\x1f2": f"u,{T}"})
    erased(fleet, "u")
    fleet.append("u", "2", "delete", T + 1)
    fleet.deliver()
    found = [fleet.client.hkeys(key) for key in (fleet.keys.ledger_old(p), fleet.keys.ledger_new(p))]
    assert found == [[b"u2\x1f2"]] * 2


def test_what_waits_of_an_outage_is_refused(fleet: Fleet) -> None:
    fleet.absorb(("u", "2", "upsert", T, "live"), ("3", "u", "upsert", T, "bulk"))
    erased(fleet, "u")
    fleet.deliver()
    assert fleet.requests() == []
    assert (fleet.pending(), fleet.totals()["suppressed"]) == ({}, 2)
    assert nothing_lost(fleet)


def test_the_inbox_and_a_redrive_let_nobody_back(fleet: Fleet) -> None:
    fleet.append_raw((fleet.partition("u") + 1) % 8, {"owner": "u", "contact": "2", "op": "upsert", "at": str(T)})
    fleet.deliver()
    assert [each["reason"] for each in fleet.dead_letters()] == ["wrong_partition"]
    erased(fleet, "u")
    letters = DeadLetters(fleet.namespace)
    assert letters.redrive(list(letters.find(Wanted(owner="u")))) == ["redriven"]
    fleet.client.xadd(fleet.keys.inbox, {"owner": "9", "contact": "u", "op": "upsert"})
    assert Inbox(fleet.first.namespace).move() == 1
    fleet.deliver()
    assert fleet.requests() == []
    assert (fleet.totals()["suppressed"], fleet.dead_letters()) == (2, [])
    assert nothing_lost(fleet)


def test_no_request_goes_out_that_was_made_before_somebody_was_erased(fleet: Fleet) -> None:
    fleet.append("u", "2", "upsert", T)
    gate = fleet.first.gate
    place = gate.ask(10.0)
    erased(fleet, "u")
    assert not gate.enter(place.token, 10.0, place.gate.generation, place.gate.suppression).go
    assert gate.enter(place.token, 10.0, None, gate.snapshot().suppression).go


def test_a_request_under_way_that_acts_late_is_followed_by_a_delete(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "late", "seconds": 0.5, "times": 1})
    fleet.append("u", "2", "upsert", T)
    fleet.flush_once()
    assert set(fleet.marks()) == {("u", "2")}
    erased(fleet, "u")
    fleet.deliver()
    wait_until(lambda: not fleet.stand_in.counts()["late"], what="the first request has acted")
    assert fleet.stand_in.contacts() == set()
    assert [op for _, _, _, op in fleet.applied()] == ["upsert", "delete"]
    assert (fleet.totals()["suppressed"], fleet.totals()["repairs"]) == (1, 1)
    assert (fleet.marks(), fleet.remembered()) == ({}, {})


def test_a_delete_that_follows_a_late_request_is_sent_until_the_endpoint_takes_it(fleet: Fleet) -> None:
    """It may have taken the person before it began to refuse: nothing else tells that the person is still there."""
    p = fleet.partition("u")

    def unanswered_long_ago() -> None:
        fleet.client.hset(fleet.keys.late(p), "u\x1f2", f"{T},0")
        fleet.client.hset(fleet.keys.partition(p), "late_due", T)

    fleet.append("u", "2", "upsert", T)
    fleet.deliver()
    erased(fleet, "u")
    fleet.stand_in.settings(poisoned=[["u", "2"]])
    unanswered_long_ago()
    fleet.flush_once()
    (mark,) = fleet.client.hvals(fleet.keys.late(p))
    assert int(mark.partition(b",")[0]) > fleet.now_ms() + 60_000, "it is not tried again later"
    fleet.stand_in.settings(poisoned=[])
    unanswered_long_ago()
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert fleet.client.hlen(fleet.keys.late(p)) == 0
    assert nothing_lost(fleet)


def test_the_request_of_a_worker_that_was_lost_is_followed_by_a_delete(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "hang", "times": 1})
    fleet.append("u", "2", "upsert", T)
    worker, other = fleet.worker(), fleet.worker()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_once, worker.flusher)
        wait_until(lambda: fleet.stand_in.counts()["requests"], what="the request is out")
        fleet.client.delete(fleet.keys.lease(fleet.partition("u")))  # it stands still for longer than its lease
        erased(fleet, "u")
        other.flusher.run(1.0)
        assert fleet.totals()["suppressed"] == 1
        assert set(fleet.marks()) == {("u", "2")}
        fleet.stand_in.remove_faults()
        run.result()
    fleet.deliver(other)
    assert fleet.stand_in.contacts() == set()
    assert fleet.remembered() == {}


def test_a_worker_reads_the_list_when_it_begins_and_when_the_gate_says_so_and_never_else(fleet: Fleet) -> None:
    known = Suppressions(fleet.namespace)
    assert not known.under("").until_ms
    hashed = erased(fleet, "u")
    assert not known.under("").until_ms
    assert set(known.under(fleet.first.gate.snapshot().suppression).until_ms) == {hashed}
    assert set(Suppressions(fleet.namespace).under("").until_ms) == {hashed}, "also if the gate was lost"
    fleet.client.delete(fleet.keys.gate)
    assert set(known.under("").until_ms) == {hashed}


def test_whoever_is_suppressed_no_longer_leaves_the_list(fleet: Fleet) -> None:
    erased(fleet, "u", for_ms=-1)
    fleet.append("u", "2", "upsert")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("u", "2")}
    hashed = erased(fleet, "v")
    assert set(fleet.client.hkeys(fleet.keys.suppressed)) == {b"key", hashed}


def test_the_longer_of_two_suppressions_counts(fleet: Fleet) -> None:
    hashed = erased(fleet, "u", for_ms=DAY_MS)
    erased(fleet, "u", for_ms=1)
    assert Suppressions(fleet.namespace).under("").until_ms[hashed] > fleet.now_ms() + DAY_MS // 2


def test_what_a_lost_worker_delivered_long_ago_is_followed_by_a_delete(fleet: Fleet) -> None:
    """It was lost before it could settle, and the endpoint was away until that worker's time was over."""
    fleet.absorb(("u", "2", "upsert", T, "live"))
    fleet.deliver()
    p = fleet.partition("u")
    fleet.client.delete(fleet.keys.ledger_new(p))
    fleet.absorb(("u", "2", "upsert", T, "live"))
    fleet.client.hset(fleet.keys.partition(p), mapping={"late_until": T, "late_to": fleet.now_ms()})
    erased(fleet, "u")
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert fleet.client.hlen(fleet.keys.late(p)) == 0


def test_a_delete_that_must_follow_is_not_forgotten_although_another_request_has_no_answer(fleet: Fleet) -> None:
    fleet.absorb(("u", "2", "upsert", T, "live"), ("3", "4", "upsert", T, "live"))
    ends = fleet.now_ms() + 60_000
    fleet.client.hset(fleet.keys.partition(fleet.partition("u")), mapping={"late_until": ends, "late_to": ends})
    fleet.stand_in.faults({"kind": "envelope", "code": "50001", "times": 1}, {"kind": "hang", "times": 1})
    fleet.flush_once()
    erased(fleet, "u")
    fleet.client.hdel(fleet.keys.gate, "not_before")
    fleet.flush_once()
    assert set(fleet.marks()) == {("u", "2"), ("3", "4")}
