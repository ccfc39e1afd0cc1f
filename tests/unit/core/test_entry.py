"""Every entry is read as a change, or as the rule that it breaks (contract.md, section 2). None raises an error."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.entry import Change, Malformed, pair_of, read_entry, split_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

T = 1_795_460_847_757
AHEAD_MS = 300_000
PARTITIONS = 4

# Ids and values of every kind that the rules tell apart, and bytes of no kind at all.
ids = st.one_of(
    st.sampled_from([b"1", b"a b", b"", "é".encode(), b"\x1f", b"\xc2\x80", "\x9f".encode(), "\xa0".encode(), b"\xff"]),
    st.sampled_from([b"x" * 256, b"x" * 257, b"\x7f", b"a\n", b"\xc3"]),
    st.from_regex(rb"[a-z0-9]{1,8}", fullmatch=True),
    st.binary(max_size=300),
)
stamps = st.one_of(
    st.sampled_from([b"%d" % at for at in (T, T + AHEAD_MS, T + AHEAD_MS + 1, 10**12, 10**12 - 1, 0)]),
    st.sampled_from([b"", b"-1", b"+5", b" 5", b"1e12", b"9" * 20, b"0" * 30, b"9" * 5000, "٣".encode(), b"\xb2"]),
    st.binary(max_size=16),
)
operations = st.one_of(st.sampled_from([b"upsert", b"delete", b"Upsert", b""]), st.binary(max_size=8))
values = {b"owner": ids, b"contact": ids, b"op": operations, b"at": stamps, b"source": ids}
named = st.sampled_from(sorted(values)).flatmap(lambda name: st.tuples(st.just(name), values[name]))
# What producers write, what others may write, and anything.
usual = st.tuples(ids, ids, operations, stamps).map(
    lambda four: list(zip((b"owner", b"contact", b"op", b"at"), four, strict=True))
)
others = st.lists(st.one_of(named, st.tuples(st.binary(max_size=8), st.binary(max_size=8))), max_size=7)
entries = st.one_of(usual, st.tuples(usual, others).map(lambda both: both[0] + both[1]), others)
entry_ids = st.one_of(st.just(b"%d-0" % T), st.from_regex(rb"[0-9]{1,20}-[0-9]{1,20}", fullmatch=True))


def id_breaks_rules(raw: bytes) -> bool:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return True
    return not 1 <= len(raw) <= 256 or any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text)


def at_fault(at: bytes, entry_ms: int) -> set[str]:
    if not at or any(byte not in b"0123456789" for byte in at):
        return {"bad_at"}
    fits = len(at) <= 20 and 10**12 <= int(at) <= entry_ms + AHEAD_MS
    return set() if fits else {"at_out_of_range"}


def broken_rules(fields: Sequence[tuple[bytes, bytes]], entry_ms: int, partition: int) -> set[str]:
    """Every reason that section 2 gives to refuse this entry."""
    said = dict(fields)
    reasons = {f"missing_{name}" for name in ("owner", "contact", "op") if name.encode() not in said}
    reasons |= {f"bad_{n}" for n in ("owner", "contact") if n.encode() in said and id_breaks_rules(said[n.encode()])}
    if said.get(b"op", b"upsert") not in {b"upsert", b"delete"}:
        reasons.add("bad_op")
    if b"at" in said:
        reasons |= at_fault(said[b"at"], entry_ms)
    if b"owner" in said and zlib.crc32(said[b"owner"]) % PARTITIONS != partition:
        reasons.add("wrong_partition")
    names = [name for name, _ in fields]
    return reasons | {f"repeated_{n}" for n in ("owner", "contact", "op", "at") if names.count(n.encode()) > 1}


@given(entries, entry_ids, st.booleans())
def test_an_entry_is_a_change_exactly_if_it_breaks_no_rule(
    fields: list[tuple[bytes, bytes]],
    entry_id: bytes,
    at_home: bool,  # noqa: FBT001 - hypothesis draws it
) -> None:
    said = dict(fields)
    home = zlib.crc32(said.get(b"owner", b"")) % PARTITIONS
    partition = home if at_home else (home + 1) % PARTITIONS
    entry_ms = int(entry_id.split(b"-")[0])
    reasons = broken_rules(fields, entry_ms, partition)

    read = read_entry(entry_id, [item for field in fields for item in field], partition, PARTITIONS)

    if isinstance(read, Malformed):
        assert read.reason in reasons
        assert read.entry_id == entry_id
        assert read.fields.items() <= said.items()
    else:
        assert not reasons
        source = said.get(b"source", b"")
        fits = len(source) <= 64 and not id_breaks_rules(source)
        assert split_pair(read.pair) == (said[b"owner"], said[b"contact"])
        assert read.op.encode() == said[b"op"]
        assert read[2:] == (int(said.get(b"at", b"0")), entry_ms, source if fits else b"")


@given(st.lists(st.binary(max_size=12), max_size=12).map(lambda flat: flat[: len(flat) // 2 * 2]), entry_ids)
def test_reading_never_raises_whatever_the_bytes(flat: list[bytes], entry_id: bytes) -> None:
    assert isinstance(read_entry(entry_id, flat, 0, PARTITIONS), Change | Malformed)


@given(usual, st.permutations(range(4)))
def test_the_usual_shape_is_read_as_any_other_order_of_its_fields(
    fields: list[tuple[bytes, bytes]], order: list[int]
) -> None:
    partition = zlib.crc32(fields[0][1]) % PARTITIONS
    usual_order = [item for field in fields for item in field]
    other_order = [item for i in order for item in fields[i]]
    other_order += [b"unknown", b"field"]  # so that no order takes the short cut
    one, other = (read_entry(b"%d-0" % T, flat, partition, PARTITIONS) for flat in (usual_order, other_order))
    assert one == other


def entry(**fields: bytes) -> list[bytes]:
    said = {"owner": b"1", "contact": b"9", "op": b"delete", "at": b"%d" % T} | fields
    return [item for name, value in said.items() for item in (name.encode(), value)]


def read_one(flat: list[bytes], partition: int = zlib.crc32(b"1") % PARTITIONS) -> Change | Malformed:
    return read_entry(b"%d-3" % T, flat, partition, PARTITIONS)


def test_the_contracts_own_example_is_a_change() -> None:
    assert read_one(entry()) == Change(pair_of(b"1", b"9"), "delete", T, T, b"")


@pytest.mark.parametrize(
    ("flat", "reason"),
    [
        ([b"contact", b"9", b"op", b"upsert"], "missing_owner"),
        ([b"owner", b"1", b"op", b"upsert"], "missing_contact"),
        ([b"owner", b"1", b"contact", b"9"], "missing_op"),
        (entry(owner=b""), "bad_owner"),
        (entry(contact=b"9\n"), "bad_contact"),
        (entry(op=b"remove"), "bad_op"),
        (entry(at=b"1795460847.757"), "bad_at"),
        (entry(at=b"1795460847"), "at_out_of_range"),
        (entry(at=b"%d" % (T + AHEAD_MS + 1)), "at_out_of_range"),
        ([*entry(), b"op", b"delete"], "repeated_op"),
        (entry(owner=b"2"), "wrong_partition"),
        ([], "missing_owner"),
    ],
)
def test_an_entry_that_breaks_a_rule_says_which(flat: list[bytes], reason: str) -> None:
    read = read_one(flat)
    assert isinstance(read, Malformed)
    assert read.reason == reason


def test_unknown_fields_and_a_source_that_does_not_fit_are_ignored() -> None:
    flat = [*entry(source=b"x" * 65), b"colour", b"blue", b"traceparent", b"no trace"]
    assert read_one(flat) == read_one(entry())
    assert read_one(entry(source=b"a\x1fb")) == read_one(entry())


def test_a_source_that_fits_is_kept() -> None:
    read = read_one(entry(source="Büro, 2".encode()))
    assert isinstance(read, Change)
    assert read.source == "Büro, 2".encode()
