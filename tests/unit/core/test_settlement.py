"""What moves in one partition by what became of a batch, and that no change is ever lost from the totals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.batch import fill
from worker.core.codec import DeadPair, Mark, decode_remembered, decode_state, encode_remembered
from worker.core.counters import times
from worker.core.entry import pair_of
from worker.core.lane import CLASSES, class_of
from worker.core.pair import PairState, Remembered, join, join_remembered, state_of
from worker.core.settlement import BatchResult, Refusal, Settlement, settlement
from worker.core.slice import LogPrefix, PartitionSlice, coalesce_prefix

if TYPE_CHECKING:
    from producers.contract.change import Op
    from worker.core.pair import Readd
    from worker.core.settlement import Fate

T = 1_795_460_847_757
PAIR = pair_of(b"1", b"2")
REFUSAL = Refusal("40002", "103", "Param 'contactXCUserID' is invalid")

ops: list[Op] = ["upsert", "delete"]
fates: list[Fate] = ["confirmed", "refused", "suspect", "kept"]
modes: list[Readd] = ["resend", "absorb"]
stamps = st.one_of(st.just(0), st.integers(T, T + 4))
contacts = st.sampled_from([b"2", b"3", b"4", b"\x01"])  # the last is not an id, so that its entry is malformed
entries = st.lists(st.tuples(contacts, st.sampled_from([b"upsert", b"delete", b"no"]), stamps), max_size=8)
singles = st.builds(state_of, st.sampled_from(ops), stamps, st.integers(T, T + 4))
waiting = st.builds(lambda a, b, suspect: join(a, b)._replace(suspect=suspect), singles, singles, st.integers(0, 2))
known = st.builds(Remembered, st.sampled_from(ops), stamps, stamps)
pairs = st.sampled_from([pair_of(b"1", contact) for contact in (b"2", b"3", b"4", b"5")])
marks = st.builds(Mark, stamps, stamps).map(lambda mark: (b"%d,%d" % mark, mark))
results = st.builds(
    BatchResult,
    st.sampled_from(fates),
    st.integers(T, T + 4),
    st.just(T + 9),
    suspect=st.just(3),
    refusal=st.just(REFUSAL),
)


def log_of(changes: list[tuple[bytes, bytes, int]], room: int = 500) -> LogPrefix:
    """These changes of owner 1 as they were read: contact, op, and `at` or 0."""
    raw = [
        [b"%d-%d" % (T, i), [b"owner", b"1", b"contact", contact, b"op", op, *([b"at", b"%d" % at] if at else [])]]
        for i, (contact, op, at) in enumerate(changes)
    ]
    return coalesce_prefix(raw, 0, 1, room)


@st.composite
def slices(draw: st.DrawFn) -> PartitionSlice:
    """One partition in one round: anything read, waiting, remembered, marked, taken over."""
    part = PartitionSlice(
        0,
        log_of(draw(entries), room=draw(st.integers(0, 4))),
        pending=draw(st.dictionaries(pairs, waiting, max_size=3)),
        ledger=draw(st.dictionaries(pairs, known.map(encode_remembered), max_size=3)),
        dead_pairs=draw(st.dictionaries(pairs, st.builds(DeadPair, st.just(1), known), max_size=1)),
        marks=draw(st.dictionaries(pairs, marks, max_size=3)),
        late_until_ms=draw(stamps),
        late_to_ms=draw(stamps),
    )
    part.classes.update({pair: draw(st.integers(0, CLASSES - 1)) for pair in part.pending})
    part.judge(draw(st.sampled_from(modes)), T + 2)
    return part


def settled(part: PartitionSlice, result: BatchResult, limit: int) -> Settlement:
    batch = fill([part], limit)
    return settlement(part, batch.chosen[0], batch.repairs[0], result)


def in_twos(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def pending_after(part: PartitionSlice, into: Settlement) -> dict[bytes, PairState]:
    """What waits once `settle.lua` has written it."""
    after = dict(part.pending)
    classes = [{pair for pair, each in part.classes.items() if each == i} for i in range(CLASSES)]
    for held, keep, drop in zip(classes, into.keep, into.drop, strict=True):
        assert held >= {*drop}, "what is dropped waited there"
        held.difference_update(drop)
        held.update(keep[::2])
    after |= {pair: decode_state(state) for keep in into.keep for pair, state in in_twos(keep)}
    waits = [pair for held in classes for pair in held]
    assert len(waits) == len({*waits}), "a pair waits in one class"
    return {pair: after[pair] for pair in waits}


@given(slices(), results, st.integers(0, 6))
def test_each_entry_ends_in_exactly_one_total_or_waits(part: PartitionSlice, result: BatchResult, limit: int) -> None:
    into = settled(part, result, limit)
    before, after = (sum(s.live for s in each.values()) for each in (part.pending, pending_after(part, into)))
    ends = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered")
    assert into.totals["events"] == part.log.entries
    assert before + part.log.entries == sum(into.totals[name] for name in ends) + after
    assert all(number >= 0 for number in into.totals.values())
    assert into.totals["records_confirmed"] == into.totals["upserts_confirmed"] + into.totals["deletes_confirmed"]
    for op in ops:
        assert sum(times(into.totals, op)[0]) == into.totals[f"{op}s_confirmed"]
    dead = [number for name, number in into.totals.items() if name.startswith("dead:")]
    assert sum(dead) == into.totals["dead_lettered"]


@given(slices(), results, st.integers(0, 6))
def test_there_is_a_letter_for_each_change_that_is_counted_as_dead(
    part: PartitionSlice, result: BatchResult, limit: int
) -> None:
    into = settled(part, result, limit)
    letters = [json.loads(letter) for letter in into.letters[2::3]]
    assert len(letters) == into.totals["dead_lettered"]
    assert [letter["since"] for letter in letters] == [result.now_ms] * len(letters)
    assert [letter["reason"] for letter in letters if letter["entry"] is not None] == [
        each.reason for each in part.log.malformed
    ]


@given(slices(), results, st.integers(0, 6))
def test_only_a_confirmation_writes_the_ledger_and_it_says_what_was_sent(
    part: PartitionSlice, result: BatchResult, limit: int
) -> None:
    into = settled(part, result, limit)
    written = {pair: decode_remembered(value) for pair, value in in_twos(into.ledger)}
    assert set(written) == (set(fill([part], limit).chosen[0]) if result.fate == "confirmed" else set())
    for pair, remembered in written.items():
        assert remembered.op == part.verdicts[pair].op
        assert join_remembered(remembered, part.remembered(pair)) == remembered, "it forgot what was known"


@given(slices(), results, st.integers(0, 6))
def test_a_mark_is_never_cleared_while_a_request_that_may_undo_the_outcome_may_act(
    part: PartitionSlice, result: BatchResult, limit: int
) -> None:
    into = settled(part, result, limit)
    for pair, value in in_twos(into.clear):
        stored, mark = part.marks[pair]
        assert value == stored
        assert mark.until_ms <= max(result.begun_ms, T + 2)  # the time at which it was judged
    assert not set(into.clear[::2]) & set(into.late[::3])


def read(*changes: tuple[bytes, int]) -> LogPrefix:
    return log_of([(b"2", op, at) for op, at in changes])


def judged(log: LogPrefix, **parts: object) -> PartitionSlice:
    part = PartitionSlice(0, log)
    for name, value in parts.items():
        setattr(part, name, value)
    part.classes = {pair: class_of("upsert", bulk=False) for pair in part.pending}
    part.judge("resend", T)
    return part


def due_for_repair(**parts: object) -> PartitionSlice:
    mark, remembered = (b"as stored", Mark(T, 0)), Remembered("delete", T, 0)
    return judged(read(), marks={PAIR: mark}, ledger={PAIR: encode_remembered(remembered)}, **parts)


def counted(into: Settlement) -> dict[str, int]:
    """The totals that moved; what takes them apart is checked beside them."""
    return {name: number for name, number in into.totals.items() if number and ":" not in name}


def test_a_confirmed_delete_leaves_the_later_upsert_waiting() -> None:
    part = judged(read((b"upsert", T), (b"delete", T + 1), (b"upsert", T + 2)))
    into = settled(part, BatchResult("confirmed", T, T), 500)
    assert into.position == b"%d-2" % T
    assert into.ledger == [PAIR, b"d%d," % (T + 1)]
    assert pending_after(part, into) == {PAIR: state_of("upsert", T + 2, T)}
    assert counted(into) == {"events": 3, "coalesced": 1, "records_confirmed": 1, "deletes_confirmed": 1}


def test_a_refused_delete_is_dead_and_the_later_upsert_is_tried_on_its_own() -> None:
    log = read((b"delete", T + 1), (b"upsert", T + 2))
    suspect = {PAIR: state_of("delete", T, T)._replace(suspect=1)}
    part = judged(log, pending=suspect, ledger={PAIR: encode_remembered(Remembered("upsert", 0, T - 5))})
    into = settled(part, BatchResult("refused", T, T + 5, refusal=REFUSAL), 500)
    assert pending_after(part, into) == {PAIR: state_of("upsert", T + 2, T)}
    assert counted(into) == {"events": 2, "coalesced": 1, "dead_lettered": 1}
    assert into.letters[:2] == [PAIR, b"u,%d" % (T - 5)]  # what is known to be confirmed goes with it
    letter = json.loads(into.letters[2])
    assert (letter["owner"], letter["contact"], letter["op"], letter["at"]) == ("1", "2", "delete", T + 1)
    assert (letter["code"], letter["field"], letter["message"]) == (REFUSAL.code, REFUSAL.field, REFUSAL.message)
    assert (letter["reason"], letter["since"], letter["entry_ms"]) == ("refused", T + 5, T)


def test_what_is_refused_by_a_batch_is_kept_to_be_tried_in_smaller_company() -> None:
    part = judged(read((b"upsert", T)))
    into = settled(part, BatchResult("suspect", T, T, suspect=3), 500)
    assert pending_after(part, into) == {PAIR: state_of("upsert", T, T)._replace(suspect=3)}


def test_what_waits_already_and_has_not_changed_is_not_written_again() -> None:
    part = judged(read(), pending={PAIR: state_of("upsert", T, T)})
    into = settled(part, BatchResult("kept", T, T), 500)
    assert (into.keeps, into.drops, into.position) == (False, 0, b"")


def test_what_has_become_stale_while_it_waited_waits_no_more() -> None:
    part = judged(
        read(), pending={PAIR: state_of("upsert", T, T)}, ledger={PAIR: encode_remembered(Remembered("delete", T, 0))}
    )
    into = settled(part, BatchResult("kept", T, T), 500)
    assert into.drop[2] == [PAIR]
    assert counted(into) == {"stale": 1}


def test_a_malformed_entry_is_dead_with_what_of_it_was_readable() -> None:
    log = coalesce_prefix([[b"%d-7" % T, [b"owner", b"\xff1", b"op", b"upsert", b"at", b"12"]]], 0, 1, 500)
    into = settled(judged(log), BatchResult("kept", T, T + 5), 500)
    assert into.letters[:2] == [b"", b""]
    letter = json.loads(into.letters[2])
    assert (letter["owner"], letter["contact"], letter["op"], letter["at"]) == ("\\xff1", None, "upsert", 12)
    assert (letter["reason"], letter["entry"], letter["since"]) == ("bad_owner", f"{T}-7", T + 5)
    assert counted(into) == {"events": 1, "dead_lettered": 1}


@pytest.mark.parametrize(("until_ms", "cleared"), [(T, True), (T + 1, False)])
def test_a_mark_goes_only_with_a_confirmation_of_a_request_begun_after_its_time(
    until_ms: int, *, cleared: bool
) -> None:
    part = judged(read((b"delete", T)), marks={PAIR: (b"as stored", Mark(until_ms, 0))})
    into = settled(part, BatchResult("confirmed", T, T + 60_000), 500)
    assert into.clear == ([PAIR, b"as stored"] if cleared else [])


def test_a_confirmed_repair_is_counted_clears_its_mark_and_confirms_no_record() -> None:
    into = settled(due_for_repair(), BatchResult("confirmed", T, T), 500)
    assert into.clear == [PAIR, b"as stored"]
    assert counted(into) == {"repairs": 1}


@pytest.mark.parametrize(("fate", "cleared"), [("refused", True), ("suspect", False), ("kept", False)])
def test_a_repair_that_was_not_confirmed_stays_due_unless_the_endpoint_refuses_it(fate: Fate, *, cleared: bool) -> None:
    into = settled(due_for_repair(), BatchResult(fate, T, T), 500)
    assert into.clear == ([PAIR, b"as stored"] if cleared else [])
    assert counted(into) == {}


@pytest.mark.parametrize(
    ("late_until_ms", "late_to_ms", "marked"),
    [(T + 1, T, True), (T, T, False), (T + 1, T - 1, False)],
    ids=["its-holder-may-have-sent-it", "it-can-act-no-more", "its-holder-cannot-have-known-it"],
)
def test_after_a_lost_lease_what_its_holder_may_have_sent_is_marked_both_ways(
    late_until_ms: int, late_to_ms: int, *, marked: bool
) -> None:
    part = judged(read((b"delete", T)), late_until_ms=late_until_ms, late_to_ms=late_to_ms)
    into = settled(part, BatchResult("confirmed", T, T), 500)
    assert into.late == ([PAIR, late_until_ms, late_until_ms] if marked else [])


def test_a_repair_that_a_lost_holder_may_have_sent_too_is_marked_again() -> None:
    into = settled(due_for_repair(late_until_ms=T + 5), BatchResult("confirmed", T, T), 500)
    assert into.late == [PAIR, T + 5, T + 5]
    assert into.clear == []


def test_what_is_confirmed_of_a_pair_with_dead_letters_is_remembered_with_its_entrys_time() -> None:
    part = judged(read((b"upsert", 0)), dead_pairs={PAIR: DeadPair(1, None)})
    into = settled(part, BatchResult("confirmed", T, T), 500)
    assert into.ledger == [PAIR, b"u,"]
    assert into.know == [PAIR, b"u,%d" % T]
