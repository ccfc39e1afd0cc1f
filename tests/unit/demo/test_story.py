"""The demo's traffic is what it claims to be, and its oracle knows the one right end of any changes."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import ContactChange
from worker.demo.story import TAIL, Step, Story, contacts_after, tell

if TYPE_CHECKING:
    from producers import Op

START_MS = 1_795_460_847_000
SECONDS = 10.0


def change(contact: str, op: Op, at: int) -> ContactChange:
    return ContactChange(owner="1", contact=contact, op=op, at=START_MS + at)


def by_pair(story: Story) -> dict[tuple[str, str], list[Step]]:
    found = defaultdict(list)
    for step in story.steps:
        found[step.pair].append(step)
    return found


@pytest.fixture(scope="module")
def story() -> Story:
    return tell(random.Random(7), changes=20_000, pairs=3_000, seconds=SECONDS)


few_changes = st.lists(
    st.builds(change, st.sampled_from("abc"), st.sampled_from(["upsert", "delete"]), st.integers(0, 3)), max_size=12
)


# The oracle


def test_the_latest_change_of_a_pair_decides() -> None:
    assert contacts_after([change("a", "delete", 1), change("a", "upsert", 2)]) == {("1", "a")}
    assert contacts_after([change("a", "upsert", 1), change("a", "delete", 2)]) == set()


def test_a_delete_wins_over_an_upsert_of_the_same_millisecond() -> None:
    assert contacts_after([change("a", "upsert", 1), change("a", "delete", 1)]) == set()
    assert contacts_after([change("a", "delete", 1), change("a", "upsert", 1)]) == set()


def test_a_change_that_arrives_late_decides_nothing() -> None:
    assert contacts_after([change("a", "upsert", 2), change("a", "delete", 1)]) == {("1", "a")}


def test_pairs_do_not_concern_each_other() -> None:
    there = ContactChange(owner="1", contact="6", op="upsert", at=START_MS)
    back = ContactChange(owner="6", contact="1", op="delete", at=START_MS + 1)
    assert contacts_after([there, back]) == {("1", "6")}


@given(changes=few_changes, shuffler=st.randoms(use_true_random=False))
def test_neither_the_order_of_arrival_nor_doubles_matter(changes: list[ContactChange], shuffler: random.Random) -> None:
    arrived = [*changes, *changes[::2]]
    shuffler.shuffle(arrived)
    assert contacts_after(arrived) == contacts_after(changes)


@given(changes=few_changes)
def test_the_end_is_that_of_applying_them_one_by_one_as_they_happened_deletes_last(
    changes: list[ContactChange],
) -> None:
    present: set[tuple[str, str]] = set()
    for each in sorted(changes, key=lambda each: (each.at, each.op != "upsert")):
        (present.add if each.op == "upsert" else present.discard)((each.owner, each.contact))
    assert contacts_after(changes) == present


# The traffic


def test_there_are_as_many_changes_and_pairs_as_asked_for(story: Story) -> None:
    assert len(story.steps) == 20_000
    assert len(by_pair(story)) == 3_000


@given(seed=st.integers(0, 2**32), pairs=st.integers(1, 40), further=st.integers(0, 100), seconds=st.floats(1.0, 30.0))
def test_so_it_is_whatever_is_asked_for(seed: int, pairs: int, further: int, seconds: float) -> None:
    asked = pairs + further
    told = tell(random.Random(seed), changes=asked, pairs=pairs, seconds=seconds)
    assert (len(told.steps), len(by_pair(told))) == (asked, pairs)
    assert all(0 <= step.due_seconds <= seconds for step in told.steps)


def test_the_same_seed_tells_the_same_story(story: Story) -> None:
    assert tell(random.Random(7), changes=20_000, pairs=3_000, seconds=SECONDS) == story
    assert tell(random.Random(8), changes=20_000, pairs=3_000, seconds=SECONDS) != story


def test_it_is_told_in_the_order_of_emission_and_no_change_happens_after_it_was_emitted(story: Story) -> None:
    assert [step.due_seconds for step in story.steps] == sorted(step.due_seconds for step in story.steps)
    assert all(step.at_ms <= step.due_seconds * 1000 for step in story.steps)


def test_changes_flow_all_the_time(story: Story) -> None:
    seconds = [sum(1 for step in story.steps if second <= step.due_seconds < second + 1) for second in range(8)]
    assert all(1_000 < number < 4_000 for number in seconds)


def test_some_pairs_change_far_more_often_than_others(story: Story) -> None:
    lengths = sorted(len(steps) for steps in by_pair(story).values())
    assert lengths[0] == 1
    assert lengths[-1] > 5 * lengths[len(lengths) // 2]


@pytest.mark.parametrize("kind", ["flickers", "re-adds", "late changes", "doubled changes", "ties"])
def test_every_kind_of_flurry_is_in_it(story: Story, kind: str) -> None:
    assert story.kinds[kind] > 100


def test_deletes_are_followed_by_upserts_known_to_be_later(story: Story) -> None:
    readds = sum(
        any(a.op == "delete" and b.op == "upsert" and a.at_ms < b.at_ms for a, b in pairwise(steps))
        for steps in by_pair(story).values()
    )
    assert readds > 1_000


def test_changes_arrive_after_newer_ones_that_may_be_confirmed_by_then(story: Story) -> None:
    late = 0
    for steps in by_pair(story).values():
        for i, step in enumerate(steps):
            late += any(
                step.at_ms < other.at_ms and step.due_seconds - other.due_seconds > SECONDS * TAIL / 2
                for other in steps[:i]
            )
    assert late > 300


def test_changes_are_doubled(story: Story) -> None:
    doubled = sum(len(steps) - len({(step.op, step.at_ms) for step in steps}) for steps in by_pair(story).values())
    assert doubled > 500


def test_the_end_hangs_on_the_times_and_not_on_the_order_of_arrival(story: Story) -> None:
    """Else a system that knew no times would pass the demo too."""
    changes = [step.change(START_MS) for step in story.steps]
    in_order_of_arrival = {(each.owner, each.contact): each.op for each in changes}
    last_arrived = {pair for pair, op in in_order_of_arrival.items() if op == "upsert"}
    assert len(contacts_after(changes) ^ last_arrived) > 100


def test_a_step_says_its_change_as_a_producer_does() -> None:
    said = Step(due_seconds=2.0, pair=("1", "9"), op="delete", at_ms=-250).change(START_MS)
    assert said == ContactChange(owner="1", contact="9", op="delete", at=START_MS - 250, source="demo")
