"""What is written in Redis is read back as it was, and the scripts find in it what they look for."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.contract.change import SOURCE_MAX_BYTES
from worker.core.codec import (
    DeadPair,
    Mark,
    Unreadable,
    decode_dead_pair,
    decode_mark,
    decode_parked,
    decode_remembered,
    decode_state,
    encode_remembered,
    encode_state,
)
from worker.core.pair import PairState, Refused, Remembered, Side

if TYPE_CHECKING:
    from collections.abc import Callable

    from producers.contract.change import Op

T = 1_795_460_847_757

times = st.one_of(st.just(0), st.integers(T - 10**12, T + 10**6), st.integers(10**12, 10**14))
# Any text without control characters, commas and all that stands for something in the stored form in particular.
sources = st.one_of(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=16),
    st.text(",;?du-0123é\u2028", max_size=16),
).map(str.encode)
sides = st.builds(Side, st.integers(1, 10**14), times, times, sources.filter(lambda raw: len(raw) <= SOURCE_MAX_BYTES))
maybe = st.one_of(st.none(), sides)
codes = st.sampled_from(["", "40401", "unknown"])
refused = st.one_of(st.none(), st.builds(Refused, times, st.integers(1, 10**6), codes, codes))
states = st.builds(PairState, maybe, maybe, st.integers(-100, 10_000), refused).filter(lambda state: state.live > 0)
remembered = st.builds(Remembered, st.sampled_from(["upsert", "delete"]), times, times)


@given(states)
def test_a_state_is_read_back_as_it_was_written(state: PairState) -> None:
    assert decode_state(encode_state(state)) == state


@given(states)
def test_the_settle_script_finds_the_oldest_time_in_a_stored_state(state: PairState) -> None:
    # `settle.lua` looks for these two places; what it takes for a time must be the state's own.
    found = re.findall(rb"(?:^|\x1f)[du](\d+)", encode_state(state))
    assert min(int(each) for each in found) == state.first_ms


@given(remembered)
def test_a_ledger_entry_is_read_back_as_it_was_written(known: Remembered) -> None:
    assert decode_remembered(encode_remembered(known)) == known


@given(st.integers(0, 10**14), st.integers(0, 10**14))
def test_a_late_mark_is_read_as_the_script_writes_it(upsert: int, delete: int) -> None:
    mark = decode_mark(b"%d,%d" % (upsert, delete))
    assert mark == Mark(upsert, delete)
    assert mark.until_ms == max(upsert, delete)


@given(st.integers(1, 10_000), st.one_of(st.none(), remembered))
def test_what_is_known_of_a_pair_with_dead_letters_is_read_as_the_script_writes_it(
    letters: int, known: Remembered | None
) -> None:
    value = b"%d;%b" % (letters, encode_remembered(known) if known else b"")
    assert decode_dead_pair(value) == DeadPair(letters, known)


@pytest.mark.parametrize(
    ("mark", "op", "differs"),
    [
        (Mark(T, 0), "upsert", False),
        (Mark(T, 0), "delete", True),
        (Mark(0, T), "upsert", True),
        (Mark(0, T), "delete", False),
        (Mark(T, T), "upsert", True),
        (Mark(T, T), "delete", True),
    ],
)
def test_a_mark_differs_from_an_op_if_a_request_of_the_other_may_have_acted(mark: Mark, op: Op, differs: bool) -> None:  # noqa: FBT001 - a column of the table above
    assert mark.differs_from(op) is differs


def test_a_waiting_pair_costs_few_bytes() -> None:
    # contract.md, section 4: memory in an outage is bounded by pairs; these are what one of them costs.
    assert encode_state(PairState(None, Side(T, T - 3, 0))) == b"u1795460847757,-3"
    assert encode_state(PairState(Side(T, 0, T), None)) == b"d1795460847757,,0"
    assert encode_state(PairState(Side(T, T, 0), Side(T + 2, 0, T + 2, b"a,b"), 4)) == (
        b"d1795460847757,0\x1fu1795460847759,,0,a,b\x1f?4"
    )
    assert encode_remembered(Remembered("upsert", 0, T)) == b"u,1795460847757"


@pytest.mark.parametrize("value", [b"", b"1,2", b"x,1", b"d1;2"])
def test_what_nobody_of_ours_wrote_is_refused_as_a_value(value: bytes) -> None:
    with pytest.raises(Unreadable, match=r"^a value in NAMESPACE:{P}:ledger:new or "):
        decode_remembered(value)


@pytest.mark.parametrize("decode", [decode_state, decode_parked, decode_remembered, decode_mark, decode_dead_pair])
@pytest.mark.parametrize("stored", [b"", b"abc", b"\xff", b"dx", b"u1,x", b"!1", b"?", b"1;x", b"x,1"])
def test_what_something_else_wrote_is_told_in_one_line_that_repeats_nothing(
    decode: Callable[[bytes], object], stored: bytes
) -> None:
    with suppress(Unreadable):
        decode(stored)  # some of them are what another decoder reads
    with pytest.raises(Unreadable, match=r"^a value in NAMESPACE:{P}:.+ cannot be read: .+ \(HDEL\)$") as told:
        decode(b"secret-owner")
    assert "secret" not in str(told.value)
