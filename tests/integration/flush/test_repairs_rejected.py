"""A repair that the endpoint refuses: the others are said all the same, and it is not said for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.fleet import T

if TYPE_CHECKING:
    from tests.support.fleet import Fleet


def _nine_confirmed_and_to_be_repaired(fleet: Fleet) -> None:
    fleet.append_many([(f"o{i}", "c", "upsert", T) for i in range(9)])
    fleet.deliver()
    for i in range(9):
        fleet.mark_late(fleet.partition(f"o{i}"), f"o{i}\x1fc".encode(), 0, fleet.now_ms())
    fleet.stand_in.settings(poisoned=["o4"])


def test_a_poisonous_repair_ends_up_alone_and_the_others_are_said(fleet: Fleet) -> None:
    fleet.change(partitions=1)
    _nine_confirmed_and_to_be_repaired(fleet)
    before = fleet.stand_in.counts()["requests"]
    fleet.deliver()
    assert fleet.marks() == {}
    assert fleet.totals()["repairs"] == 8
    assert fleet.dead_letters() == []  # it was confirmed once; what is refused now says nothing new
    assert fleet.stand_in.counts()["requests"] - before < 20


def test_where_answers_take_long_half_of_a_rejected_batch_waits_longer(fleet: Fleet) -> None:
    # A half that is due again before the other has been halved to the end would begin anew, each time.
    fleet.change(partitions=1, request_timeout_seconds=3.0, lease_seconds=5.0)
    _nine_confirmed_and_to_be_repaired(fleet)
    fleet.stand_in.settings(poisoned=["o4"], latency_seconds=0.3)
    before_ms = fleet.now_ms()
    fleet.flush_once()
    waiting_ms = sorted(mark.until_ms - before_ms for mark in fleet.marks().values())
    assert all(each <= 0 for each in waiting_ms[:5])
    assert all(each >= 300 * 14 for each in waiting_ms[5:])  # ten thousand are halved to one in fourteen steps


def test_steady_traffic_neither_hides_a_poisonous_repair_nor_is_taken_for_it(fleet: Fleet) -> None:
    fleet.change(partitions=1)
    _nine_confirmed_and_to_be_repaired(fleet)
    before = fleet.stand_in.counts()["requests"]
    for i in range(40):
        fleet.append(f"new{i}", "c", "upsert", T)
        fleet.flush_once()
    fleet.deliver()
    assert fleet.marks() == {}
    assert fleet.totals()["repairs"] == 8
    assert fleet.dead_letters() == []
    rejected = [each for each in fleet.requests()[before:] if any(owner == "o4" for owner, _, _ in each)]
    assert not any(owner.startswith("new") for each in rejected for owner, _, _ in each)
