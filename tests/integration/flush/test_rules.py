"""What a pair ends as, through the log, a worker and the endpoint (contract.md, section 3)."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import T

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

UPSERT, DELETE = "upsert", "delete"


# Changes that wait together


@pytest.mark.parametrize("order", list(itertools.permutations([(UPSERT, None), (DELETE, None), (UPSERT, None)])))
def test_a_delete_without_at_wins_over_upserts_without_at_whatever_their_order(
    fleet: Fleet, order: tuple[tuple[str, int | None], ...]
) -> None:
    for op, at in order:
        fleet.append("1", "2", op, at)
    fleet.deliver()
    assert fleet.applied() == [(1, "1", "2", DELETE)]
    assert fleet.totals() == {
        "events": 3,
        "coalesced": 1,
        "superseded": 1,
        "requests": 1,
        "records_confirmed": 1,
        "deletes_confirmed": 1,
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((DELETE, T), (UPSERT, T), id="equal at, delete first"),
        pytest.param((UPSERT, T), (DELETE, T), id="equal at, upsert first"),
        pytest.param((UPSERT, T), (DELETE, T + 1), id="the delete is later"),
        pytest.param((DELETE, None), (UPSERT, T), id="only the upsert carries at"),
        pytest.param((DELETE, T), (UPSERT, None), id="only the delete carries at"),
    ],
)
def test_a_delete_wins_over_an_upsert_that_is_not_known_to_be_later(
    fleet: Fleet, first: tuple[str, int | None], second: tuple[str, int | None]
) -> None:
    fleet.append("1", "2", *first)
    fleet.append("1", "2", *second)
    fleet.deliver()
    assert fleet.applied() == [(1, "1", "2", DELETE)]
    assert fleet.totals()["superseded"] == 1


def test_an_upsert_known_to_be_later_is_sent_in_a_later_request_once_the_delete_is_confirmed(fleet: Fleet) -> None:
    fleet.append("1", "2", UPSERT, T)
    fleet.append("1", "2", DELETE, T + 300_000)
    fleet.append("1", "2", UPSERT, T + 360_000)
    fleet.deliver()
    assert fleet.applied() == [(1, "1", "2", DELETE), (2, "1", "2", UPSERT)]
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_the_later_upsert_waits_while_its_delete_is_not_confirmed(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 3})
    fleet.append("1", "2", DELETE, T)
    fleet.append("1", "2", UPSERT, T + 1)
    fleet.deliver()
    assert [records[0][2] for records in fleet.requests()] == [DELETE, DELETE, DELETE, DELETE, UPSERT]


def test_absorb_drops_the_later_upsert_and_counts_it(fleet: Fleet) -> None:
    fleet.change(readd="absorb")
    fleet.append("1", "2", DELETE, T)
    fleet.append("1", "2", UPSERT, T + 1)
    fleet.deliver()
    assert fleet.applied() == [(1, "1", "2", DELETE)]
    assert fleet.totals()["superseded"] == 1


def test_absorb_sends_an_upsert_that_comes_after_the_delete_was_confirmed(fleet: Fleet) -> None:
    fleet.change(readd="absorb")
    fleet.append("1", "2", DELETE, T)
    fleet.deliver()
    fleet.append("1", "2", UPSERT, T + 1)
    fleet.deliver()
    assert fleet.applied() == [(1, "1", "2", DELETE), (2, "1", "2", UPSERT)]


def test_a_delete_that_becomes_a_dead_letter_leaves_the_later_upsert_to_be_tried_on_its_own(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "envelope", "code": "40002", "field": "103", "times": 1})
    fleet.append("1", "2", DELETE, T)
    fleet.append("1", "2", UPSERT, T + 1)
    fleet.deliver()
    assert [(letter["op"], letter["at"]) for letter in fleet.dead_letters()] == [(DELETE, T)]
    assert fleet.applied() == [(2, "1", "2", UPSERT)]


def test_both_directions_of_a_contact_are_two_pairs(fleet: Fleet) -> None:
    fleet.append("1", "6", UPSERT, T)
    fleet.append("6", "1", DELETE, T)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "6")}


# Changes that come after a confirmation


@pytest.mark.parametrize(
    ("confirmed", "late"),
    [
        pytest.param([(UPSERT, T + 10)], (DELETE, T + 5), id="a delete older than a confirmed upsert"),
        pytest.param([(UPSERT, T + 10)], (UPSERT, T + 10), id="an upsert that was confirmed already"),
        pytest.param([(DELETE, T + 10)], (UPSERT, T + 10), id="an upsert as old as a confirmed delete"),
        pytest.param([(DELETE, T + 10)], (DELETE, T + 9), id="a delete older than a confirmed delete"),
        pytest.param([(DELETE, T + 10), (UPSERT, T + 20)], (UPSERT, T + 15), id="between delete and upsert"),
        pytest.param([(DELETE, T + 10), (UPSERT, T + 20)], (DELETE, T + 19), id="a delete between the two"),
    ],
)
def test_a_change_older_than_what_was_confirmed_since_is_dropped_as_stale_and_counted(
    fleet: Fleet, confirmed: list[tuple[str, int]], late: tuple[str, int]
) -> None:
    for op, at in confirmed:
        fleet.append("1", "2", op, at)
        fleet.deliver()
    before = fleet.applied()
    fleet.append("1", "2", *late)
    fleet.deliver()
    assert fleet.applied() == before
    assert fleet.totals()["stale"] == 1


def test_a_delete_as_old_as_a_confirmed_upsert_wins_over_it(fleet: Fleet) -> None:
    fleet.append("1", "2", UPSERT, T)
    fleet.deliver()
    fleet.append("1", "2", DELETE, T)
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()


@pytest.mark.parametrize("op", [UPSERT, DELETE])
def test_a_change_without_at_counts_as_new_after_any_confirmation(fleet: Fleet, op: str) -> None:
    fleet.append("1", "2", DELETE if op == UPSERT else UPSERT, fleet.now_ms() + 60_000)
    fleet.deliver()
    fleet.append("1", "2", op)
    fleet.deliver()
    assert [each[3] for each in fleet.applied()][-1] == op
    assert len(fleet.applied()) == 2


def test_a_stamped_upsert_is_stale_against_a_confirmed_delete_without_at_up_to_that_deletes_entry(fleet: Fleet) -> None:
    entry_ms = int(fleet.append("1", "2", DELETE).partition("-")[0])
    fleet.deliver()
    fleet.append("1", "2", UPSERT, entry_ms)
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    fleet.append("1", "2", UPSERT, entry_ms + 1)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert fleet.totals()["stale"] == 1


# Requests


def test_a_pair_is_in_a_request_at_most_once_and_upserts_stand_before_deletes(fleet: Fleet) -> None:
    chance = random.Random(1)
    fleet.append_many(
        (str(chance.randrange(40)), str(chance.randrange(5)), chance.choice([UPSERT, DELETE]), T + i)
        for i in range(2_000)
    )
    fleet.deliver()
    counts = fleet.stand_in.counts()
    assert (counts["pair_twice"], counts["upsert_after_delete"]) == (0, 0)
    assert any({record[2] for record in records} == {UPSERT, DELETE} for records in fleet.requests())


def test_no_request_holds_more_records_than_the_batch_size(fleet: Fleet) -> None:
    fleet.change(batch_size=7)
    fleet.append_many((str(i % 10), str(i), UPSERT, T) for i in range(100))
    fleet.deliver()
    counts = fleet.stand_in.counts()
    assert (counts["largest_batch"], counts["contacts"]) == (7, 100)
    assert counts["requests"] <= 20


def test_one_request_carries_the_changes_of_all_partitions(fleet: Fleet) -> None:
    fleet.append_many((str(i), "x", UPSERT, T) for i in range(64))
    fleet.deliver()
    assert [len(records) for records in fleet.requests()] == [64]


def test_a_retry_is_built_afresh_so_that_a_delete_that_came_meanwhile_goes_out_alone(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 503, "times": 1})
    fleet.append("1", "2", UPSERT, T)
    fleet.flush_once()
    fleet.append("1", "2", DELETE, T + 1)
    fleet.deliver()
    assert fleet.requests() == [[("1", "2", UPSERT)], [("1", "2", DELETE)]]
    assert fleet.applied() == [(2, "1", "2", DELETE)]


# The end is a function of the set of changes


def outcome_of(changes: list[tuple[str, str, str, int]]) -> set[tuple[str, str]]:
    """The contract in three lines: the change with the greatest `at` decides, a delete where two are equal."""
    last: dict[tuple[str, str], tuple[int, bool]] = {}
    for owner, contact, op, at in changes:
        last[owner, contact] = max(last.get((owner, contact), (0, False)), (at, op == DELETE))
    return {pair for pair, (_, deleted) in last.items() if not deleted}


@pytest.mark.parametrize("seed", range(6))
def test_arrival_order_batches_retries_and_duplicates_do_not_matter_to_changes_that_carry_at(
    fleet: Fleet, seed: int
) -> None:
    chance = random.Random(seed)
    fleet.change(batch_size=chance.choice([1, 3, 50]))
    changes = [
        (str(chance.randrange(4)), str(chance.randrange(3)), chance.choice([UPSERT, DELETE]), T + chance.randrange(8))
        for _ in range(120)
    ]
    for fault in ("drop_after", "drop_before", "garbage", "reset"):
        fleet.stand_in.faults({"kind": fault, "probability": 0.08, "seed": seed})
    for start in range(0, len(changes), 12):
        fleet.append_many(changes[start : start + 12])
        fleet.flush(seconds=0.05)
    fleet.stand_in.remove_faults()
    fleet.deliver()
    assert fleet.stand_in.contacts() == outcome_of(changes)
