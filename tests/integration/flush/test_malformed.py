"""Entries that break a rule, and keys that are no logs: their partition, or the others, go on (CONTRACT section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import PARTITIONS, T

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
