"""A dead letter: which change in it can go back into the log, under which pair it counts, and what outdates it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from producers.contract.change import AT_MIN_MS
from worker.core.dead_letter import DeadLetter, RedrivableChange, read_letter, values_of
from worker.core.entry import pair_of
from worker.core.pair import Remembered
from worker.core.reasons import OF_RECORDS, READABLE, REASONS

if TYPE_CHECKING:
    from producers.contract.change import Op

T = 1_795_460_847_757


def letter(**changed: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "id": "3-7",
        "partition": 3,
        "owner": "1",
        "contact": "2",
        "op": "upsert",
        "at": T,
        "source": "crm",
        "reason": "refused",
        "code": "40002",
        "field": "103",
        "message": "no",
        "since_ms": T + 9,
        "entry": None,
        "entry_ms": T + 1,
    }
    return DeadLetter(**fields | changed)


@pytest.mark.parametrize("op", ["upsert", "delete"])
@pytest.mark.parametrize("reason", REASONS)
def test_a_change_that_is_readable_goes_back_as_it_was(reason: str, op: Op) -> None:
    back = letter(reason=reason, op=op).redrivable
    assert back == (RedrivableChange(b"1", b"2", op, T, b"crm") if reason in READABLE else None)


@pytest.mark.parametrize(
    "changed",
    [
        {"op": None},
        {"op": "update"},
        {"owner": None},
        {"owner": ""},
        {"owner": "o" * 257},
        {"contact": None},
        {"contact": "a\nb"},
        {"at": AT_MIN_MS - 1},
        {"at": None, "entry_ms": None},
        {"at": 0, "entry_ms": AT_MIN_MS - 1},
    ],
)
def test_a_change_that_breaks_a_rule_besides_does_not_go_back(changed: dict[str, Any]) -> None:
    assert letter(**changed).redrivable is None


@pytest.mark.parametrize(("at", "entry_ms", "then"), [(None, T, T), (0, T, T), (AT_MIN_MS, T, AT_MIN_MS)])
def test_a_change_without_a_time_counts_as_of_its_entry(at: int | None, entry_ms: int, then: int) -> None:
    back = letter(at=at, entry_ms=entry_ms).redrivable
    assert back is not None
    assert back.at == then


@pytest.mark.parametrize(("source", "kept"), [(None, b""), ("s" * 64, b"s" * 64), ("s" * 65, b"")])
def test_a_source_that_is_too_long_stays_behind(source: str | None, kept: bytes) -> None:
    back = letter(source=source).redrivable
    assert back is not None
    assert back.source == kept


@pytest.mark.parametrize("reason", REASONS)
def test_only_a_record_counts_under_its_pair(reason: str) -> None:
    assert letter(reason=reason).counted_pair == (pair_of(b"1", b"2") if reason in OF_RECORDS else b"")
    assert letter(owner=None).counted_pair == b""
    assert letter(contact=None).counted_pair == b""


@pytest.mark.parametrize(
    ("op", "known", "outdated"),
    [
        ("upsert", None, False),
        ("upsert", Remembered("delete", T, 0), True),
        ("upsert", Remembered("delete", T - 1, 0), False),
        ("upsert", Remembered("upsert", 0, T - 1), False),
        ("upsert", Remembered("upsert", 0, T), True),
        ("upsert", Remembered("upsert", 0, T + 1), True),
        ("delete", Remembered("upsert", 0, T), False),
        ("delete", Remembered("upsert", 0, T + 1), True),
        ("delete", Remembered("delete", T, 0), True),
        ("delete", Remembered("delete", T + 1, 0), True),
    ],
)
def test_newer_knowledge_of_the_pair_outdates_it(op: Op, known: Remembered | None, outdated: bool) -> None:  # noqa: FBT001 - a case
    change = letter(op=op).redrivable
    assert change is not None
    assert change.pair == pair_of(b"1", b"2")
    assert change.outdated_by(known) == outdated


@pytest.mark.parametrize("lane", [None, "live", "bulk"])
def test_a_letter_reads_back_as_it_was_written(lane: str | None) -> None:
    stored = {
        "owner": "1",
        "contact": "2",
        "op": "delete",
        "at": T,
        "source": None,
        "reason": "refused",
        "code": "40002",
        "field": None,
        "message": None,
        "since": T + 9,
        "entry": "1-0",
        "entry_ms": T,
    } | ({} if lane is None else {"lane": lane})
    read = read_letter(3, b"3-7", orjson.dumps(stored))
    assert (read.id, read.partition, read.lane, read.outdated) == ("3-7", 3, lane or "live", False)
    said = read.as_json()
    assert said["since"] == "2026-11-23T19:07:27.766Z"
    assert {name: said[name] for name in stored if name not in {"since", "lane"}} == {
        name: value for name, value in stored.items() if name not in {"since", "lane"}
    }


def test_whatever_may_be_an_id_in_it_is_told() -> None:
    texts = ['{"id": 3}', "value", '{"after": {"user_id": "ann", "n": [7, true, null]}, "deep": "{\\"a\\": \\"b\\"}"}']
    assert set(values_of(texts)) == {*texts, "3", "ann", "7", '{"a": "b"}', "b"}
    assert list(values_of(["[" * 5000])) == ["[" * 5000]


@pytest.mark.parametrize("said", ["text", ["key"], ["key", 5], {"key": "value"}, 7])
def test_what_has_another_type_in_a_message_that_anybody_may_have_written_is_left_out(said: object) -> None:
    stored = dict.fromkeys(("source", "code", "entry", "entry_ms")) | {"reason": "unmapped", "since": T}
    stored |= {"owner": 5, "contact": ["2"], "op": {}, "at": "soon", "field": 1, "message": [], "said": said}
    found = read_letter(0, b"0-1", orjson.dumps(stored))
    assert (found.owner, found.contact, found.op, found.at, found.said) == (None,) * 5
    assert (found.field, found.message, list(found.ids)) == (None, None, [])
