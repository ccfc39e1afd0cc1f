"""The oracle can fail: of each invariant a history that breaks it, beside a legal one that comes close."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.proof.history import Change, DeadLetter, History, Left, Paced, Sent
from tests.proof.oracle import duplicates, judge

if TYPE_CHECKING:
    from producers.contract.change import Op

T = 1_795_460_000_000
PAIR = ("1", "9")
HOUR = 3_600_000


def said(op: str, after_ms: int, at: int | None = None, **more: Any) -> Change:
    """A change accepted so long after T; `at` counts from T too."""
    stamp = None if at is None else T + at
    owner, contact = more.pop("pair", PAIR)
    return Change(f"{T + after_ms}-0", 0, owner, contact, op, stamp, **more)


def sent(number: int, after_ms: int, *ops: Op, **more: Any) -> Sent:
    """A request of one record of the pair, confirmed and settled at once."""
    begun = T + after_ms
    given: dict[str, Any] = {
        "outcome": "confirmed",
        "settled": frozenset({0}),
        "ended_ms": begun + 1,
        "applied": number,
    }
    given |= {"records": tuple((*PAIR, op) for op in ops)} | more
    return Sent(number, built_ms=begun, begun_ms=begun, **given)


READ_ALL = {0: (f"{T + 49}-0", "")}
READ_BOTH = {0: (f"{T + 9}-0", f"{T + 9}-0")}
FAILED: dict[str, Any] = {"outcome": "failed", "applied": None}
UNSETTLED: dict[str, Any] = {"settled": frozenset()}


def letter(op: str, after_ms: int, at: int | None, **more: Any) -> DeadLetter:
    since = T + after_ms
    fields: dict[str, Any] = {"id": "0-1", "partition": 0, "reason": "refused", "entry": None, "since_ms": since} | more
    return DeadLetter(owner=PAIR[0], contact=PAIR[1], op=op, at=None if at is None else T + at, **fields)


def history(*events: Change | Sent | DeadLetter, held: bool, **more: Any) -> History:
    """A healed run whose totals add up, unless given otherwise."""
    changes = [each for each in events if isinstance(each, Change)]
    requests = [each for each in events if isinstance(each, Sent)]
    letters = [each for each in events if isinstance(each, DeadLetter)]
    confirmed = sum(len(each.records) for each in requests if each.outcome == "confirmed" and each.settled)
    confirmed -= more.pop("repairs", 0)
    events_of = len([each for each in changes if each.entry_id])
    totals = {
        "events": events_of,
        "records_confirmed": confirmed,
        "upserts_confirmed": confirmed,
        "dead_lettered": len(letters),
        "coalesced": max(0, events_of - confirmed - len(letters)),
    }
    given: dict[str, Any] = {"totals": totals | more.pop("totals", {}), "left": Left()} | more
    return History(changes, requests, letters, frozenset({PAIR} if held else ()), **given)


def kinds(of: History) -> list[str]:
    return [each.kind for each in judge(of)]


def repeated(*placed_ms: int, rate: float, from_ms: int = 0, in_hand: int = 0) -> History:
    """One change, which is sent again and again until the last request is confirmed."""
    last = len(placed_ms) - 1
    tries = [sent(n, 5 + ms, "upsert", placed_ms=ms, **({} if n == last else FAILED)) for n, ms in enumerate(placed_ms)]
    return history(said("upsert", 0, 0), *tries, held=True, paced=[Paced(from_ms, 9_000, rate, in_hand)])


SETTLED_LATER = {0: (f"{T + 3}-0", "")}
"""The settle of another request of those that say the same."""

EITHER: dict[str, Any] = {
    "adrift": True,
    "outcome": None,
    "settled": None,
    "settled_to": None,
    "perhaps_to": {0: [(f"{T + 3}-0", "")]},
}
"""A request of which nobody can say whether that settle is its own."""

READ_FIRST: dict[str, Any] = {"perhaps_to": {0: [(f"{T}-0", "")]}}


def resaid(**more: Any) -> History:
    """A producer says a delete again, and the first of two requests is taken for the one whose settle is kept."""
    first = {"settled_to": SETTLED_LATER} | more
    return history(
        *(said("delete", 0), said("delete", 3), sent(1, 2, "delete", **first), sent(2, 5, "delete", **more)),
        held=False,
    )


LEGAL = {
    "one of several equal requests around a failover": resaid(**EITHER),
    "nothing": history(held=False),
    "one upsert": history(said("upsert", 0, 0), sent(1, 5, "upsert"), held=True),
    "joined: the delete alone": history(said("upsert", 0, 0), said("delete", 1, 1), sent(1, 5, "delete"), held=False),
    "the later upsert in a later request": history(
        *(said("upsert", 0, 0), said("delete", 1, 1), said("upsert", 2, 2)),
        *(sent(1, 5, "delete"), sent(2, 9, "upsert")),
        held=True,
    ),
    "without at, the delete wins of what waits together": history(
        said("delete", 0), said("upsert", 1), sent(1, 5, "delete"), held=False
    ),
    "without at, the upsert is new after the confirmation": history(
        said("delete", 0), sent(1, 5, "delete"), said("upsert", 7), sent(2, 9, "upsert"), held=True
    ),
    "read one by one": history(
        said("delete", 0), said("upsert", 1), sent(1, 5, "delete"), sent(2, 9, "upsert"), held=True
    ),
    "stale, and nothing is sent": history(
        said("delete", 0, 0), sent(1, 5, "delete"), said("upsert", 7, -1), held=False
    ),
    "absorbed": history(said("delete", 0, 0), said("upsert", 1, 1), sent(1, 5, "delete"), held=False, readd="absorb"),
    "repeated until it is confirmed": history(
        said("upsert", 0, 0), sent(1, 5, "upsert", **FAILED), sent(2, 9, "upsert"), held=True
    ),
    "confirmed, not settled, and sent again": history(
        said("upsert", 0, 0), sent(1, 5, "upsert", **UNSETTLED), sent(2, 9, "upsert"), held=True
    ),
    "a retry built afresh": history(
        *(said("upsert", 0, 0), sent(1, 5, "upsert", **FAILED)),
        *(said("delete", 6, 6), sent(2, 9, "delete", whole=True)),
        held=False,
    ),
    "a late act, repaired": history(
        *(said("upsert", 0, 0), sent(1, 5, "upsert", outcome="failed", applied=3), said("delete", 6, 6)),
        *(sent(2, 9, "delete", applied=2), sent(3, 99, "delete", applied=4)),
        held=False,
        repairs=1,
    ),
    "a repair while what waits is parked": history(
        *(said("delete", 0, 0), sent(1, 5, "delete"), said("upsert", 6, 6), sent(2, 9, "upsert", **FAILED)),
        *(said("delete", 10, 5), sent(3, 12, "delete", settled_to=READ_ALL, **FAILED), sent(4, 50, "delete")),
        *(sent(5, 99, "delete"), sent(6, 101, "upsert")),
        held=True,
        repairs=1,
    ),
    "forgotten after the ledger's time": history(
        said("delete", 0, 0), sent(1, 5, "delete"), said("upsert", 2 * HOUR, -1), sent(2, 2 * HOUR, "upsert"), held=True
    ),
    "forgotten after the ledger's time, if the first of two confirmations was settled": history(
        *(said("delete", 0, 0), sent(1, 5, "delete", outcome=None, settled=None), sent(2, HOUR, "delete")),
        *(said("upsert", HOUR + 9, -1), sent(3, HOUR + 9, "upsert")),
        held=True,
        totals={"stale": 0, "coalesced": 0},
    ),
    "sent by a worker that had lost its lease": history(
        *(said("delete", 0, 0), said("upsert", 1, 1), sent(1, 5, "delete"), sent(2, 9, "upsert", ended_ms=T + 15)),
        Sent(3, ((*PAIR, "delete"),), T + 4, T + 10, T + 20, "confirmed", 3, frozenset()),
        sent(4, 50, "upsert"),
        held=True,
        repairs=1,
    ),
    "sent by a worker without its lease, that had read its log before a confirmation and the ledger after it": history(
        *(said("delete", 0, 0), said("upsert", 1), sent(1, 5, "delete", ended_ms=T + 15)),
        Sent(2, ((*PAIR, "upsert"),), T + 4, T + 20, T + 21, "confirmed", 2, frozenset()),
        sent(3, 50, "delete"),
        held=False,
        repairs=1,
    ),
    "done and not settled, and refused since": history(
        *(said("delete", 0), sent(1, 5, "delete", **UNSETTLED)),
        *(sent(2, 9, "delete", outcome="refused", applied=None), letter("delete", 9, None)),
        held=False,
    ),
    "dead, and the upsert known to be later on its own": history(
        *(said("delete", 0, 0), said("upsert", 1, 1), sent(1, 5, "delete", outcome="refused", applied=None)),
        *(letter("delete", 6, 0), sent(2, 9, "upsert")),
        held=True,
    ),
    "a copy whose reply was lost": history(
        *(said("upsert", 9, 0, perhaps_since_ms=T, perhaps=1), sent(1, 5, "upsert")),
        held=True,
    ),
    "beyond the promise": history(
        *(said("upsert", 0, 0), sent(1, 5, "upsert", outcome="failed", applied=3, beyond=True)),
        *(said("delete", 6, 6), sent(2, 9, "delete", applied=2)),
        held=True,
    ),
    "malformed, with its letter": history(
        said("", 0, malformed="bad_op"),
        letter("", 6, None, reason="bad_op", entry=f"{T}-0"),
        held=False,
    ),
    "the bulk lane read later, though it was said earlier": history(
        *(said("upsert", 0, 3, lane="bulk"), said("delete", 1, 1), sent(1, 5, "delete"), sent(2, 9, "upsert")),
        held=True,
    ),
    "an older bulk upsert after the delete, and nothing is sent": history(
        *(said("delete", 1, 1), sent(1, 5, "delete"), said("upsert", 0, 0, lane="bulk")), held=False
    ),
    "repeated as fast as the limit allows, with one burst": repeated(0, 1, 400, 600, 800, 999, 1_001, rate=5.0),
    "faster, while no limit was set": repeated(*range(20), rate=5.0, from_ms=30),
    "not over yet": history(
        said("upsert", 0, 0), held=False, healed=False, totals={"coalesced": 0}, left=Left(entries=1)
    ),
}

BROKEN = {
    "never sent": (history(said("upsert", 0, 0), held=False), "lost"),
    "the later upsert forgotten": (
        history(said("delete", 1, 1), said("upsert", 2, 2), sent(1, 5, "delete"), held=False),
        "lost",
    ),
    "confirmed, and the endpoint has it not": (
        history(said("upsert", 0, 0), sent(1, 5, "upsert"), held=False),
        "wrong_end",
    ),
    "a late act, not repaired": (
        history(
            *(said("upsert", 0, 0), sent(1, 5, "upsert", outcome="failed", applied=3)),
            *(said("delete", 6, 6), sent(2, 9, "delete", applied=2)),
            held=True,
        ),
        "wrong_end",
    ),
    "settled, and undone by none": (
        history(
            *(said("upsert", 0, 0), sent(1, 5, "upsert"), said("delete", 6, 6), sent(2, 9, "delete", applied=None)),
            *(said("upsert", 10, 10), sent(3, 12, "upsert", outcome="refused", applied=None), letter("upsert", 12, 10)),
            held=True,
        ),
        "wrong_end",
    ),
    "an older upsert after the delete": (
        history(said("delete", 0, 0), sent(1, 5, "delete"), said("upsert", 7, -1), sent(2, 9, "upsert"), held=True),
        "resurrected",
    ),
    "a backfilled upsert after a delete without at": (
        history(said("delete", 0), sent(1, 5, "delete"), said("upsert", 7, 0), sent(2, 9, "upsert"), held=True),
        "resurrected",
    ),
    "an older delete after the upsert": (
        history(said("upsert", 0, 0), sent(1, 5, "upsert"), said("delete", 7, -1), sent(2, 9, "delete"), held=False),
        "order",
    ),
    "a delete again instead of the later upsert": (
        history(
            *(said("delete", 0, 0), sent(1, 5, "delete"), said("delete", 10, 5), said("upsert", 11, 6)),
            *(sent(2, 50, "delete", settled_to=READ_ALL), sent(3, 99, "delete"), sent(4, 101, "upsert")),
            held=True,
        ),
        "order",
    ),
    "the upsert before the delete that it is later than": (
        history(
            *(said("delete", 0, 0), sent(1, 5, "delete", **FAILED), said("upsert", 6, 6)),
            sent(2, 9, "upsert", whole=True),
            held=True,
        ),
        "order",
    ),
    "a failed body replayed over newer knowledge": (
        history(
            *(said("upsert", 0, 0), sent(1, 5, "upsert", **FAILED), said("delete", 6, 6)),
            sent(2, 9, "upsert", whole=True),
            held=True,
        ),
        "order",
    ),
    "absorb, and yet sent again": (
        history(
            *(said("delete", 0, 0), said("upsert", 1, 1), sent(1, 5, "delete", whole=True)),
            sent(2, 9, "upsert"),
            held=True,
            readd="absorb",
        ),
        "resurrected",
    ),
    "redriven over newer knowledge, however long it lay": (
        history(
            *(said("upsert", 0, 0), sent(1, 5, "upsert", outcome="refused", applied=None)),
            letter("upsert", 6, 0, gone_ms=T + 9 * HOUR),
            *(said("delete", HOUR, HOUR), sent(2, HOUR + 5, "delete")),
            *(said("upsert", 9 * HOUR, 0), sent(3, 9 * HOUR + 5, "upsert")),
            held=True,
        ),
        "resurrected",
    ),
    "a pair twice": (
        history(said("upsert", 0, 0), sent(1, 5, "upsert", "upsert"), held=True, totals={"coalesced": -1}),
        "illegal_request",
    ),
    "a delete before an upsert": (
        history(
            *(said("delete", 0, 0), said("upsert", 0, 0, pair=("1", "8"))),
            sent(1, 5, records=((*PAIR, "delete"), ("1", "8", "upsert"))),
            held=False,
        ),
        "illegal_request",
    ),
    "more records than a batch": (
        history(
            *(said("upsert", 0, 0), said("delete", 0, 0, pair=("1", "8"))),
            sent(1, 5, records=((*PAIR, "upsert"), ("1", "8", "delete"))),
            held=True,
            batch_size=1,
        ),
        "illegal_request",
    ),
    "a record that nobody asked for": (
        history(said("upsert", 0, 0), sent(1, 5, "upsert"), sent(2, 9, records=(("7", "7", "upsert"),)), held=True),
        "illegal_request",
    ),
    "more requests in a second than the limit allows": (
        repeated(0, 1, 400, 600, 700, 800, 900, 950, rate=5.0),
        "rate",
    ),
    "the same although three may be in hand": (repeated(*range(0, 990, 90), rate=5.0, in_hand=3), "rate"),
    "a settle of what had not been read": (resaid(), "order"),
    "an upsert that no settle which may be the request's has read": (
        history(said("delete", 0), said("upsert", 3), sent(1, 5, "delete", **(EITHER | READ_FIRST)), held=False),
        "lost",
    ),
    "a settle of what had not been read, around a failover": (resaid(adrift=True), "order"),
    "the lane decides the end": (
        history(
            *(said("delete", 1, 1), said("upsert", 2, 2, lane="bulk"), sent(1, 5, "delete", settled_to=READ_BOTH)),
            held=False,
        ),
        "lost",
    ),
    "an older bulk upsert after the delete": (
        history(
            *(said("delete", 0, 1), sent(1, 5, "delete"), said("upsert", 7, 0, lane="bulk"), sent(2, 9, "upsert")),
            held=True,
        ),
        "resurrected",
    ),
    "a letter lost": (history(said("", 0, malformed="bad_op"), held=False, totals={"coalesced": 1}), "dead_letters"),
    "a letter twice": (
        history(
            said("", 0, malformed="bad_op"),
            *(letter("", 6, None, id=each, reason="bad_op", entry=f"{T}-0") for each in ("0-1", "0-2")),
            held=False,
            totals={"events": 2},
        ),
        "dead_letters",
    ),
    "a letter with another reason": (
        history(said("", 0, malformed="bad_op"), letter("", 6, None, reason="bad_at", entry=f"{T}-0"), held=False),
        "dead_letters",
    ),
    "refused, and no letter": (
        history(
            *(said("upsert", 0, 0), sent(1, 5, "upsert", outcome="refused", applied=None)),
            held=False,
            totals={"coalesced": 1},
        ),
        "lost",
    ),
    "refused once, two letters": (
        history(
            *(said("upsert", 0, 0), sent(1, 5, "upsert", outcome="refused", applied=None)),
            *(letter("upsert", 6, 0), letter("upsert", 6, 0, id="0-2")),
            held=False,
            totals={"dead_lettered": 2, "events": 1, "coalesced": -1},
        ),
        "dead_letters",
    ),
    "a letter of what nobody said": (
        history(
            *(said("upsert", 0, 0), sent(1, 5, "upsert", outcome="refused", applied=None)),
            letter("upsert", 6, 77),
            held=False,
        ),
        "dead_letters",
    ),
    "an entry counted twice": (
        history(said("upsert", 0, 0), sent(1, 5, "upsert"), held=True, totals={"events": 2, "coalesced": 1}),
        "totals",
    ),
    "an end missing": (
        history(
            *(said("upsert", 0, 0), said("upsert", 1, 1)), sent(1, 5, "upsert"), held=True, totals={"coalesced": 0}
        ),
        "totals",
    ),
    "something left over": (
        history(said("upsert", 0, 0), sent(1, 5, "upsert"), held=True, left=Left(pending=1)),
        "left_over",
    ),
    "more waits than there is": (
        history(said("upsert", 0, 0), sent(1, 5, "upsert"), held=True, peak_pending={0: 2}),
        "left_over",
    ),
}


@pytest.mark.parametrize("of", LEGAL.values(), ids=LEGAL)
def test_a_legal_history_passes(of: History) -> None:
    assert [str(each) for each in judge(of)] == []


@pytest.mark.parametrize(("of", "kind"), BROKEN.values(), ids=BROKEN)
def test_a_broken_invariant_is_named(of: History, kind: str) -> None:
    assert kind in kinds(of)


def test_a_violation_names_the_pair_and_tells_its_story() -> None:
    of, _ = BROKEN["an older upsert after the delete"]
    (violation,) = judge(of)
    assert violation.pair == PAIR
    assert str(violation).splitlines() == [
        "resurrected of 1 -> 9: request 2 says upsert, where the contract says nothing",
        f"    accepted delete at {T} as {T}-0",
        f"    {T + 5} request 1 says delete: confirmed, took effect as number 1, settled",
        f"    accepted upsert at {T - 1} as {T + 7}-0",
        f"    {T + 9} request 2 says upsert: confirmed, took effect as number 2, settled",
        "    the endpoint ends with upsert",
    ]


def test_without_knowing_what_was_settled_a_crash_may_explain_a_repetition_but_no_resurrection() -> None:
    unknown: dict[str, Any] = {"settled": None}
    again = history(said("upsert", 0, 0), sent(1, 5, "upsert", **unknown), sent(2, 9, "upsert", **unknown), held=True)
    assert judge(replace(again, totals=LEGAL["one upsert"].totals)) == []
    older = said("upsert", 7, -1)
    back = history(
        said("delete", 0, 0), sent(1, 5, "delete", **unknown), older, sent(2, 9, "upsert", **unknown), held=True
    )
    assert kinds(replace(back, totals=LEGAL["stale, and nothing is sent"].totals)) == ["resurrected"]


def test_repeated_records_are_counted_by_what_became_of_the_one_before() -> None:
    assert duplicates(LEGAL["repeated until it is confirmed"]) == {"failed": 1}
    assert duplicates(LEGAL["confirmed, not settled, and sent again"]) == {"confirmed": 1}
    assert duplicates(LEGAL["a retry built afresh"]) == {}
