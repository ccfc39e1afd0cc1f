"""The status of a change, computed from what the workers keep."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest

from producers import ContactChange, Lane, Receipt
from producers.contract.keys import Keys
from producers.receipt import LONGEST_WAIT_SECONDS, DeliveryStatus, ReceiptLookup, lookups, status_from, waits
from worker.core.codec import encode_remembered, encode_state
from worker.core.pair import PairState, Remembered, Side

T = 1_795_460_847_757
BEHIND = b"%d-0" % (T + 100)


def receipt(op: str = "upsert", at: int = T, entry: str = f"{T}-5") -> Receipt:
    return Receipt.of(entry, ContactChange(owner="1", contact="2", op=op, at=at))  # type: ignore[arg-type] # one of two


def looked(  # noqa: PLR0913 - each place that is asked
    position: bytes | None = BEHIND,
    *,
    pending: PairState | None = None,
    new: Remembered | None = None,
    old: Remembered | None = None,
    dead: bytes | None = None,
    settled_ms: bytes | None = None,
) -> ReceiptLookup:
    ledger = [None if each is None else encode_remembered(each) for each in (new, old)]
    states = () if pending is None else (encode_state(pending),)
    return ReceiptLookup(position, settled_ms, states, ledger[0], ledger[1], dead)


def test_it_is_the_entrys_id_and_remembers_what_was_said() -> None:
    one = receipt()
    assert one == f"{T}-5"
    for each in (one, copy.copy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301 - our own
        assert (each, each.owner, each.contact, each.op, each.at) == (f"{T}-5", "1", "2", "upsert", T)


@pytest.mark.parametrize("position", [None, b"0-0", b"%d-4" % T, b"%d-9" % (T - 1)])
def test_what_lies_behind_what_is_settled_waits(position: bytes | None) -> None:
    assert status_from(receipt(), looked(position, new=Remembered("upsert", 0, T))) == "waiting"


@pytest.mark.parametrize("position", [None, b"%d-4" % T])
def test_what_was_appended_before_the_number_of_partitions_changed_is_settled(position: bytes | None) -> None:
    known = Remembered("upsert", 0, T)
    assert status_from(receipt(), looked(position, new=known, settled_ms=b"%d" % (T + 1))) == "confirmed"
    assert status_from(receipt(), looked(position, new=known, settled_ms=b"%d" % T)) == "waiting"


@pytest.mark.parametrize(
    ("pending", "stands"),
    [
        (PairState(None, Side(T, T, 0)), "waiting"),
        (PairState(Side(T - 9, T, 0), Side(T - 5, T + 50, 0, b"crm"), suspect=3), "waiting"),
        (PairState(None, Side(T + 1, T + 1, 0)), "settled"),  # of a later entry: this one was settled before it came
        (PairState(Side(T - 9, T - 9, 0), None), "settled"),  # of the other op alone
    ],
)
def test_what_was_read_and_is_not_confirmed_waits(pending: PairState, stands: DeliveryStatus) -> None:
    assert status_from(receipt(), looked(pending=pending)) == stands


@pytest.mark.parametrize(
    ("op", "known", "stands"),
    [
        ("upsert", Remembered("upsert", 0, T), "confirmed"),
        ("upsert", Remembered("upsert", T - 1, T + 5), "confirmed"),
        ("upsert", Remembered("delete", T, 0), "superseded"),
        ("upsert", Remembered("delete", T + 1, T), "superseded"),
        ("upsert", Remembered("upsert", T - 1, T - 1), "settled"),
        ("delete", Remembered("delete", T, 0), "confirmed"),
        ("delete", Remembered("delete", T, T), "confirmed"),
        ("delete", Remembered("upsert", T - 1, T + 1), "superseded"),
        ("delete", Remembered("upsert", T, T + 1), "superseded"),
        ("delete", Remembered("upsert", 0, T), "settled"),
    ],
)
def test_what_is_remembered_tells_how_it_ended(op: str, known: Remembered, stands: DeliveryStatus) -> None:
    assert status_from(receipt(op), looked(new=known)) == stands
    assert status_from(receipt(op), looked(old=known)) == stands
    assert status_from(receipt(op), looked(dead=b"1;" + encode_remembered(known))) == (
        stands if stands != "settled" else "dead"
    )


def test_what_both_ledgers_know_counts() -> None:
    new, old = Remembered("delete", T - 5, 0), Remembered("upsert", 0, T)
    assert status_from(receipt(), looked(new=new, old=old)) == "confirmed"


def test_what_nobody_remembers_is_settled_or_dead() -> None:
    assert status_from(receipt(), looked()) == "settled"
    assert status_from(receipt(), looked(dead=b"2;")) == "dead"


def test_each_place_is_asked_before_the_one_that_a_change_may_move_to() -> None:
    places = [str(key).rpartition("}:")[2] for _, key, *_ in lookups(receipt(), Keys("ns"), 64).commands]
    live = ["pending:deletes", "pending:deletes:heavy", "pending", "pending:heavy"]
    bulk = [each.replace("pending", "pending:bulk") for each in live]
    pending = (*bulk, *bulk[-2::-1], *live, *live[-2::-1])  # within a lane a pair may move either way
    assert places == ["partition", "parked", *pending, "parked", "ledger:new", "ledger:old", "dead:pairs"]


@pytest.mark.parametrize(("lane", "position"), [(None, b"position"), ("live", b"position"), ("bulk", b"bulk_position")])
def test_what_is_settled_is_told_by_the_position_of_its_own_lane(lane: Lane | None, position: bytes) -> None:
    one = Receipt.of(f"{T}-5", ContactChange(owner="1", contact="2", op="upsert", at=T, lane=lane))
    assert one.lane == (lane or "live")
    assert lookups(one, Keys("ns"), 64).commands[0][2] == position


def test_a_change_that_waits_in_any_class_waits() -> None:
    state = encode_state(PairState(None, Side(T, T, 0)))
    found = ReceiptLookup.of(
        [[BEHIND, None], *([each] for each in (None, None, None, state, None, None)), *[[None]] * 3]
    )
    assert status_from(receipt(), found) == "waiting"


def test_looks_come_ever_less_often() -> None:
    pauses = list(itertools.islice(waits(itertools.repeat(1.0)), 30))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.05, LONGEST_WAIT_SECONDS)
    assert [next(waits(itertools.repeat(each))) for each in (0.0, 1.0)] == [0.025, 0.05]
