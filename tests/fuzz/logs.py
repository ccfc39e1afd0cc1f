"""Logs of one partition: joined entry by entry, on the fast path and object by object; then judged and settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from producers.contract.keys import PAIR_SEPARATOR
from tests.fuzz.target import T, Target, entry_ms_of, in_twos
from tests.support.by_the_rules import by_the_rules
from worker.core.batch import fill
from worker.core.codec import Mark, encode_remembered
from worker.core.pair import Remembered, state_of
from worker.core.settlement import BatchResult, settlement
from worker.core.slice import PartitionSlice, coalesce_prefix

if TYPE_CHECKING:
    from producers.contract.change import Lane
    from worker.core.settlement import Settlement

_FATES: Final = ("confirmed", "refused", "suspect", "kept")
_LEDGER: Final = (None, Remembered("delete", T, 0), Remembered("upsert", 0, T), Remembered("delete", T - 1, T + 1))
_PENDING: Final = (None, state_of("delete", 0, T - 5), state_of("upsert", T + 1, T)._replace(suspect=2))
_MARKS: Final = (None, Mark(T, 0), Mark(0, T + 9))

Raw = list[list[Any]]


def _log_of(blocks: list[bytes]) -> Raw:
    """Entries in the order of their ids, as a stream has them."""
    lines = [each.split(b"\n") for each in blocks[:24]]
    timed = sorted(((entry_ms_of(first), in_twos(rest)) for first, *rest in lines), key=lambda each: each[0])
    return [[b"%d-%d" % (ms, i), flat] for i, (ms, flat) in enumerate(timed)]


def _twos(flat: list[bytes]) -> set[tuple[bytes, bytes]]:
    return set(zip(flat[::2], flat[1::2], strict=True))


def _what_moves(into: Settlement) -> tuple[Any, ...]:
    """A settlement, without the order that it has by chance."""
    return (
        into.position,
        _twos(into.ledger),
        [_twos(each) for each in into.keep],
        [{*each} for each in into.drop],
        _twos(into.clear),
        sorted(into.letters),
        sorted(into.late, key=str),
        +into.totals,
    )


def run(data: bytes) -> str:
    """A block of options, then a block for each entry: its id, fields and values, a line each; blank lines between."""
    options, *blocks = data.split(b"\n\n")
    drawn = [*options[:16], *b"\0" * 16]
    lane: Lane = "bulk" if drawn[0] & 1 else "live"
    room, letters = drawn[1] % 8, drawn[2] % 8
    raw = _log_of(blocks)
    states, malformed, taken = by_the_rules(raw, room, 1, lane, letters)
    both = [coalesce_prefix(raw, 0, 1, room, fast=fast, lane=lane, letters=letters) for fast in (True, False)]
    for log in both:
        assert (log.entries, log.malformed, log.pairs) == (taken, malformed, len(states)), "the paths differ"
        assert {*log.each_pair()} == {*states}, "the paths differ"
    assert both[1].states == states, "the paths differ"
    parts = []
    for log in both:
        beside: dict[str, dict[bytes, Any]] = {"ledger": {}, "pending": {}, "marks": {}}
        for i, pair in enumerate(sorted(states)):
            known = _LEDGER[drawn[3 + i] % len(_LEDGER)]
            waits = _PENDING[(drawn[3 + i] >> 2) % len(_PENDING)]
            mark = _MARKS[(drawn[3 + i] >> 4) % len(_MARKS)]
            if known is not None:
                beside["ledger"][pair] = encode_remembered(known)
            if waits is not None:
                beside["pending"][pair] = waits
            if mark is not None:
                beside["marks"][pair] = (b"%d,%d" % mark, mark)
        part = PartitionSlice(0, log, **beside, classes=dict.fromkeys(beside["pending"], 1), late_to_ms=T)  # type: ignore[arg-type] # by name
        part.judge("resend", T + 2)
        parts.append(part)
    batches = [fill([part], 64, doubtful=False) for part in parts]
    assert batches[0].chosen == batches[1].chosen
    assert ({*batches[0].upserts}, {*batches[0].deletes}) == ({*batches[1].upserts}, {*batches[1].deletes})
    for batch in batches:
        said = orjson.loads(batch.body())["contacts"]
        pairs = [(each["ownerXCUserID"], each["contactXCUserID"]) for each in said]
        assert len({*pairs}) == len(pairs) == batch.records, "a pair stands twice in a request"
        every = {PAIR_SEPARATOR.join((owner.encode(), contact.encode())) for owner, contact in pairs}
        assert every == {*batch.upserts, *batch.deletes}
    result = BatchResult(_FATES[drawn[0] >> 1 & 3], T + 2, T + 3, suspect=2)
    moves = [
        _what_moves(settlement(part, batch.chosen[0], batch.repairs[0], result))
        for part, batch in zip(parts, batches, strict=True)
    ]
    assert moves[0] == moves[1], "the paths settle differently"
    for letter in moves[0][5]:
        orjson.loads(letter) if letter.startswith(b"{") else None
    return "blocked" if both[0].blocked else "part" if both[0].more else "whole"


_ENTRY: Final = b"\n\n%d-0\nowner\n1\ncontact\n2\nop\n" % T

TARGET: Final = Target(
    "logs",
    "a log of one partition, and what is known of its pairs",
    run,
    frozenset({"whole", "part", "blocked"}),
    [
        b"\0\x07\x07" + _ENTRY + b"upsert\nat\n%d" % T + _ENTRY + b"delete",
        b"\0\x07\x07\x01\x02" + _ENTRY + b"delete\nat\n%d" % (T - 1) + _ENTRY + b"upsert\nsource\ncrm",
        b"\x03\x01\x00" + _ENTRY + b"upsert\nat\n%d" % T + b"\n\n%d\nowner\n3\ncontact\n4\nop\ndelete\nat\n%d" % (T, T),
        b"\x01\x01\x00" + _ENTRY + b"upsert",
        b"\x04\x07\x07" + _ENTRY + b"\xff" + _ENTRY + b"upsert\nat\n%d\nat\n1" % T,
    ],
    [b"\n\nowner\n", b"\ncontact\n", b"\nop\n", b"\nat\n", b"\nsource\n", b"upsert", b"delete", b"%d" % T, b"\n\n"],
    1024,
)
