"""The demo's judgement: right is only what is right in every way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.snapshot import idle_status
from worker.demo.numbers import Numbers
from worker.demo.summary import Summary, summarize
from worker.standin.views import Counts

A, B = ("1", "a"), ("1", "b")
ENDS = {"events": 10, "records_confirmed": 4, "coalesced": 3, "superseded": 1, "stale": 2}


def numbers(totals: dict[str, int] | None = None, **counts: int) -> Numbers:
    zero: dict[str, Any] = dict.fromkeys(Counts.__annotations__, 0) | {"statuses": {}, "codes": {}, "faults": {}}
    counted: Any = zero | {"requests": 2} | counts
    status = idle_status(totals=ENDS | (totals or {}))
    return Numbers(10, status, 0, counted)


def judged(**changed: Any) -> Summary:
    given: dict[str, Any] = {
        "seconds": 12.34,
        "kinds": Counter(flickers=7),
        "pairs": {A, B},
        "expected": {A},
        "actual": {A},
        "numbers": numbers(),
        "workers_killed": 1,
        "unfinished": [],
    }
    return summarize(**given | changed)


def test_where_the_endpoint_holds_what_it_must_all_is_right() -> None:
    assert judged().ok
    assert judged().wrong_pairs == 0


@pytest.mark.parametrize("actual", [set(), {A, B}, {B}])
def test_a_contact_that_is_missing_or_too_many_is_wrong(actual: set[tuple[str, str]]) -> None:
    assert not judged(actual=actual).ok
    assert judged(actual=actual).wrong_pairs == len(actual ^ {A})


@pytest.mark.parametrize(
    "wrong",
    [
        {"unfinished": ["1 pair is not confirmed"]},
        {"numbers": numbers({"dead_lettered": 1, "stale": 1})},
        {"numbers": numbers({"events": 9, "stale": 1})},
        {"numbers": numbers(pair_twice=1)},
        {"numbers": numbers(upsert_after_delete=1)},
    ],
    ids=["unfinished", "a dead letter", "a change unaccounted for", "a pair twice", "an upsert after a delete"],
)
def test_nothing_else_may_be_wrong_either(wrong: dict[str, Any]) -> None:
    assert judged(**wrong).wrong_pairs == 0
    assert not judged(**wrong).ok


def test_its_json_says_by_name_what_its_rows_say_in_words() -> None:
    said = judged().as_json()
    assert said["ok"] is True
    assert said["changes_per_request"] == 5.0
    assert said["faults"] == {"worker_killed": 1}
    rows = {name: number for name, number, _ in judged().rows()}
    assert rows["changes"] == "10"
    assert rows["joined"] == "4"
    assert rows["wrong pairs"] == "0"
