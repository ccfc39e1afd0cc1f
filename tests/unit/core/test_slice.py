"""What a round makes of a log, of what waits, of what is remembered, and of late marks."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.codec import DeadPair, Mark, encode_remembered
from worker.core.entry import pair_of
from worker.core.pair import Remembered, join, state_of
from worker.core.slice import LogPrefix, PartitionSlice, coalesce_prefix

if TYPE_CHECKING:
    from producers.contract.change import Op

T = 1_795_460_847_757
PAIR, OTHER = pair_of(b"1", b"2"), pair_of(b"1", b"9")
NOTHING_READ = LogPrefix(b"", 0, {}, [], more=False)

contacts = st.sampled_from([b"2", b"3", b"4", b"\x01"])  # the last is not an id
said = st.lists(st.tuples(contacts, st.sampled_from([b"upsert", b"delete"]), st.integers(T, T + 3)), max_size=12)


def raw(*changes: tuple[bytes, bytes, int]) -> list[list[Any]]:
    return [
        [b"%d-%d" % (T, i), [b"owner", b"1", b"contact", contact, b"op", op, b"at", b"%d" % at]]
        for i, (contact, op, at) in enumerate(changes)
    ]


@given(said, st.integers(0, 4))
def test_a_log_is_joined_from_the_first_entry_on_up_to_the_room_without_a_gap(
    changes: list[tuple[bytes, bytes, int]], room: int
) -> None:
    log = coalesce_prefix(raw(*changes), 0, 1, room)
    assert len(log.states) <= room
    taken = changes[: log.entries]
    assert log.more == (log.entries < len(changes))
    assert log.position == (b"%d-%d" % (T, log.entries - 1) if taken else b"")
    assert len(log.malformed) == sum(contact == b"\x01" for contact, _, _ in taken)
    by_pair = {pair_of(b"1", contact) for contact, _, _ in taken if contact != b"\x01"}
    assert set(log.states) == by_pair
    for pair, state in log.states.items():
        ops: list[tuple[Op, int]] = [
            ("upsert" if op == b"upsert" else "delete", at) for c, op, at in taken if pair_of(b"1", c) == pair
        ]
        assert state == reduce(join, (state_of(op, at, T) for op, at in ops))
    if log.more:  # it stops only where a pair more would be one too many
        assert len(log.states) == room
        assert pair_of(b"1", changes[log.entries][0]) not in log.states


def test_what_waits_and_what_was_read_are_judged_as_one() -> None:
    part = PartitionSlice(0, coalesce_prefix(raw((b"2", b"upsert", T)), 0, 1, 10))
    part.pending = {PAIR: state_of("delete", T + 1, T - 50), OTHER: state_of("upsert", T, T)}
    part.judge("resend", T)
    assert {pair: reached.op for pair, reached in part.verdicts.items()} == {PAIR: "delete", OTHER: "upsert"}
    assert part.verdicts[PAIR].superseded == 1
    assert sorted(part.pairs) == sorted([PAIR, OTHER])


def test_a_pair_with_dead_letters_is_judged_by_what_the_ledger_has_forgotten_too() -> None:
    part = PartitionSlice(0, coalesce_prefix(raw((b"2", b"upsert", T)), 0, 1, 10))
    part.dead_pairs[PAIR] = DeadPair(1, Remembered("delete", T + 1, 0))
    part.judge("resend", T)
    assert part.verdicts[PAIR].op is None
    part.ledger[PAIR] = encode_remembered(Remembered("upsert", 0, T - 1))
    assert part.remembered(PAIR) == Remembered("upsert", T + 1, T - 1)


@pytest.mark.parametrize(
    ("mark", "remembered", "repair"),
    [
        pytest.param(Mark(0, T), Remembered("upsert", 0, T), "upsert", id="a-late-delete-undid-an-upsert"),
        pytest.param(Mark(T, 0), Remembered("delete", T, 0), "delete", id="a-late-upsert-undid-a-delete"),
        pytest.param(Mark(T, T), Remembered("delete", T, 0), "delete", id="either-may-have-acted"),
        pytest.param(Mark(T, 0), Remembered("upsert", 0, T), None, id="it-said-the-same"),
        pytest.param(Mark(T, 0), None, None, id="nothing-was-confirmed"),
    ],
)
def test_a_mark_whose_time_is_over_is_repaired_if_it_differs_else_it_is_past(
    mark: Mark, remembered: Remembered | None, repair: Op | None
) -> None:
    part = PartitionSlice(0, NOTHING_READ, marks={PAIR: (b"as stored", mark)})
    if remembered:
        part.ledger[PAIR] = encode_remembered(remembered)
    part.judge("resend", T)
    assert part.repairs == ({PAIR: repair} if repair else {})
    assert part.past == ([] if repair else [PAIR])


def test_a_mark_waits_for_its_time_and_for_a_record_of_its_pair() -> None:
    early = PartitionSlice(0, NOTHING_READ, marks={PAIR: (b"as stored", Mark(0, T))})
    early.ledger[PAIR] = encode_remembered(Remembered("upsert", 0, T))
    early.judge("resend", T - 1)
    assert (early.repairs, early.past) == ({}, [])

    spoken = PartitionSlice(
        0, coalesce_prefix(raw((b"2", b"delete", T + 1)), 0, 1, 10), marks=early.marks, ledger=early.ledger
    )
    spoken.judge("resend", T)
    assert spoken.verdicts[PAIR].op == "delete"
    assert (spoken.repairs, spoken.past) == ({}, [])


def test_a_stale_change_does_not_keep_a_mark_from_its_repair() -> None:
    part = PartitionSlice(
        0, coalesce_prefix(raw((b"2", b"delete", T - 1)), 0, 1, 10), marks={PAIR: (b"as stored", Mark(0, T))}
    )
    part.ledger[PAIR] = encode_remembered(Remembered("upsert", 0, T))
    part.judge("resend", T)
    assert part.verdicts[PAIR].op is None
    assert part.repairs == {PAIR: "upsert"}
