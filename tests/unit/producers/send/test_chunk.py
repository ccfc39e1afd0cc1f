"""Changes are checked, stamped and encoded."""

from __future__ import annotations

import math

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.contract.change import ContactChange, partition_of
from producers.contract.errors import InvalidChange
from producers.contract.keys import Keys
from producers.send.chunk import Chunk, XaddEncoder
from producers.send.stamp import Stamper

NOW_MS = 1_795_460_847_757
IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)


def chunk_of(*items: ContactChange | dict[str, object]) -> Chunk:
    chunk, stamper = Chunk(), Stamper(lambda: NOW_MS / 1000)
    for item in items:
        chunk.admit(item, stamper)
    return chunk


@given(
    IDS,
    IDS,
    st.sampled_from(["upsert", "delete"]),
    st.integers(10**12, NOW_MS),
    st.none() | st.text(st.characters(codec="utf-8"), max_size=16),
    st.none() | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)
def test_commands_are_packed_as_the_reference_packer_does(  # noqa: PLR0913, PLR0917 - the fields of a change
    owner: str, contact: str, op: str, at: int, source: str | None, traceparent: str | None
) -> None:
    fields: dict[str, str | int | None] = {
        "owner": owner,
        "contact": contact,
        "op": op,
        "at": at,
        "source": source,
        "traceparent": traceparent,
    }
    words: list[str | int] = ["XADD", Keys("ns").events(partition_of(owner, 64)), "*"]
    for name, value in fields.items():
        if value is not None:
            words += [name, value]
    assert XaddEncoder(Keys("ns"), 64).pack(chunk_of({**fields})) == hiredis.pack_command(tuple(words))  # type: ignore[arg-type] # its stub knows tuples of one


@pytest.mark.parametrize("size", [1, 200, 201, 1000])
def test_a_long_chunk_is_encoded_in_parts_which_together_are_all_of_it(size: int) -> None:
    encoder = XaddEncoder(Keys("ns"), 64)
    chunk = chunk_of(*(ContactChange(owner="1", contact=str(n), op="upsert") for n in range(size)))
    parts = list(encoder.parts(chunk))
    assert b"".join(parts) == encoder.pack(chunk)
    assert len(parts) == math.ceil(size / 200)


def test_a_change_keeps_the_time_its_caller_gave_and_gets_one_otherwise() -> None:
    chunk = chunk_of(
        {"owner": "1", "contact": "2", "op": "upsert", "at": 10**12}, {"owner": "1", "contact": "2", "op": "delete"}
    )
    assert [chunk.stamped(0).at, chunk.stamped(1).at] == [10**12, NOW_MS]


def test_a_time_may_be_five_minutes_ahead_of_the_clock_and_not_more() -> None:
    change = ContactChange(owner="1", contact="2", op="upsert", at=NOW_MS + 300_000)
    assert len(chunk_of(change)) == 1
    with pytest.raises(InvalidChange, match=r"^at must be at most 5 minutes ahead"):
        chunk_of(change.model_copy(update={"at": NOW_MS + 300_001}))


@pytest.mark.parametrize("item", ["upsert", None, ("owner", "1"), {1: 2}])
def test_what_is_no_change_is_refused_as_such(item: object) -> None:
    with pytest.raises(InvalidChange, match=r"^must be a ContactChange or a mapping of its fields, not "):
        chunk_of(item)  # type: ignore[arg-type] # the mistake under test
