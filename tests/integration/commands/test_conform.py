"""``contact-sync conform``: each rule that a producer breaks is named, and the reader's verdict is the command's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, T
from worker.admin.conform import ADVICE, RULES, faults
from worker.core.entry import Malformed, read_entry

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

GOOD = {"owner": "1", "contact": "9", "op": "upsert", "at": str(T)}


def test_what_our_own_producer_writes_conforms(fleet: Fleet) -> None:
    fleet.producer().send([{"owner": str(n), "contact": "é", "op": "delete", "source": "crm"} for n in range(50)])
    ran = run(fleet, "conform")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.count("ok ") == len(RULES) + len(ADVICE)
    assert told(fleet, "conform")["conform"] == 50


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("owner", {**GOOD, "owner": "a\n"}),
        ("contact", {**GOOD, "contact": "x" * 257}),
        ("op", {**GOOD, "op": "update"}),
        ("at", {**GOOD, "at": str(T // 1000)}),
        ("at", {**GOOD, "at": str(2 * T)}),
        ("at", {**GOOD, "at": "now"}),
        ("partition", {**GOOD, "owner": "2"}),
        ("stamped", {name: value for name, value in GOOD.items() if name != "at"}),
        ("source", {**GOOD, "source": "x" * 65}),
        ("traceparent", {**GOOD, "traceparent": "00"}),
        ("known", {**GOOD, "colour": "blue"}),
    ],
)
def test_a_rule_that_is_broken_is_named_and_only_advice_passes(rule: str, fields: dict[str, str], fleet: Fleet) -> None:
    p = fleet.partition("1")
    entry = fleet.append_raw(p, fields)
    ran = run(fleet, "conform", "--partition", str(p))
    assert ran.exit_code == (1 if rule in RULES else 0)
    assert entry in ran.stdout
    by_rule = told(fleet, "conform")["rules"]
    assert rule in {name for name, each in by_rule.items() if each["wrong"]}
    flat = [part.encode() for pair in fields.items() for part in pair]
    malformed = isinstance(read_entry(entry.encode(), flat, p, PARTITIONS), Malformed)
    assert malformed == bool(RULES.keys() & faults(entry.encode(), flat, p, PARTITIONS).keys())


def test_a_field_that_stands_twice_is_named(fleet: Fleet) -> None:
    p = fleet.partition("1")
    flat = [part for pair in GOOD.items() for part in pair]
    fleet.client.execute_command("XADD", fleet.keys.events(p), "*", *flat, "op", "upsert")
    assert told(fleet, "conform")["rules"]["once"]["wrong"][0]["fault"] == "op"


def test_an_empty_log_and_a_partition_that_is_none_are_said(fleet: Fleet) -> None:
    assert run(fleet, "conform").exit_code == 1
    assert "the log has no entries" in run(fleet, "conform").stderr
    assert run(fleet, "conform", "--partition", str(PARTITIONS)).exit_code == 2


def test_the_bulk_lane_is_checked_too_and_needs_at(fleet: Fleet) -> None:
    log = fleet.keys.bulk(fleet.partition("1"))
    fleet.client.xadd(log, dict(GOOD))
    assert told(fleet, "conform")["conform"] == 1
    fleet.client.xadd(log, {name: value for name, value in GOOD.items() if name != "at"})
    found = told(fleet, "conform")
    assert (found["entries"], found["conform"]) == (2, 1)
