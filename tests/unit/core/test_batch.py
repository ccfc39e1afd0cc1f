"""Which records go into one request, and how its body is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from worker.core.batch import fill
from worker.core.codec import Mark, Parked, encode_remembered
from worker.core.entry import pair_of
from worker.core.pair import PairState, Refused, Remembered, state_of
from worker.core.slice import LogPrefix, PartitionSlice

if TYPE_CHECKING:
    from producers.contract.change import Op
    from worker.core.batch import Turn

T = 1_795_460_847_757

ops: list[Op] = ["upsert", "delete"]
singles = st.builds(
    lambda op, suspect: state_of(op, T, T)._replace(suspect=suspect),
    st.sampled_from(ops),
    st.sampled_from([0, 0, 0, 1, 2]),
)


@st.composite
def partitions(draw: st.DrawFn) -> list[PartitionSlice]:
    """Some partitions with pairs of their own, of which some were read, some wait, some are to be repaired."""
    slices = []
    for number in range(draw(st.integers(1, 3))):
        part = PartitionSlice(number, LogPrefix(b"", 0, {}, [], more=False))
        for contact in range(draw(st.integers(0, 6))):
            pair = pair_of(b"%d" % number, b"%d" % contact)
            kind = draw(st.sampled_from(["read", "waiting", "repair"]))
            state = draw(singles)
            if kind == "read":
                part.log.states[pair] = state._replace(suspect=0)
            elif kind == "waiting":
                part.pending[pair] = state
            else:
                part.ledger[pair] = encode_remembered(Remembered(draw(st.sampled_from(ops)), T, T))
                part.marks[pair] = (b"as stored", Mark(T, T))
        part.judge("resend", T)
        slices.append(part)
    return slices


def suspects_of(slices: list[PartitionSlice]) -> dict[bytes, int]:
    return {pair: s.suspect for part in slices for pair, s in part.pending.items() if s.suspect}


@given(partitions(), st.integers(0, 12))
def test_a_batch_keeps_the_limit_names_a_pair_once_and_sends_what_was_decided(
    slices: list[PartitionSlice], limit: int
) -> None:
    batch = fill(slices, limit)
    records = [*batch.upserts, *batch.deletes]
    assert batch.records == len(records) <= limit
    assert len(set(records)) == len(records)
    decided = {pair: reached.op for part in slices for pair, reached in part.verdicts.items()}
    decided |= {pair: op for part in slices for pair, op in part.repairs.items()}
    assert all(decided[pair] == "upsert" for pair in batch.upserts)
    assert all(decided[pair] == "delete" for pair in batch.deletes)


@given(partitions(), st.integers(0, 12))
def test_each_partition_knows_which_of_its_pairs_were_chosen(slices: list[PartitionSlice], limit: int) -> None:
    batch = fill(slices, limit)
    chosen = [pair for pairs in (*batch.chosen, *batch.repairs) for pair in pairs]
    assert sorted(chosen) == sorted([*batch.upserts, *batch.deletes])
    for part, pairs, repairs in zip(slices, batch.chosen, batch.repairs, strict=True):
        assert pairs <= set(part.verdicts)
        assert repairs <= set(part.repairs)


@given(partitions(), st.integers(1, 12))
def test_a_batch_is_as_full_as_what_waits_allows(slices: list[PartitionSlice], limit: int) -> None:
    repairs = sum(len(part.repairs) for part in slices)
    waiting = sum(len(part.verdicts) for part in slices)
    assume(not suspects_of(slices))
    assert fill(slices, limit).records == min(limit, repairs or waiting)


@given(partitions(), st.integers(1, 12))
def test_repairs_go_alone_so_that_one_that_is_refused_can_be_found(slices: list[PartitionSlice], limit: int) -> None:
    batch = fill(slices, limit)
    assert not (any(batch.chosen) and any(batch.repairs))


@given(partitions(), st.integers(1, 12))
def test_suspects_are_tried_without_others_in_groups_as_small_as_was_found_necessary(
    slices: list[PartitionSlice], limit: int
) -> None:
    suspects = suspects_of(slices)
    assume(suspects)
    smallest = min(suspects.values())
    group = {pair for pair, size in suspects.items() if size == smallest}
    batch = fill(slices, limit)
    assert {*batch.upserts, *batch.deletes} <= group
    assert batch.records == min(smallest, limit, len(group))
    assert not any(batch.repairs)


@given(partitions())
def test_the_body_says_upserts_before_deletes_and_each_pair_as_text(slices: list[PartitionSlice]) -> None:
    batch = fill(slices, 500)
    contacts = json.loads(batch.body())["contacts"]
    flags = [contact.get("isDeleted", False) for contact in contacts]
    assert flags == sorted(flags)
    said = {(c["ownerXCUserID"].encode(), c["contactXCUserID"].encode(), c.get("isDeleted", False)) for c in contacts}
    wanted = {(*pair.split(b"\x1f"), False) for pair in batch.upserts}
    assert said == wanted | {(*pair.split(b"\x1f"), True) for pair in batch.deletes}
    assert len(contacts) == batch.records


def test_the_body_of_the_contracts_example() -> None:
    part = PartitionSlice(0, LogPrefix(b"", 0, {}, [], more=False))
    part.pending = {pair_of(b"1", b"9"): state_of("delete", T, T), pair_of(b"1", b"2"): state_of("upsert", T, T)}
    part.judge("resend", T)
    assert fill([part], 500).body() == (
        b'{"contacts":[{"ownerXCUserID":"1","contactXCUserID":"2"},'
        b'{"ownerXCUserID":"1","contactXCUserID":"9","isDeleted":true}]}'
    )


def test_ids_of_any_script_stand_in_the_body_as_they_are() -> None:
    part = PartitionSlice(0, LogPrefix(b"", 0, {}, [], more=False))
    part.pending[pair_of('é"\\'.encode(), "用户\u2028".encode())] = state_of("upsert", T, T)
    part.judge("resend", T)
    assert json.loads(fill([part], 1).body())["contacts"] == [
        {"ownerXCUserID": 'é"\\', "contactXCUserID": "用户\u2028"}
    ]


def test_a_stale_suspect_holds_nobody_up() -> None:
    stale, healthy = pair_of(b"1", b"2"), pair_of(b"1", b"3")
    part = PartitionSlice(0, LogPrefix(b"", 0, {}, [], more=False))
    part.pending = {
        stale: PairState(None, state_of("upsert", T, T).upsert, suspect=1),
        healthy: state_of("upsert", T, T),
    }
    part.ledger[stale] = encode_remembered(Remembered("delete", T, 0))
    part.judge("resend", T)
    assert fill([part], 500).upserts == (healthy,)


REFUSED = Refused(T, 1, "40401", "")


def with_refused(*, innocent: bool = True) -> list[PartitionSlice]:
    """A partition with parked pairs, one that a newer change took out, and perhaps one that was never refused."""
    part = PartitionSlice(0, LogPrefix(b"", 0, {}, [], more=False))
    state = state_of("upsert", T, T)._replace(suspect=1, refused=REFUSED)
    part.pending[b"due"] = state
    part.parked[b"due"] = Parked(T, state)
    part.pending[b"newer"] = state._replace(refused=REFUSED._replace(tries=7))
    part.pending[b"rests"] = state
    part.parked[b"rests"] = Parked(T + 1, state)
    if innocent:
        part.pending[b"innocent"] = state_of("upsert", T, T)
    part.judge("resend", T)
    return [part]


@pytest.mark.parametrize(
    ("turn", "innocent", "sent"),
    [
        ("none", True, b"innocent"),
        ("newer", True, b"newer"),
        ("any", True, b"newer"),
        ("none", False, b"newer"),
    ],
)
def test_what_was_refused_with_an_unknown_code_goes_alone_and_in_its_turn(
    turn: Turn, *, innocent: bool, sent: bytes
) -> None:
    batch = fill(with_refused(innocent=innocent), 100, turn=turn)
    assert batch.upserts == (sent,)
    assert batch.retried == (sent != b"innocent")


def test_what_is_due_goes_after_newer_changes_and_what_rests_never_does() -> None:
    slices = with_refused()
    del slices[0].verdicts[b"newer"]
    assert fill(slices, 100, turn="newer").upserts == (b"innocent",)
    assert fill(slices, 100, turn="any").upserts == (b"due",)
    del slices[0].verdicts[b"due"], slices[0].verdicts[b"innocent"]
    assert fill(slices, 100, turn="any").records == 0


def test_a_doubtful_endpoint_is_asked_what_it_refused_least_often() -> None:
    slices = with_refused(innocent=False)
    slices[0].pending[b"alone"] = state_of("upsert", T, T)._replace(suspect=-3)
    slices[0].judge("resend", T)
    assert fill(slices, 100, doubtful=True).upserts == (b"due",)
    del slices[0].verdicts[b"due"]
    assert fill(slices, 100, doubtful=True).upserts == (b"alone",)
