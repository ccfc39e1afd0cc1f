"""What a lease tells of its partition, and how long it holds."""

from __future__ import annotations

from dataclasses import replace

from worker.core.dead_letter import DEAD_CAP
from worker.core.lease import Lease

EMPTY = Lease(0, b"1", 0, 60.0, b"0-0", b"0-0", 0, 0, 0, 0, 0, 0, 0, 0)


def test_a_lease_holds_until_its_end_and_no_longer() -> None:
    assert EMPTY.outlives(59.999)
    assert not EMPTY.outlives(60.0)


def test_there_is_work_while_anything_waits_or_is_due() -> None:
    assert not EMPTY.has_work(1_000)
    assert replace(EMPTY, waiting=1).has_work(1_000)
    assert replace(EMPTY, bulk_waiting=1).has_work(1_000)
    assert replace(EMPTY, classes=[0, 0, 0, 0, 0, 0, 0, 1]).has_work(1_000)
    assert replace(EMPTY, late=1, late_due_ms=1_000).has_work(1_000)
    assert not replace(EMPTY, late=1, late_due_ms=1_001).has_work(1_000)
    assert replace(EMPTY, parked=1, parked_due_ms=1_000).has_work(1_000)
    assert not replace(EMPTY, parked=1, parked_due_ms=1_001).has_work(1_000)


def test_there_is_room_for_dead_letters_up_to_the_cap() -> None:
    assert replace(EMPTY, dead=DEAD_CAP - 1).letters_room == 1
    assert replace(EMPTY, dead=DEAD_CAP + 5).letters_room == 0


def test_both_lanes_share_what_is_read_if_both_have_entries() -> None:
    assert replace(EMPTY, waiting=1).share(100) == 100
    assert replace(EMPTY, waiting=1, bulk_waiting=1).share(100) == 50
