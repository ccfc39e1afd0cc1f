"""The fast path says what the rules say, entry by entry and object by object."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.contract.change import partition_of
from tests.support.by_the_rules import by_the_rules
from worker.core.batch import Batch, fill
from worker.core.codec import DeadPair, Mark, encode_remembered
from worker.core.entry import Malformed, pair_of, read_entry
from worker.core.pair import Remembered, state_of
from worker.core.settlement import BatchResult, settlement
from worker.core.slice import LogPrefix, PartitionSlice, coalesce_prefix

if TYPE_CHECKING:
    from worker.core.read import RawEntries

T = 1_795_460_847_757
PARTITIONS = 2

# Mostly a few ordinary pairs, so that they come again; beside them unusual valid ids, and invalid ones.
OURS = b"4"
assert partition_of(OURS, PARTITIONS) == 0
owners = st.sampled_from([OURS] * 20 + [b"1", b"a-b", b"\xc3\xa9", b"", b"x" * 257, b"2" * 257, b"7\x01"])
contacts = st.sampled_from(
    [b"2", b"3", b"4"] * 6 + [b"550e8400-e29b-41d4-a716-446655440000", b'q"\\', b"\xff", b"y" * 256, b"y" * 257]
)
ops = st.sampled_from([b"upsert", b"delete", b"Upsert", b""])
odd_times = [
    *(b"", b"12", b"999999999999", b"0999999999999", b"1000000000000", b"%d0" % T, b"0%d" % T, b"1795460000x57"),
    *(b"%d" % (T + 300_000), b"%d" % (T + 300_001), "\uff11795460847757".encode()),
]
times = st.integers(0, 9).flatmap(
    lambda n: st.sampled_from(odd_times) if n == 0 else st.integers(T - 3, T + 3).map(lambda at: b"%d" % at)
)
entry_times = st.sampled_from([1, 999_999_999_999, *[T - 1, T, T + 1, T + 5] * 4, 10**13])


@st.composite
def entries(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """An entry as anybody may append it, nearly always as our producers do."""
    owner, contact, op, at = draw(owners), draw(contacts), draw(st.sampled_from([b"upsert", b"delete"])), draw(times)
    flat = [b"owner", owner, b"contact", contact, b"op", op, b"at", at]
    match draw(st.integers(0, 12)):
        case 0:
            flat[draw(st.sampled_from([0, 2, 4, 6]))] = b"else"
        case 1:
            flat[5] = draw(ops)
        case 2:
            flat += [draw(st.sampled_from([b"at", b"owner", b"source"])), draw(times)]  # perhaps a second time
        case 3 | 4 | 5 | 6:
            flat = flat[:6]  # no time
    if draw(st.booleans()):
        flat += [b"source", draw(st.sampled_from([b"crm", b"app", b"", b"\x01", b"\xff", b"s" * 65]))]
    if draw(st.integers(0, 3)) == 0:
        flat += [b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]
    if draw(st.integers(0, 3)) == 0:  # another order
        fields = draw(st.permutations([*zip(flat[::2], flat[1::2], strict=True)]))
        flat = [item for each in fields for item in each]
    return b"%d" % draw(entry_times), flat


logs = st.lists(entries(), max_size=14).map(
    lambda every: [
        [b"%b-%d" % (ms, i), flat] for i, (ms, flat) in enumerate(sorted(every, key=lambda each: int(each[0])))
    ]
)


@pytest.mark.slow
@settings(max_examples=500)
@given(logs, st.integers(0, 8), st.booleans())
def test_a_log_joins_into_what_the_rules_make_of_it(raw: RawEntries, room: int, fast: bool) -> None:  # noqa: FBT001
    states, malformed, taken = by_the_rules(raw, room, PARTITIONS)
    log = coalesce_prefix(raw, 0, PARTITIONS, room, fast=fast)
    assert (log.entries, log.malformed, log.pairs) == (taken, malformed, len(states))
    assert fast or not log.fast_path
    for pair in [*log.fast_path]:
        assert pair not in log.states
        log.states[pair] = log.fast_path.take_out(pair)
    assert log.states == states


@pytest.mark.slow
@settings(max_examples=500)
@given(entries())
def test_an_entry_is_plain_if_and_only_if_the_rules_take_it(entry: tuple[bytes, list[bytes]]) -> None:
    entry_ms, flat = entry
    entry_id = entry_ms + b"-0"
    change = read_entry(entry_id, flat, 0, PARTITIONS)
    log = coalesce_prefix([[entry_id, flat]], 0, PARTITIONS, 1, fast=True)
    if isinstance(change, Malformed):
        assert log.malformed == [change]
        return
    of_today = (
        len(entry_ms) == 13
        and change.at < 10**13
        and not dict(zip(flat[::2], flat[1::2], strict=True)).get(b"at", b"").startswith(b"0")
    )
    assert [*log.fast_path] == ([change.pair] if of_today and len(flat) == 2 * len({*flat[::2]}) else [])
    [state] = log.states.values() or [log.fast_path.take_out(change.pair)]
    assert state == state_of(change.op, change.at, change.entry_ms, change.source)


@pytest.mark.parametrize("fields", [{}, {b"at": b"%d" % T}, {b"at": b"%d" % (T + 60_000)}, {b"source": b"crm"}])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("owner", [OURS, "\u00e9".encode()])
def test_every_change_is_fast(fields: dict[bytes, bytes], order: int, owner: bytes) -> None:
    said = {b"owner": owner, b"contact": b"2", b"op": b"delete", **fields}
    flat = [item for each in [*said.items()][::order] for item in each]
    log = coalesce_prefix([[b"%d-0" % T, flat]], partition_of(owner, PARTITIONS), PARTITIONS, 1, fast=True)
    assert [*log.fast_path] == [pair_of(owner, b"2")]


@pytest.mark.parametrize(
    ("op", "at", "known", "then"),
    [
        (b"delete", 0, None, Remembered("delete", T, 0)),
        (b"upsert", 0, None, Remembered("upsert", 0, 0)),
        (b"upsert", T, Remembered("upsert", 0, T - 1), Remembered("upsert", 0, T)),
        (b"upsert", T, Remembered("delete", T - 1, 0), Remembered("upsert", T - 1, T)),
        (b"delete", T, Remembered("upsert", T - 2, T), Remembered("delete", T, T)),
        (b"upsert", 0, Remembered("delete", T + 1, T), Remembered("upsert", T + 1, T)),
        (b"delete", 0, Remembered("delete", T + 1, 0), Remembered("delete", T + 1, 0)),
        (b"delete", 0, Remembered("upsert", 0, 0), Remembered("delete", T, 0)),
        (b"upsert", T, Remembered("upsert", 0, T), None),
        (b"upsert", T, Remembered("delete", T, 0), None),
        (b"delete", T, Remembered("delete", T, 0), None),
        (b"upsert", T, Remembered("delete", 1, 0), None),
    ],
)
def test_a_pair_that_the_ledger_knows_is_fast_if_all_that_it_knows_is_older(
    op: bytes, at: int, known: Remembered | None, then: Remembered | None
) -> None:
    pair = pair_of(OURS, b"2")
    flat = [b"owner", OURS, b"contact", b"2", b"op", op, *([b"at", b"%d" % at] if at else [])]
    log = coalesce_prefix([[b"%d-0" % T, flat]], 0, PARTITIONS, 1, fast=True)
    part = PartitionSlice(0, log, ledger={pair: encode_remembered(known)} if known else {})
    part.judge("resend", T)
    assert [*log.fast_path] == ([] if then is None else [pair])
    if then is not None:
        assert log.fast_path.ledger() == [pair, encode_remembered(then)]


waiting = st.builds(state_of, st.sampled_from(["upsert", "delete"]), st.integers(T - 3, T + 3), st.just(T))
suspects = st.builds(lambda state, suspect: state._replace(suspect=suspect), waiting, st.sampled_from([0, 0, 1, 2]))
known_times = st.integers(T - 3, T + 3) | st.sampled_from([0, 0, 0, 1, 10**13])
known = st.builds(Remembered, st.sampled_from(["upsert", "delete"]), known_times, known_times)
marks = st.builds(Mark, st.integers(T, T + 4), st.integers(T, T + 4)).map(lambda mark: (b"%d,%d" % mark, mark))


@st.composite
def both_ways(draw: st.DrawFn) -> tuple[PartitionSlice, PartitionSlice]:
    """One partition in one round, its log joined on the fast path and without it; anything may be known beside it."""
    raw, room = draw(logs), draw(st.integers(0, 8))
    logs_of_both = [coalesce_prefix(raw, 0, PARTITIONS, room, fast=fast) for fast in (True, False)]
    pairs = st.sampled_from([*logs_of_both[1].states, pair_of(b"9", b"9")])
    beside = {
        "pending": draw(st.dictionaries(pairs, suspects, max_size=2)),
        "ledger": draw(st.dictionaries(pairs, known.map(encode_remembered), max_size=4)),
        "dead_pairs": draw(st.dictionaries(pairs, st.builds(DeadPair, st.just(1), known), max_size=1)),
        "marks": draw(st.dictionaries(pairs, marks, max_size=2)),
        "late_until_ms": draw(st.sampled_from([0, 0, 0, T + 2, T + 4])),
        "late_to_ms": T,
    }
    beside["classes"] = dict.fromkeys(beside["pending"], 1)  # type: ignore[call-overload]
    fast, slow = (PartitionSlice(0, log, **deepcopy(beside)) for log in logs_of_both)  # type: ignore[arg-type]
    fast.judge("resend", T + 2)
    slow.judge("resend", T + 2)
    return fast, slow


def in_twos(flat: list[bytes]) -> set[tuple[bytes, bytes]]:
    return set(zip(flat[::2], flat[1::2], strict=True))


def chooses(part: PartitionSlice, limit: int) -> bool:
    """Whether not all that could go do."""
    suspects = [each.state.suspect for each in part.verdicts.values() if each.op and each.state]
    suspects = sorted(each for each in suspects if each)
    return limit < len(part.verdicts) or (bool(suspects) and suspects.count(suspects[0]) > suspects[0])


@pytest.mark.slow
@settings(max_examples=700)
@given(both_ways(), st.sampled_from(["confirmed", "refused", "suspect", "kept"]), st.integers(0, 9), st.booleans())
def test_what_moves_is_the_same_whichever_way_a_pair_took(
    both: tuple[PartitionSlice, PartitionSlice],
    fate: str,
    limit: int,
    doubtful: bool,  # noqa: FBT001
) -> None:
    _, slow = both
    batches = [fill([part], limit, doubtful=doubtful) for part in both]
    assert batches[0].records == batches[1].records <= limit
    if chooses(slow, limit):
        # Some are left out, and which is nobody's business; but all of them go or wait.
        into = settlement(both[0], batches[0].chosen[0], batches[0].repairs[0], BatchResult("confirmed", T + 2, T + 3))
        assert into.totals["records_confirmed"] == len(batches[0].chosen[0]) == len(into.ledger) // 2
        assert {*into.ledger[::2]} == {*batches[0].chosen[0]}
        return
    assert batches[0].chosen == batches[1].chosen
    assert {*batches[0].upserts} == {*batches[1].upserts}
    assert {*batches[0].deletes} == {*batches[1].deletes}
    assert json.loads(batches[0].body()).keys() == {"contacts"}
    result = BatchResult(fate, T + 2, T + 3, suspect=2)  # type: ignore[arg-type]
    one, other = (
        settlement(part, batch.chosen[0], batch.repairs[0], result) for part, batch in zip(both, batches, strict=True)
    )
    assert one.position == other.position
    assert in_twos(one.ledger) == in_twos(other.ledger)
    assert [in_twos(each) for each in one.keep] == [in_twos(each) for each in other.keep]
    assert [{*each} for each in one.drop] == [{*each} for each in other.drop]
    assert in_twos(one.clear) == in_twos(other.clear)
    assert sorted(one.letters) == sorted(other.letters)
    assert sorted(one.late, key=str) == sorted(other.late, key=str)
    assert +one.totals == +other.totals


@given(st.lists(st.tuples(owners.filter(len), contacts), max_size=4, unique=True), st.integers(0, 4))
def test_the_body_is_what_a_json_encoder_writes(pairs: list[tuple[bytes, bytes]], deletes: int) -> None:
    legal = [pair_of(o, c) for o, c in pairs if b"\xff" not in c and b"\x01" not in o]
    batch = Batch((), (), tuple(legal[deletes:]), tuple(legal[:deletes]))
    said = [(pair, False) for pair in batch.upserts] + [(pair, True) for pair in batch.deletes]
    contacts_said = [
        {"ownerXCUserID": o.decode(), "contactXCUserID": c.decode(), **({"isDeleted": True} if gone else {})}
        for (o, _, c), gone in ((pair.partition(b"\x1f"), gone) for pair, gone in said)
    ]
    written = json.dumps({"contacts": contacts_said}, ensure_ascii=False, separators=(",", ":")).encode()
    assert batch.body() == written


def test_a_log_without_entries_is_plain_and_empty() -> None:
    assert not LogPrefix(b"", 0, {}, [], more=False).fast_path
