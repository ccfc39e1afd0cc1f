"""Records that the endpoint refuses, batches that are too large for it, and an endpoint that refuses everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import T
from tests.support.waiting import wait_until
from worker.core.gate import SINGLE_REJECTIONS_MAX

if TYPE_CHECKING:
    from tests.support.fleet import Fleet


def upserts(count: int) -> list[tuple[str, str, str, int | None]]:
    return [(f"owner{i % 50}", f"contact{i}", "upsert", T) for i in range(count)]


# Poison


@pytest.mark.parametrize(("field", "poison"), [("102", "owner{}"), ("103", "contact{}")])
def test_poisonous_records_end_alone_in_the_dead_letters_and_the_rest_is_delivered(
    fleet: Fleet, field: str, poison: str
) -> None:
    changes = upserts(1_000)
    if field == "102":  # owners of one contact each, so that three poisonous owners are three records
        changes = [(f"owner{i}", "contact", "upsert", T) for i in range(1_000)]
    fleet.stand_in.settings(poisoned=[poison.format(i) for i in (7, 500, 993)])
    fleet.append_many(changes)
    fleet.deliver()
    letters = fleet.dead_letters()
    assert len(fleet.stand_in.contacts()) == 997
    assert [(letter["code"], letter["field"]) for letter in letters] == [("40002", field)] * 3
    named = "owner" if field == "102" else "contact"
    assert {letter[named] for letter in letters} == {poison.format(i) for i in (7, 500, 993)}
    assert fleet.stand_in.counts()["requests"] < 100
    totals = fleet.totals()
    assert (totals["records_confirmed"], totals["dead_lettered"]) == (997, 3)


def test_a_poisonous_pair_does_not_hold_up_changes_that_come_while_it_is_being_found(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["contact7"])
    fleet.append_many(upserts(64))
    fleet.flush_once()
    fleet.append("new", "pair", "upsert", T)
    fleet.deliver()
    assert ("new", "pair") in fleet.stand_in.contacts()
    assert len(fleet.dead_letters()) == 1


def test_newer_changes_of_a_pair_with_a_dead_letter_are_tried_again_on_their_own(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["2"])
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[])
    fleet.append("1", "2", "upsert", T + 1)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert [letter["at"] for letter in fleet.dead_letters()] == [T]


def test_what_is_confirmed_of_a_pair_with_dead_letters_stays_remembered_beside_them(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["2"])
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[])
    fleet.append("1", "2", "delete", T + 5)
    fleet.deliver()
    p = fleet.partition("1")
    assert fleet.client.hvals(fleet.keys.dead_pairs(p)) == [b"1;d%d," % (T + 5)]
    # The ledger itself may forget: what is beside the dead letters outdates all the same.
    fleet.client.delete(fleet.keys.ledger_new(p), fleet.keys.ledger_old(p))
    fleet.append("1", "2", "upsert", T + 4)
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert fleet.totals()["stale"] == 1


def test_every_refused_record_is_a_dead_letter_of_its_own(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["2"])
    for at in (T, T + 1):
        fleet.append("1", "2", "upsert", at)
        fleet.deliver()
    ids = [letter["id"] for letter in fleet.dead_letters()]
    assert ids == [f"{fleet.partition('1')}-1", f"{fleet.partition('1')}-2"]
    assert [value[:2] for value in fleet.client.hvals(fleet.keys.dead_pairs(fleet.partition("1")))] == [b"2;"]


# An endpoint that refuses everything


def test_single_rejections_in_a_row_hold_the_endpoint_since_so_many_are_no_poison(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=[f"owner{i}" for i in range(50)])
    fleet.append_many(upserts(100))
    wait_until(lambda: fleet.flush(0.1) >= 0 and fleet.first.gate.snapshot().state == "held", seconds=60.0, what="held")
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.reason) == ("held", "every_record_rejected")
    assert 0 < len(fleet.dead_letters()) < SINGLE_REJECTIONS_MAX
    dead = len(fleet.dead_letters())
    fleet.stand_in.settings(poisoned=[])
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == 100 - dead
    assert fleet.first.gate.snapshot().state == "ok"


def test_single_rejections_between_confirmations_never_hold_the_endpoint(fleet: Fleet) -> None:
    fleet.change(batch_size=1)
    fleet.stand_in.settings(poisoned=["poison"])
    count = SINGLE_REJECTIONS_MAX + 5
    for i in range(count):
        fleet.append("1", "poison", "upsert", T + i)
        fleet.deliver()
        fleet.append("1", f"healthy{i}", "upsert", T)
        fleet.deliver()
    assert len(fleet.dead_letters()) == count
    assert fleet.first.gate.snapshot().state == "ok"


# Too large


@pytest.mark.parametrize("refusal", ["413", "40002"])
def test_a_batch_that_is_too_large_is_halved_and_the_size_that_passes_is_remembered(fleet: Fleet, refusal: str) -> None:
    fleet.change(batch_size=400)
    fleet.stand_in.settings(largest_batch=60, largest_batch_refusal=refusal)
    fleet.append_many(upserts(400))
    fleet.deliver()
    sizes = [len(records) for records in fleet.requests()]
    assert sizes[:4] == [400, 200, 100, 50]
    assert max(sizes[3:]) == 50
    assert len(fleet.stand_in.contacts()) == 400
    assert (fleet.first.gate.snapshot().limit, fleet.dead_letters()) == (50, [])
    fleet.append_many((f"later{i}", "x", "upsert", T) for i in range(100))
    fleet.deliver(fleet.worker())
    assert max(len(records) for records in fleet.requests()[4:]) == 50


def test_poison_is_found_even_where_batches_are_too_large(fleet: Fleet) -> None:
    fleet.stand_in.settings(largest_batch=20, poisoned=["contact33"])
    fleet.append_many(upserts(128))
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == 127
    assert [letter["contact"] for letter in fleet.dead_letters()] == ["contact33"]


# What is innocent does not wait for what is refused


def test_twenty_refused_records_of_one_owner_hold_up_nobody_else(fleet: Fleet) -> None:
    fleet.change(partitions=1, backoff_max_seconds=60.0)
    innocent = {(f"owner{i}", "9") for i in range(10)}
    fleet.append_many([(owner, contact, "upsert", T) for owner, contact in sorted(innocent)])
    fleet.deliver()
    fleet.stand_in.settings(poisoned=["refused"])
    fleet.append_many([("refused", f"contact{i}", "upsert", T) for i in range(25)])
    fleet.append_many([(owner, contact, "delete", T + 1) for owner, contact in sorted(innocent)])
    wait_until(lambda: fleet.flush(0.1) >= 0 and not fleet.stand_in.contacts(), seconds=15.0, what="deleted")


def test_a_delete_that_comes_while_refused_records_hold_the_endpoint_is_tried_within_seconds(fleet: Fleet) -> None:
    fleet.change(partitions=1, backoff_max_seconds=60.0)
    fleet.stand_in.settings(poisoned=["refused"])
    fleet.append_many([("refused", f"contact{i}", "upsert", T) for i in range(25)])
    wait_until(lambda: fleet.flush(0.1) >= 0 and fleet.first.gate.snapshot().state == "held", seconds=60.0, what="held")
    assert fleet.first.gate.snapshot().reason == "every_record_rejected"
    fleet.append("1", "9", "upsert", T)
    wait_until(lambda: fleet.flush(0.1) >= 0 and fleet.stand_in.contacts() == {("1", "9")}, seconds=20.0, what="tried")


def test_probes_of_an_endpoint_that_refuses_everything_try_every_record_before_any_twice(fleet: Fleet) -> None:
    fleet.change(partitions=1, backoff_max_seconds=0.02)
    fleet.stand_in.settings(poisoned=["refused"])
    fleet.append_many([("refused", f"contact{i}", "upsert", T) for i in range(30)])
    wait_until(lambda: fleet.flush(0.1) >= 0 and fleet.stand_in.counts()["requests"] > 120, seconds=60.0, what="probes")
    suspects = [state.suspect for state in fleet.pending().values()]
    assert len(suspects) == 11
    assert max(suspects) - min(suspects) <= 1
    assert max(suspects) < -2  # each was tried several times
