"""The page offers every reason of a dead letter as a filter: those that the core gives, and that the docs explain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from producers.contract.change import ID_MAX_BYTES, partition_of
from worker.core.entry import Malformed, read_entry
from worker.core.reasons import OF_RECORDS, REASONS

if TYPE_CHECKING:
    from producers.contract.change import Lane

ROOT = Path(__file__).parents[3]
NOW = 1_795_460_847_757
PARTITIONS = 2
GOOD = {b"owner": b"1", b"contact": b"2", b"op": b"upsert", b"at": b"%d" % NOW}
OWNERS_PARTITION = partition_of(b"1", PARTITIONS)


def reason_of(
    flat: list[bytes], partition: int = OWNERS_PARTITION, lane: Lane = "live", id_max: int = ID_MAX_BYTES
) -> str:
    found = read_entry(b"%d-0" % NOW, flat, partition, PARTITIONS, lane, id_max)
    assert isinstance(found, Malformed)
    return found.reason


def flat(**changed: bytes | None) -> list[bytes]:
    fields = GOOD | {name.encode(): value for name, value in changed.items()}
    return [part for name, value in fields.items() if value is not None for part in (name, value)]


def reasons_of_the_core() -> list[str]:
    return [
        *OF_RECORDS,
        *(reason_of(flat(**{name: None})) for name in ("owner", "contact", "op")),
        *(reason_of(flat(**{name: b""})) for name in ("owner", "contact", "op", "at")),
        reason_of(flat(at=None), lane="bulk"),
        reason_of(flat(contact=b"22"), id_max=1),
        reason_of(flat(at=b"1")),
        *(reason_of([*flat(), name, GOOD[name]]) for name in GOOD),
        reason_of(flat(owner=None, data=b"no JSON")),
        reason_of([b"unmapped", b"{}"]),
        reason_of(flat(), partition=1 - OWNERS_PARTITION),
    ]


def reasons_of_the_page() -> list[str]:
    script = (ROOT / "worker" / "serve" / "page" / "page.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^const REASONS = \[(.*?)\];", script, re.DOTALL | re.MULTILINE)
    return re.findall(r'"([a-z_]+)"', listed)


def reasons_of_the_docs() -> list[str]:
    text = (ROOT / "docs" / "reference" / "dead-letter-reasons.md").read_text(encoding="utf-8")
    (table,) = re.findall(
        r"^\| reason \| means \| do \|\n\| --- .*\n((?:\| `(?:refused|buried|unmapped|[a-z]+_).*\n)+)",
        text,
        re.MULTILINE,
    )
    return [reason for row in table.splitlines() for reason in re.findall(r"`([a-z_]+)`", row.split("|")[1])]


def test_the_core_names_every_reason_that_it_gives() -> None:
    assert sorted(reasons_of_the_core()) == sorted(REASONS)


def test_the_page_offers_every_reason_once() -> None:
    offered = reasons_of_the_page()
    assert sorted(offered) == sorted(REASONS)
    assert len(set(offered)) == len(offered)


def test_the_docs_explain_every_reason_that_the_page_offers() -> None:
    assert sorted(reasons_of_the_docs()) == sorted(reasons_of_the_page())
