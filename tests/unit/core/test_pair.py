"""Joining, staleness, verdict and ledger: their laws, and the rules in section 3 of contract.md one by one."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from worker.core.pair import PairState, Remembered, Side, confirm, join, join_remembered, state_of, verdict

if TYPE_CHECKING:
    from producers.contract.change import Op
    from worker.core.pair import Readd

T = 1_795_460_847_000
EIGHT, NINE, TEN = T + 8, T + 9, T + 10

ops = st.sampled_from(["upsert", "delete"])
stamps = st.integers(T, T + 6)
# A change as `state_of` takes it: few distinct times, so that ties and duplicates are frequent.
changes = st.tuples(ops, st.one_of(st.just(0), stamps), stamps, st.sampled_from([b"", b"a", b"b"]))
singles = st.builds(
    lambda change, suspect: state_of(*change)._replace(suspect=suspect), changes, st.sampled_from([0, 0, 1, 2, 250])
)
states = st.lists(singles, min_size=1, max_size=6).map(lambda some: reduce(join, some))
ledgers = st.one_of(st.none(), st.builds(Remembered, ops, st.one_of(st.just(0), stamps), st.one_of(st.just(0), stamps)))
modes: list[Readd] = ["resend", "absorb"]
readds = st.sampled_from(modes)


@given(states, states)
def test_joining_is_commutative(a: PairState, b: PairState) -> None:
    assert join(a, b) == join(b, a)


@given(states, states, states)
def test_joining_is_associative(a: PairState, b: PairState, c: PairState) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))


@given(states)
def test_joining_a_state_with_itself_changes_nothing(a: PairState) -> None:
    assert join(a, a) == a


@given(st.data(), st.lists(singles, min_size=1, max_size=6), ledgers, readds)
def test_the_verdict_is_the_same_in_any_order_with_duplicates_and_in_any_split(
    data: st.DataObject, some: list[PairState], ledger: Remembered | None, readd: Readd
) -> None:
    shuffled = data.draw(st.permutations(some + data.draw(st.lists(st.sampled_from(some), max_size=3))))
    cut = data.draw(st.integers(0, len(shuffled)))
    parts = [reduce(join, part) for part in (shuffled[:cut], shuffled[cut:]) if part]
    assert verdict(reduce(join, parts), ledger, readd) == verdict(reduce(join, some), ledger, readd)


@given(states, ledgers, readds)
def test_every_change_of_a_state_ends_or_waits_exactly_once(
    state: PairState, ledger: Remembered | None, readd: Readd
) -> None:
    reached = verdict(state, ledger, readd)
    rest = reached.rest.live if reached.rest else 0
    assert state.live == (reached.op is not None) + rest + reached.superseded + reached.stale


@given(states, ledgers)
def test_a_record_never_contradicts_the_ledger(state: PairState, ledger: Remembered | None) -> None:
    reached = verdict(state, ledger, "resend")
    if reached.op is None or reached.state is None or ledger is None:
        return
    delete, upsert = reached.state.delete, reached.state.upsert
    if reached.op == "delete" and delete is not None and not delete.entry_ms:
        assert delete.at > ledger.delete_at
        assert delete.at >= ledger.upsert_at
    if reached.op == "upsert" and upsert is not None and not upsert.entry_ms:
        assert upsert.at > max(ledger.delete_at, ledger.upsert_at)


@given(states, ledgers)
def test_what_was_confirmed_is_stale_when_it_comes_again(state: PairState, ledger: Remembered | None) -> None:
    delete, upsert = (None if side is None or side.entry_ms else side for side in (state.delete, state.upsert))
    stamped = PairState(delete, upsert)
    assume(stamped.live)
    for _ in range(2):  # the delete, then the upsert known to be later
        if (reached := verdict(stamped, ledger, "resend")).op is not None:
            ledger = confirm(ledger, reached)
    again = verdict(stamped, ledger, "resend")
    assert (again.op, again.stale) == (None, stamped.live)


@given(states, ledgers)
def test_the_ledger_never_forgets_by_a_confirmation(state: PairState, ledger: Remembered | None) -> None:
    reached = verdict(state, ledger, "resend")
    if reached.op is None:
        return
    after = confirm(ledger, reached)
    assert after.op == reached.op
    assert join_remembered(after, ledger) == after


def test_an_upsert_known_to_be_later_waits_until_the_delete_is_confirmed() -> None:
    reached = verdict(join(state_of("delete", EIGHT, T), state_of("upsert", NINE, T, b"app")), None, "resend")
    assert (reached.op, reached.rest) == ("delete", state_of("upsert", NINE, T, b"app"))
    again = verdict(state_of("upsert", NINE, T), confirm(None, reached), "resend")
    assert again.op == "upsert"


def test_with_absorb_the_later_upsert_is_dropped_and_counted_and_remembered() -> None:
    reached = verdict(join(state_of("delete", EIGHT, T), state_of("upsert", NINE, T)), None, "absorb")
    assert (reached.op, reached.rest, reached.superseded) == ("delete", None, 1)
    assert confirm(None, reached) == Remembered("delete", EIGHT, NINE)


@pytest.mark.parametrize(
    ("delete_at", "upsert_at"),
    [
        pytest.param(EIGHT, EIGHT, id="equal"),
        pytest.param(NINE, EIGHT, id="upsert-older"),
        pytest.param(0, NINE, id="delete-without-at"),
        pytest.param(EIGHT, 0, id="upsert-without-at"),
        pytest.param(0, 0, id="both-without-at"),
    ],
)
def test_a_delete_supersedes_every_upsert_not_known_to_be_later(delete_at: int, upsert_at: int) -> None:
    reached = verdict(join(state_of("upsert", upsert_at, TEN), state_of("delete", delete_at, T)), None, "resend")
    assert (reached.op, reached.rest, reached.superseded) == ("delete", None, 1)


@pytest.mark.parametrize(
    ("op", "at", "ledger", "stale"),
    [
        ("delete", EIGHT, Remembered("delete", EIGHT, 0), True),
        ("delete", EIGHT, Remembered("upsert", 0, NINE), True),
        ("delete", NINE, Remembered("upsert", 0, NINE), False),
        ("delete", NINE, Remembered("delete", EIGHT, NINE), False),
        ("upsert", NINE, Remembered("upsert", 0, NINE), True),
        ("upsert", NINE, Remembered("delete", NINE, 0), True),
        ("upsert", TEN, Remembered("delete", NINE, EIGHT), False),
        ("delete", 0, Remembered("upsert", TEN, TEN), False),
        ("upsert", 0, Remembered("delete", TEN, TEN), False),
    ],
)
def test_a_stamped_change_is_stale_against_newer_knowledge_and_an_unstamped_one_never(
    op: Op,
    at: int,
    ledger: Remembered,
    stale: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    reached = verdict(state_of(op, at, T), ledger, "resend")
    assert (reached.op is None, reached.stale) == (stale, int(stale))


def test_a_stale_stamp_does_not_take_an_unstamped_change_beside_it_along() -> None:
    state = join(state_of("upsert", EIGHT, T), state_of("upsert", 0, TEN))
    reached = verdict(state, Remembered("delete", NINE, 0), "resend")
    assert (reached.op, reached.state) == ("upsert", PairState(None, Side(T, 0, TEN)))


def test_a_confirmed_delete_without_at_is_remembered_at_the_time_of_its_entry() -> None:
    ledger = confirm(None, verdict(state_of("delete", 0, NINE), None, "resend"))
    assert ledger == Remembered("delete", NINE, 0)
    assert verdict(state_of("upsert", NINE, TEN), ledger, "resend").stale == 1
    assert verdict(state_of("upsert", TEN, TEN), ledger, "resend").op == "upsert"


def test_a_confirmed_upsert_without_at_is_remembered_without_a_time_but_for_pairs_with_dead_letters() -> None:
    reached = verdict(state_of("upsert", 0, NINE), None, "resend")
    assert confirm(None, reached) == Remembered("upsert", 0, 0)
    assert confirm(None, reached, unstamped_upserts=True) == Remembered("upsert", 0, NINE)


def test_an_upsert_without_at_that_a_delete_superseded_outdates_nothing_beside_dead_letters_either() -> None:
    both = join(state_of("upsert", 0, TEN), state_of("delete", EIGHT, TEN))
    known = confirm(None, verdict(both, None, "resend"), unstamped_upserts=True)
    assert known == Remembered("delete", EIGHT, 0)
    assert verdict(state_of("upsert", NINE, TEN), known, "resend").op == "upsert"


def test_the_source_is_that_of_the_newest_change() -> None:
    state = join(state_of("upsert", TEN, T, b"app"), state_of("upsert", EIGHT, TEN, b"import"))
    assert state.upsert == Side(T, TEN, 0, b"app")


def test_a_state_is_as_old_as_its_oldest_entry() -> None:
    assert join(state_of("upsert", TEN, NINE), state_of("delete", EIGHT, EIGHT)).first_ms == EIGHT
