"""Entries that break a rule, and keys of another type than a log: everything else goes on (contract.md, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fleet import PARTITIONS, T
from tests.support.waiting import wait_until
from worker.core.dead_letter import DEAD_CAP

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

UP = {b"owner": b"1", b"contact": b"2", b"op": b"upsert"}

MALFORMED: list[tuple[dict[bytes, bytes], str]] = [
    ({b"contact": b"2", b"op": b"upsert"}, "missing_owner"),
    ({b"owner": b"1", b"op": b"upsert"}, "missing_contact"),
    ({b"owner": b"1", b"contact": b"2"}, "missing_op"),
    (UP | {b"op": b"replace"}, "bad_op"),
    (UP | {b"op": b"UPSERT"}, "bad_op"),
    (UP | {b"owner": b""}, "bad_owner"),
    (UP | {b"contact": b"x" * 257}, "bad_contact"),
    (UP | {b"contact": b"\xff\xfe"}, "bad_contact"),
    (UP | {b"contact": "a\u0085b".encode()}, "bad_contact"),
    (UP | {b"owner": b"1\x1f"}, "bad_owner"),
    (UP | {b"at": b"soon"}, "bad_at"),
    (UP | {b"at": b""}, "bad_at"),
    (UP | {b"at": b"-1795460000000"}, "bad_at"),
    (UP | {b"at": b"1795460000"}, "at_out_of_range"),
    (UP | {b"at": b"9795460000000"}, "at_out_of_range"),
    (UP | {b"at": b"9" * 5_000}, "at_out_of_range"),
    ({b"nonsense": b"\x00" * 3_000}, "missing_owner"),
]


@pytest.mark.parametrize(("fields", "reason"), MALFORMED, ids=lambda case: case if isinstance(case, str) else "")
def test_an_entry_that_breaks_a_rule_is_one_dead_letter_with_its_reason_and_its_partition_goes_on(
    fleet: Fleet, fields: dict[bytes, bytes], reason: str
) -> None:
    p = fleet.partition("1")
    fleet.append("1", "before", "upsert", T)
    entry = fleet.append_raw(p, fields)
    fleet.append("1", "after", "upsert", T)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "before"), ("1", "after")}
    (letter,) = fleet.dead_letters()
    assert (letter["reason"], letter["entry"]) == (reason, entry)
    assert (fleet.totals()["events"], fleet.totals()["dead_lettered"]) == (3, 1)


def test_an_entry_in_a_partition_other_than_its_owners_is_a_dead_letter(fleet: Fleet) -> None:
    fleet.append_raw((fleet.partition("1") + 1) % PARTITIONS, dict(UP))
    fleet.deliver()
    assert [letter["reason"] for letter in fleet.dead_letters()] == ["wrong_partition"]
    assert fleet.stand_in.counts()["requests"] == 0


def test_malformed_entries_do_not_wait_for_an_endpoint_that_is_away(fleet: Fleet) -> None:
    fleet.first.gate.report(0, "retry", delay_seconds=600, error="HTTP 503")
    fleet.append_raw(0, {"owner": "1"}, entry=f"{fleet.now_ms() - 6_000}-0")
    fleet.flush(0.2)
    assert [letter["reason"] for letter in fleet.dead_letters()] == ["missing_contact"]


def test_unknown_fields_and_a_source_or_trace_that_does_not_fit_are_ignored(fleet: Fleet) -> None:
    fields = {"colour": "blue", "source": "s" * 65, "traceparent": "none", "owner": "1", "contact": "2", "op": "upsert"}
    fleet.append_raw(fleet.partition("1"), fields)
    fleet.deliver()
    assert (fleet.stand_in.contacts(), fleet.dead_letters()) == ({("1", "2")}, [])


@pytest.mark.parametrize("wrong_type", ["string", "hash", "list"])
def test_a_key_of_another_type_in_a_streams_place_stops_its_own_partition_alone(fleet: Fleet, wrong_type: str) -> None:
    broken = fleet.partition("1")
    key = fleet.keys.events(broken)
    {
        "string": lambda: fleet.client.set(key, "x"),
        "hash": lambda: fleet.client.hset(key, "x", "y"),
        "list": lambda: fleet.client.lpush(key, "x"),
    }[wrong_type]()
    others = [str(i) for i in range(40) if fleet.partition(str(i)) != broken]
    for owner in others:
        fleet.append(owner, "2", "upsert", T)
    fleet.flush(1.0)
    assert fleet.stand_in.contacts() == {(owner, "2") for owner in others}


def test_a_key_of_another_type_in_the_place_of_what_waits_stops_its_own_partition_alone(fleet: Fleet) -> None:
    broken = fleet.partition("1")
    fleet.client.set(fleet.keys.pending(broken), "x")
    fleet.append("1", "2", "upsert", T)
    others = [str(i) for i in range(40) if fleet.partition(str(i)) != broken]
    for owner in others:
        fleet.append(owner, "2", "upsert", T)
    fleet.flush(1.0)
    assert fleet.stand_in.contacts() == {(owner, "2") for owner in others}


# More of them than a partition may keep as dead letters


def garbage(fleet: Fleet, partition: int, entries: int) -> None:
    """So many entries that break a rule, straight into one log."""
    pipe = fleet.client.pipeline(transaction=False)
    for _ in range(entries):
        pipe.xadd(fleet.keys.events(partition), {"nonsense": "1"})
    pipe.execute()


def test_garbage_that_fills_the_dead_letters_of_a_partition_holds_up_that_log_alone(fleet: Fleet) -> None:
    p = fleet.partition("1")
    garbage(fleet, p, DEAD_CAP + 5_500)
    fleet.append("1", "behind", "upsert", T)
    others = [str(i) for i in range(40) if fleet.partition(str(i)) != p]
    for owner in others:
        fleet.append(owner, "2", "upsert", T)
    wait_until(lambda: fleet.flush(0.5) == 0, seconds=60, what="nothing is due")
    assert fleet.stand_in.contacts() == {(owner, "2") for owner in others}
    assert fleet.first.gate.snapshot().state == "ok"
    assert fleet.client.hlen(fleet.keys.dead(p)) == DEAD_CAP
    assert fleet.client.xlen(fleet.keys.events(p)) == 5_501
    # Others still come and go, and so does what waits beside the log.
    fleet.stand_in.settings(poisoned=["refused"])
    fleet.append(others[0], "3", "upsert", T)
    wait_until(lambda: fleet.flush(0.1) >= 0 and (others[0], "3") in fleet.stand_in.contacts(), what="others go on")
    # Room makes it go on at once, as far as it goes.
    letters: Any = fleet.client.hkeys(fleet.keys.dead(p))
    fleet.client.hdel(fleet.keys.dead(p), *letters[:500])
    wait_until(lambda: fleet.flush(0.1) >= 0 and fleet.client.xlen(fleet.keys.events(p)) == 5_001, what="500 letters")
    fleet.client.delete(fleet.keys.dead(p))
    fleet.deliver()
    assert ("1", "behind") in fleet.stand_in.contacts()
    assert fleet.totals()["dead_lettered"] == DEAD_CAP + 5_500


def test_garbage_in_a_bulk_log_holds_up_no_live_change_of_its_partition(fleet: Fleet) -> None:
    p = fleet.partition("1")
    fleet.client.hset(fleet.keys.dead(p), mapping={f"{p}-old{i}": b"{}" for i in range(DEAD_CAP)})
    for _ in range(3):
        fleet.append_raw(p, {"nonsense": "1"}, lane="bulk")
    fleet.append("1", "live", "upsert", T)
    wait_until(lambda: fleet.flush(0.1) >= 0 and fleet.stand_in.contacts() == {("1", "live")}, what="it is delivered")
    assert fleet.first.gate.snapshot().state == "ok"
    assert fleet.client.xlen(fleet.keys.bulk(p)) == 3


def test_a_refused_record_that_no_letter_has_room_for_is_parked_and_what_else_waits_goes_on(fleet: Fleet) -> None:
    p = fleet.partition("1")
    fleet.client.hset(fleet.keys.dead(p), mapping={f"{p}-old{i}": b"{}" for i in range(DEAD_CAP)})
    fleet.stand_in.settings(poisoned=["refused"])
    fleet.append("1", "refused", "upsert", T)
    for contact in ("2", "3"):
        fleet.append("1", contact, "upsert", T)
    wait_until(lambda: fleet.flush(0.1) >= 0 and len(fleet.stand_in.contacts()) == 2, what="others are delivered")
    fleet.flush(0.5)
    requests = fleet.stand_in.counts()["requests"]
    fleet.flush(0.5)
    assert fleet.stand_in.counts()["requests"] == requests  # it is not sent again and again
    assert fleet.first.gate.snapshot().state == "ok"
    assert fleet.client.hlen(fleet.keys.dead(p)) == DEAD_CAP
    assert fleet.client.hlen(fleet.keys.parked(p)) == 1
