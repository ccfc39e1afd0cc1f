"""The two tables of docs/explanation/delete-wins.md are what the rules do."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.core.pair import Remembered, confirm, join, state_of, verdict

if TYPE_CHECKING:
    from producers.contract.change import Op
    from worker.core.pair import PairState, Readd

PAGE = (Path(__file__).parents[3] / "docs" / "explanation" / "delete-wins.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ((?!changes that|a change after|---).+?) \| (.+?) \|$", PAGE, re.MULTILINE))

DAY = 1_795_460_400_000
NOW = DAY + 3_600_000


def at(clock: str) -> int:
    hour, minute = clock.split(":")
    return DAY + (int(hour) * 60 + int(minute)) * 60_000


def changes(words: str) -> PairState:
    """The state of changes such as `upsert 10:00, delete`, appended in this order."""
    found: list[tuple[Op, str]] = re.findall(r"(upsert|delete)(?: (\d\d:\d\d))?", words)
    states = [state_of(op, at(clock) if clock else 0, NOW + i) for i, (op, clock) in enumerate(found)]
    return reduce(join, states)


def sent(state: PairState, readd: Readd = "resend") -> list[str]:
    """The ops of the records, each confirmed before the next."""
    ops: list[str] = []
    ledger: Remembered | None = None
    left: PairState | None = state
    while left is not None:
        now = verdict(left, ledger, readd)
        if now.op is None:
            break
        ops.append(now.op)
        ledger = confirm(ledger, now)
        left = now.rest
    return ops


WAITING = [
    ("upsert, upsert", ["upsert, upsert"], "one upsert", ["upsert"]),
    ("upsert 10:00, delete 10:05", ["upsert 10:00, delete 10:05"], "one delete", ["delete"]),
    ("delete 10:05, upsert 10:00 (arrives late)", ["delete 10:05, upsert 10:00"], "one delete", ["delete"]),
    ("delete 10:05, upsert 10:05", ["delete 10:05, upsert 10:05"], "one delete", ["delete"]),
    (
        "upsert and delete, either without a time",
        ["upsert, delete 10:05", "upsert 10:06, delete", "upsert, delete", "delete 10:05, upsert"],
        "one delete",
        ["delete"],
    ),
    (
        "delete 10:05, upsert 10:06",
        ["delete 10:05, upsert 10:06", "upsert 10:06, delete 10:05"],
        "a delete; after its confirmation, in a later request, an upsert",
        ["delete", "upsert"],
    ),
]
AFTERWARDS = [
    (
        "upsert 10:04, after a delete of 10:05 was confirmed",
        "dropped as stale, counted",
        "delete 10:05",
        "upsert 10:04",
    ),
    (
        "delete 10:04, after an upsert of 10:05 was confirmed",
        "dropped as stale, counted",
        "upsert 10:05",
        "delete 10:04",
    ),
]


@pytest.mark.parametrize(("row", "examples", "end", "ops"), WAITING, ids=[row for row, *_ in WAITING])
def test_what_waits_together_is_sent_as_the_table_says(row: str, examples: list[str], end: str, ops: list[str]) -> None:
    assert ROWS[row] == end
    for each in examples:
        assert sent(changes(each)) == ops


def test_with_absorb_a_later_upsert_is_not_sent() -> None:
    assert ROWS["the same with `CONTACT_SYNC_READD=absorb`"] == "one delete"
    assert sent(changes("delete 10:05, upsert 10:06"), "absorb") == ["delete"]


@pytest.mark.parametrize(("row", "end", "first", "late"), AFTERWARDS, ids=[row for row, *_ in AFTERWARDS])
def test_what_comes_after_a_confirmation_ends_as_the_table_says(row: str, end: str, first: str, late: str) -> None:
    assert ROWS[row] == end
    ledger = confirm(None, verdict(changes(first), None, "resend"))
    found = verdict(changes(late), ledger, "resend")
    assert (found.op, found.stale) == (None, 1)


@pytest.mark.parametrize("op", ["upsert", "delete"])
def test_a_change_without_a_time_counts_as_new(op: str) -> None:
    assert ROWS["anything without a time"] == "counts as new"
    for first in ("upsert 10:05", "delete 10:05"):
        ledger = confirm(None, verdict(changes(first), None, "resend"))
        assert verdict(changes(op), ledger, "resend").op == op


def test_every_row_is_tried() -> None:
    tried = {row for row, *_ in [*WAITING, *AFTERWARDS]}
    assert ROWS.keys() == tried | {"the same with `CONTACT_SYNC_READD=absorb`", "anything without a time"}
