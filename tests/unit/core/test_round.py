"""A round decides how much is read of each partition, and whether a request goes out before more is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from worker.core.backlog import ABSORB_READ
from worker.core.gate import GateSnapshot
from worker.core.lane import CLASSES
from worker.core.lease import Lease
from worker.core.reach import Reach
from worker.core.round import Round

OK = GateSnapshot(1_003, "ok", 0, 0, None, "", "", 0, 0)


def lease(classes: dict[int, int] | None = None, **changed: Any) -> Lease:
    """A lease of a partition with so many waiting pairs of these classes."""
    counts = [(classes or {}).get(each, 0) for each in range(CLASSES)]
    empty: dict[str, Any] = dict.fromkeys(
        ("waiting", "bulk_waiting", "late", "late_due_ms", "dead", "dead_pairs", "late_until_ms", "late_to_ms"), 0
    )
    fixed: dict[str, Any] = {"position": b"0-0", "bulk_position": b"0-0", "classes": counts}
    return Lease(0, b"1", 0, 60.0, **(empty | fixed | changed))


def of(*leases: Lease, limit: int = 100, gate: GateSnapshot = OK, **changed: Any) -> Round:
    return Round(gate, 10.0, 10.5, [*leases], limit, **changed)


def pairs(turn: Round) -> list[list[int]]:
    return [[*each.pairs] for each in turn.requests(Reach())]


def test_waiting_pairs_fill_the_request_class_by_class_through_all_partitions() -> None:
    found = pairs(of(lease({0: 60, 2: 50}), lease({0: 30, 2: 50})))
    assert [each[0] for each in found] == [60, 30], "live deletes of all partitions come first"
    assert [each[2] for each in found] == [10, 0], "and live upserts get what they leave"


def test_no_more_is_read_than_fits_where_the_first_classes_fill_the_request() -> None:
    found = pairs(of(lease({0: 100, 2: 100}), lease({0: 100, 2: 100})))
    assert [sum(each) for each in found] == [100, 0]


def test_bulk_has_its_tenth_where_live_pairs_fill_the_request() -> None:
    (found,) = pairs(of(lease({0: 200, 4: 30, 6: 30})))
    assert found == [100, 0, 0, 0, 10, 0, 0, 0]


def test_owners_with_very_many_pairs_have_a_tenth_where_others_fill_the_request() -> None:
    (found,) = pairs(of(lease({0: 200, 1: 200})))
    assert found[:2] == [100, 10]


def test_a_closed_gate_reads_no_pair() -> None:
    closed = of(lease({0: 5}, waiting=7), gate=OK._replace(state="held", wait_ms=1_000))
    assert pairs(closed) == [[0] * CLASSES]


@pytest.mark.parametrize(("next_ms", "reads"), [(19, 100), (20, ABSORB_READ)])
def test_a_long_log_is_read_whole_while_the_rate_leaves_time_for_it(next_ms: int, reads: int) -> None:
    (asked,) = of(lease(waiting=101), next_ms=next_ms).requests(Reach())
    assert asked.entries == reads


def test_a_log_that_fits_beside_waiting_pairs_that_fill_the_request_is_read_whole() -> None:
    assert of(lease({2: 100}, waiting=100)).absorbs(lease(waiting=100))
    assert not of(lease({2: 99}, waiting=100)).absorbs(lease(waiting=100))
    assert not of(lease({2: 100}, waiting=101)).absorbs(lease(waiting=101)), "a long one is searched for deletes"


def test_a_retry_is_read_with_the_newest_state_of_both_lanes() -> None:
    backing_off = OK._replace(state="backing_off")
    assert [each.bulk for each in of(lease(waiting=1), gate=backing_off).requests(Reach())] == [ABSORB_READ]
    assert [each.bulk for each in of(lease(waiting=1)).requests(Reach())] == [0]


def test_late_marks_are_read_once_they_are_due() -> None:
    due, later = lease(late=3, late_due_ms=1_003), lease(late=3, late_due_ms=1_004)
    assert [each.marks for each in of(due, later).requests(Reach())] == [100, 0]


def test_the_time_in_redis_is_known_from_both_sides() -> None:
    turn = of(lease())
    assert turn.at_ms(12.0) == 1_003 + 2_000 + 1
    assert turn.at_least_ms(12.0) == 1_003 + 1_500
    other = turn.by_clock(50, 11.0, 11.5)
    assert (other.now_ms, other.at_ms(12.0), other.at_least_ms(12.0)) == (50, 1_051, 550)
    assert math.isclose(turn.start, 0.0)


def test_records_that_were_refused_with_an_unknown_code_have_a_turn_in_one_of_four_rounds() -> None:
    turns = [of(lease(), gate=OK._replace(now_ms=now)).turn for now in range(20)]
    assert (turns.count("none"), turns.count("newer"), turns.count("any")) == (15, 4, 1)
