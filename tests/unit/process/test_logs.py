"""What of Celery's own lines is shown."""

from __future__ import annotations

import logging

import pytest

from worker.process.logs import REPEATED_SECONDS, FirstOfMany


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def line(name: str, level: int, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, "cannot connect: %s", args, None)


def test_what_celery_says_again_and_again_is_shown_once_in_a_while() -> None:
    clock = Clock()
    shown = FirstOfMany(clock)
    assert shown.filter(line("celery.worker.consumer.consumer", logging.ERROR, "a"))
    assert not shown.filter(line("celery.worker.consumer.consumer", logging.ERROR, "a"))
    assert shown.filter(line("celery.worker.consumer.consumer", logging.ERROR, "b"))
    assert shown.filter(line("kombu.connection", logging.ERROR, "a"))
    clock.seconds = REPEATED_SECONDS
    assert shown.filter(line("celery.worker.consumer.consumer", logging.ERROR, "a"))


@pytest.mark.parametrize(("name", "level"), [("contact_sync", logging.ERROR), ("celery.worker.consumer", logging.INFO)])
def test_our_own_lines_and_plain_news_are_always_shown(name: str, level: int) -> None:
    shown = FirstOfMany()
    assert [shown.filter(line(name, level, "a")) for _ in range(3)] == [True] * 3


def test_of_celerys_trouble_with_the_broker_no_traceback_is_shown() -> None:
    record = line("celery.worker.consumer.consumer", logging.CRITICAL, "a")
    error = OSError("no")
    record.exc_info = (OSError, error, None)
    assert FirstOfMany().filter(record)
    assert record.exc_info is None


def test_what_is_remembered_of_different_lines_ends_somewhere() -> None:
    shown = FirstOfMany()
    for number in range(1_001):
        assert shown.filter(line("celery.worker.consumer.consumer", logging.ERROR, number))
    assert shown.filter(line("celery.worker.consumer.consumer", logging.ERROR, 0))
