"""A repair that the endpoint refuses: the others are said all the same, and it is not said for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.fleet import T

if TYPE_CHECKING:
    from tests.integration.fleet import Fleet


def test_a_poisonous_repair_ends_up_alone_and_the_others_are_said(fleet: Fleet) -> None:
    fleet.change(partitions=1)
    fleet.append_many([(f"o{i}", "c", "upsert", T) for i in range(9)])
    fleet.deliver()
    for i in range(9):
        fleet.mark_late(fleet.partition(f"o{i}"), f"o{i}\x1fc".encode(), 0, fleet.now_ms())
    fleet.stand_in.settings(poisoned=["o4"])
    before = fleet.stand_in.counts()["requests"]
    fleet.deliver()
    assert fleet.marks() == {}
    assert fleet.totals()["repairs"] == 8
    assert fleet.dead_letters() == []  # it was confirmed once; what is refused now says nothing new
    assert fleet.stand_in.counts()["requests"] - before < 20
