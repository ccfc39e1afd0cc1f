from __future__ import annotations

from worker.standin.history import History


def test_the_oldest_is_forgotten_once_there_are_too_many_records() -> None:
    history: History[str] = History(limit=10)
    for name, records in (("first", 4), ("second", 4), ("third", 4)):
        history.append(name, records)
    assert list(history) == ["second", "third"]


def test_items_without_records_are_bounded_too() -> None:
    history: History[int] = History(limit=3)
    for number in range(10):
        history.append(number, 0)
    assert list(history) == [7, 8, 9]


def test_the_newest_stays_however_many_records_it_holds() -> None:
    history: History[str] = History(limit=3)
    history.append("first", 1)
    history.append("second", 100)
    assert list(history) == ["second"]


def test_reading_goes_on_over_what_was_there_when_it_began() -> None:
    history: History[int] = History(limit=2)
    history.append(1, 1)
    reading = iter(history)
    history.append(2, 1)
    history.append(3, 1)
    assert list(reading) == [1]


def test_what_is_cleared_weighs_nothing() -> None:
    history: History[int] = History(limit=3)
    history.append(1, 3)
    history.clear()
    history.append(2, 1)
    history.append(3, 2)
    assert list(history) == [2, 3]
