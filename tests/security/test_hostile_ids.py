"""Ids with quotes, markup or control characters harm neither request, log, terminal nor keys."""

from __future__ import annotations

import json

import pytest

from tests.support.commands import run, told
from tests.support.fleet import Fleet, T

HOSTILE = [
    *(
        '"',
        "'",
        "\\",
        "<script>alert(1)</script>",
        "]}",
        '","isDeleted":true,"x":"',
        "[red]x[/red]",
        "%s%n",
        "{0}",
        "$(id)",
    ),
    *("{7}:events", "*", "a b", "-", "--help", "\u202egnp", "\ufeff", "\U0001f600", "a" * 256, "\u2028"),
]
BROKEN = ["\r\n", "a\nSET x y", "\x1f", "\x1b[2J", "\x00", "\x85", ""]


def test_odd_ids_arrive_as_they_are(fleet: Fleet) -> None:
    for each in HOSTILE:
        fleet.append(each, each[::-1], "upsert", T)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {(each, each[::-1]) for each in HOSTILE}
    for each in HOSTILE:
        assert json.loads(run(fleet, "explain", "--json", "--", each, each[::-1]).stdout)


@pytest.mark.parametrize("odd", BROKEN)
def test_ids_that_break_the_rules_become_letters_that_steer_no_terminal(fleet: Fleet, odd: str) -> None:
    fleet.append_raw(0, {"owner": odd, "contact": odd, "op": "upsert"})
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    (letter,) = told(fleet, "dead-letters", "list")
    for line in (("list",), ("show", letter["id"])):
        shown = run(fleet, "dead-letters", *line).stdout
        assert not set(shown) & (set("\x00\x1b\x1f\x85\r"))
