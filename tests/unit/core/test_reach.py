"""How many entries are read for a request's records."""

from __future__ import annotations

from worker.core.reach import ENTRIES_A_PAIR_MAX, Reach


def test_it_begins_with_one_entry_a_record() -> None:
    assert Reach().entries(500) == 500


def test_entries_of_few_pairs_are_read_by_the_thousand_within_a_few_rounds() -> None:
    reach = Reach()
    for _ in range(5):
        reach.learn(500, reach.entries(500), 16)
    assert 4_500 < reach.entries(500) <= 500 * ENTRIES_A_PAIR_MAX


def test_it_follows_when_pairs_become_many() -> None:
    reach = Reach(ENTRIES_A_PAIR_MAX)
    for _ in range(5):
        reach.learn(500, 500, 500)
    assert reach.entries(500) < 700


def test_few_entries_hardly_move_it() -> None:
    reach = Reach()
    reach.learn(500, 3, 1)
    assert reach.entries(500) <= 503


def test_nothing_read_moves_nothing() -> None:
    reach = Reach(4.0)
    reach.learn(500, 0, 0)
    assert reach.entries_a_pair == 4.0
