"""The difference of a snapshot: sent, it makes the sets equal, and nothing newer is ever undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from worker.core.pair import Remembered, state_of, verdict
from worker.reconcile.difference import difference

if TYPE_CHECKING:
    from producers.contract.change import Op

AS_OF = 1_795_460_000_000
pairs = st.sampled_from([b"1\x1f2", b"1\x1f3", b"2\x1f2", b"2\x1f3"])
ops: st.SearchStrategy[Op] = st.sampled_from(["upsert", "delete"])
stamps = st.one_of(st.just(0), st.integers(AS_OF - 3, AS_OF + 3))
ledgers = st.dictionaries(pairs, st.builds(Remembered, ops, stamps, stamps))
said_by = st.dictionaries(pairs, ops)


@given(said_by, ledgers, st.sets(pairs))
def test_every_pair_is_judged_once(said: dict[bytes, Op], known: dict[bytes, Remembered], waits: set[bytes]) -> None:
    found = [pair for _, pair in difference(said, known, waits, AS_OF, whole=True)]
    assert len(found) == len(set(found))
    assert set(found) == said.keys() | {pair for pair, each in known.items() if each.op == "upsert"}


@given(said_by, ledgers)
def test_what_is_sent_makes_the_endpoint_what_the_source_says_but_for_what_is_newer(
    said: dict[bytes, Op], known: dict[bytes, Remembered]
) -> None:
    present = {pair for pair, each in known.items() if each.op == "upsert"}
    wanted = {pair for pair, op in said.items() if op == "upsert"}
    kept = set()
    for what, pair in difference(said, known, (), AS_OF, whole=True):
        if what == "upsert":
            present.add(pair)
        elif what == "delete":
            present.discard(pair)
        elif what != "unchanged":
            kept.add(pair)
    assert present - kept == wanted - kept


@given(said_by, ledgers, st.sets(pairs))
def test_nothing_is_sent_that_the_workers_rules_would_drop(
    said: dict[bytes, Op], known: dict[bytes, Remembered], waits: set[bytes]
) -> None:
    for what, pair in difference(said, known, waits, AS_OF, whole=True):
        if (what == "upsert" or what == "delete") and pair in known:  # noqa: PLR1714 - narrows the type
            assert verdict(state_of(what, AS_OF, AS_OF), known[pair], "resend").op == what


@given(said_by, ledgers)
def test_from_a_source_that_is_not_whole_nothing_is_taken_for_gone(
    said: dict[bytes, Op], known: dict[bytes, Remembered]
) -> None:
    sent = {pair for what, pair in difference(said, known, (), AS_OF, whole=False) if what == "delete"}
    assert sent <= {pair for pair, op in said.items() if op == "delete"}


@given(said_by, ledgers)
def test_only_what_the_workers_rules_would_drop_is_called_newer(
    said: dict[bytes, Op], known: dict[bytes, Remembered]
) -> None:
    for what, pair in difference(said, known, (), AS_OF, whole=True):
        if what == "newer":
            op = said.get(pair, "delete")
            assert verdict(state_of(op, AS_OF, AS_OF), known[pair], "resend").op is None


@given(said_by, ledgers, st.sets(pairs))
def test_pairs_that_have_dead_letters_are_not_upserted_and_all_else_is_as_it_was(
    said: dict[bytes, Op], known: dict[bytes, Remembered], dead: set[bytes]
) -> None:
    without = list(difference(said, known, (), AS_OF, whole=True))
    found = list(difference(said, known, (), AS_OF, whole=True, dead=dead))
    assert found == [("dead" if what == "upsert" and pair in dead else what, pair) for what, pair in without]
