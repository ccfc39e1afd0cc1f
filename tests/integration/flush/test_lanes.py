"""Two lanes: bulk says when a change goes, never how its pair ends."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fleet import PARTITIONS, T
from tests.support.tickers import NoBroker, ticker_of
from tests.support.waiting import wait_until
from worker.admin.status import read_status
from worker.store.backlog import BacklogScanner
from worker.store.client import connect
from worker.store.dead_letters import DeadLetters, Wanted
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from producers.contract.change import Lane, Op
    from tests.support.fleet import Fleet
    from worker.core.dead_letter import DeadLetter


def namespace_of(fleet: Fleet) -> Namespace:
    return Namespace(fleet.client, fleet.keys, fleet.settings().partitions or 0)


@pytest.mark.parametrize("lanes", [("bulk", "bulk"), ("live", "bulk"), ("bulk", "live"), ("live", "live")])
@pytest.mark.parametrize("ops", [("upsert", "delete"), ("delete", "upsert")])
def test_the_newest_change_wins_through_whichever_lane_it_came(
    fleet: Fleet, lanes: tuple[Lane, Lane], ops: tuple[str, str]
) -> None:
    fleet.append("1", "2", ops[0], T, lane=lanes[0])
    fleet.append("1", "2", ops[1], T + 5, lane=lanes[1])
    fleet.deliver()
    assert [op for *_, op in fleet.applied()][-1] == ops[1]
    totals = fleet.totals()
    assert totals["events"] == 2
    assert sum(totals.get(name, 0) for name in ("records_confirmed", "superseded", "coalesced", "stale")) == 2


def test_a_bulk_entry_without_at_is_a_dead_letter_and_goes_nowhere(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", lane="bulk")
    fleet.append("1", "3", "upsert", T, lane="bulk")
    fleet.deliver()
    (letter,) = fleet.dead_letters()
    assert (letter["reason"], letter["lane"]) == ("missing_at", "bulk")
    assert len(fleet.stand_in.contacts()) == 1


def test_a_refused_bulk_change_goes_back_to_its_lane(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["1"])
    fleet.append("1", "2", "upsert", T, lane="bulk")
    fleet.deliver()
    letters = DeadLetters(namespace_of(fleet))
    found: list[DeadLetter] = list(letters.find(Wanted(owner="1")))
    assert [each.lane for each in found] == ["bulk"]
    assert letters.redrive(found) == ["redriven"]
    assert fleet.client.xlen(fleet.keys.bulk(fleet.partition("1"))) == 1


def test_what_waits_stands_in_the_class_of_its_lane_and_its_next_record(fleet: Fleet) -> None:
    fleet.change(partitions=1)
    fleet.absorb(
        ("1", "2", "delete", T, "live"),
        ("1", "3", "upsert", T, "live"),
        ("1", "4", "delete", T, "bulk"),
        ("1", "5", "upsert", T, "bulk"),
    )
    found = [list(each) for each in fleet.classes()]
    assert found == [[("1", "2")], [], [("1", "3")], [], [("1", "4")], [], [("1", "5")], []]
    lanes = read_status(namespace_of(fleet)).lanes
    assert [lanes[lane].pending_pairs for lane in ("live", "bulk")] == [2, 2]
    assert all(lanes[lane].oldest_ms for lane in ("live", "bulk"))


def test_a_live_change_takes_what_waits_of_its_pair_in_bulk_along(fleet: Fleet) -> None:
    fleet.change(partitions=1)
    fleet.absorb(("1", "2", "upsert", T, "bulk"))
    assert [len(each) for each in fleet.classes()] == [0, 0, 0, 0, 0, 0, 1, 0]
    fleet.absorb(("1", "2", "delete", T + 1, "live"))
    assert [len(each) for each in fleet.classes()] == [1, 0, 0, 0, 0, 0, 0, 0]
    fleet.deliver()
    assert fleet.applied()[-1][1:] == ("1", "2", "delete")


@pytest.mark.parametrize("partitions", [1, PARTITIONS])
def test_live_deletes_go_first_then_live_upserts_and_bulk_has_its_tenth(fleet: Fleet, partitions: int) -> None:
    fleet.change(batch_size=20, partitions=partitions, rate="500")  # what goes next is looked for at each request
    lanes: tuple[Lane, Lane] = ("bulk", "live")
    fleet.absorb(
        *((f"{lane}{op}{i}", "c", op, T, lane) for lane in lanes for op in ("upsert", "delete") for i in range(60)),
    )
    fleet.deliver()
    sent = fleet.requests()
    both = [each for each in sent if any(owner.startswith("live") for owner, *_ in each)]
    bulk = [sum(owner.startswith("bulk") for owner, *_ in each) for each in both[:-1]]
    assert sum(bulk) * 10 >= sum(len(each) for each in both[:-1])
    deletes = [sum(owner.startswith("livedelete") for owner, *_ in each) for each in both]
    assert deletes == [18, 18, 18, 6, *[0] * (len(both) - 4)]
    assert all(earlier >= later for earlier, later in pairwise(deletes))


def first_request_of(fleet: Fleet, owner: str) -> int:
    return next(i for i, each in enumerate(fleet.requests()) if any(who == owner for who, *_ in each))


@pytest.mark.parametrize("op", ["upsert", "delete"])
@pytest.mark.parametrize("lane", ["live", "bulk"])
def test_an_owner_with_many_pairs_in_the_log_does_not_keep_another_waiting(fleet: Fleet, op: Op, lane: Lane) -> None:
    fleet.change(batch_size=20, partitions=1)
    fleet.append_many([("heavy", f"c{i}", op, T) for i in range(3_000)], lane=lane)
    fleet.append("light", "c", op, T, lane=lane)
    fleet.deliver(seconds=60)
    assert first_request_of(fleet, "light") <= 4
    assert len(fleet.requests()) < 250  # and its own pairs wait for nobody else's


@pytest.mark.parametrize("op", ["upsert", "delete"])
def test_an_owner_with_many_pairs_that_wait_does_not_keep_another_waiting(fleet: Fleet, op: Op) -> None:
    fleet.change(batch_size=10, partitions=1)
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 1})
    fleet.append_many([("heavy", f"c{i}", op, T) for i in range(1_200)])
    fleet.append_many([(f"light{i}", "c", op, T) for i in range(12)])
    fleet.flush_once()  # fails, and from then on logs are read while nothing is sent
    wait_until(lambda: (fleet.flush(0.2), not fleet.backlog())[1], what="the log was read")
    begun = len(fleet.requests())
    fleet.append("news", "c", op, T)
    fleet.deliver(seconds=60)
    assert max(first_request_of(fleet, owner) for owner in ("news", *(f"light{i}" for i in range(12)))) <= begun + 6


@pytest.mark.parametrize("op", ["upsert", "delete"])
@pytest.mark.parametrize("lane", ["live", "bulk"])
def test_owners_with_many_pairs_in_every_partition_keep_no_other_waiting(fleet: Fleet, op: Op, lane: Lane) -> None:
    fleet.change(batch_size=20)
    heavy = {fleet.partition(f"heavy{i}"): f"heavy{i}" for i in range(100)}
    assert len(heavy) == PARTITIONS
    fleet.absorb(
        *((owner, f"c{i}", op, T, lane) for i in range(100) for owner in heavy.values()),
        *((f"light{i}", "c", op, T, lane) for i in range(10)),
    )
    fleet.deliver(seconds=60)
    assert max(first_request_of(fleet, f"light{i}") for i in range(10)) <= 2


@pytest.mark.parametrize("waiting", [20, 200])
def test_a_live_delete_is_in_the_next_request_although_enough_waits_to_fill_it(fleet: Fleet, waiting: int) -> None:
    fleet.change(batch_size=20, partitions=1)
    fleet.absorb(*((f"o{i}", "c", "upsert", T, "live") for i in range(waiting)))
    fleet.append("news", "c", "delete", T)
    fleet.deliver()
    assert first_request_of(fleet, "news") == 0


def test_an_owner_with_many_pairs_has_its_turn_while_others_keep_coming(fleet: Fleet) -> None:
    fleet.change(batch_size=10, partitions=1)
    fleet.absorb(*(("heavy", f"c{i}", "upsert", T, "live") for i in range(200)))
    for number in range(10):
        fleet.append_many([(f"o{number}-{i}", "c", "upsert", T) for i in range(12)])
        fleet.flush_once()
    sent = [sum(owner == "heavy" for owner, *_ in each) for each in fleet.requests()[:10]]
    assert all(sent)


@pytest.mark.parametrize("partitions", [2, 64], ids=["in a long log", "in one of many short logs"])
@pytest.mark.parametrize("there", ["before anybody looked", "since"])
def test_a_live_delete_behind_much_that_waits_goes_first_although_nothing_limits_the_rate(
    fleet: Fleet, there: str, partitions: int
) -> None:
    fleet.change(batch_size=20, partitions=partitions)
    ups = [(f"o{i}", "c", "upsert", T) for i in range(4_000)]
    with connect(fleet.settings().redis_url, timeout_seconds=3.0) as client:
        ticker = ticker_of(fleet.settings(), client, partitions, broker=NoBroker(), flush=lambda _: 0, token="t")
        fleet.append_many(ups)
        if there == "since":
            ticker._tick()  # noqa: SLF001 - as its thread does
        fleet.append("1", "gone", "delete", T)
        fleet.append_many([(f"p{i}", "c", "upsert", T) for i in range(200)])
        for _ in range(3):
            ticker._tick()  # noqa: SLF001
    fleet.deliver(seconds=60)
    first = next(i for i, each in enumerate(fleet.requests()) if any(op == "delete" for *_, op in each))
    assert first <= 5
    assert len(fleet.stand_in.contacts()) == 4_200


@pytest.mark.parametrize(
    ("bound", "hurries"), [({}, False), ({"rate": 50.0}, True), ({"in_flight": 4}, True)], ids=["none", "rate", "fixed"]
)
def test_a_log_full_of_deletes_is_sent_in_its_order_only_where_workers_bound_what_is_delivered(
    fleet: Fleet, bound: dict[str, Any], *, hurries: bool
) -> None:
    fleet.change(batch_size=20, partitions=2, **bound)
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()  # so that the gate knows the limits
    fleet.append_many([(f"o{i}", "c", "upsert" if i % 10 else "delete", T) for i in range(4_000)])
    with connect(fleet.settings().redis_url, timeout_seconds=3.0) as client:
        ticker = ticker_of(fleet.settings(), client, 2, broker=NoBroker(), flush=lambda _: 0, token="t")
        for _ in range(4):
            ticker._tick()  # noqa: SLF001 - as its thread does
        waiting = BacklogScanner(Namespace(client, fleet.keys, 2)).scan().waiting
    assert [each.hurries(20) for each in waiting] == [hurries, hurries]


def test_deletes_in_many_short_logs_go_first_while_the_rate_leaves_time_to_read_them(fleet: Fleet) -> None:
    fleet.change(batch_size=20, partitions=64, rate=50.0)
    fleet.append_many([(f"o{i}", "c", "upsert" if i % 20 else "delete", T) for i in range(2_000)])
    fleet.deliver(seconds=60)
    deletes = [sum(op == "delete" for *_, op in each) for each in fleet.requests()]
    assert sum(deletes) == 100
    assert sum(deletes[:10]) >= 90, "all logs hold some, and none of them more than one request takes"


def test_bulk_has_its_tenth_and_no_more_although_it_lies_in_many_short_logs(fleet: Fleet) -> None:
    fleet.change(batch_size=20, partitions=64)
    lanes: tuple[tuple[Lane, str], ...] = (("live", "l"), ("bulk", "b"))
    for lane, owner in lanes:
        fleet.append_many([(f"{owner}{i}", "c", "upsert", T) for i in range(1_200)], lane=lane)
    fleet.deliver(seconds=60)
    live = bulk = 0
    for each in fleet.requests():
        if live < 1_000:
            live += sum(owner.startswith("l") for owner, *_ in each)
            bulk += sum(owner.startswith("b") for owner, *_ in each)
    assert 0.08 * live <= bulk <= 0.25 * live


def test_few_pairs_that_change_often_fill_requests_together(fleet: Fleet) -> None:
    fleet.change(batch_size=20)
    owners = {fleet.partition(str(n)): str(n) for n in range(1_000)}.values()
    assert len(owners) == PARTITIONS
    for owner in owners:
        fleet.append_many([(owner, "c", "upsert", T + i) for i in range(40)])
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == len(owners)
    assert len(fleet.requests()) < len(owners)
