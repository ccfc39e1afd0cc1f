"""Waits: how long they are, and how a Retry-After is read."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.backoff import full_jitter, next_try_ms, retry_after_seconds

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC).timestamp()
ALMOST_ONE = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (9, 60.0), (10**6, 60.0)]
)
def test_the_longest_wait_doubles_with_each_attempt_up_to_the_maximum(attempt: int, ceiling: float) -> None:
    assert full_jitter(attempt, 0.5, 60.0, ALMOST_ONE) == pytest.approx(ceiling)


@pytest.mark.parametrize("attempt", [1, 5, 10**6])
def test_the_shortest_wait_is_a_tenth_of_the_base_and_never_nothing(attempt: int) -> None:
    assert full_jitter(attempt, 0.5, 60.0, 0.0) == pytest.approx(0.05)


def test_the_draw_spreads_the_wait_evenly_between_the_two() -> None:
    assert full_jitter(3, 1.0, 60.0, 0.5) == pytest.approx((0.1 + 4.0) / 2)


def test_a_maximum_below_the_base_is_kept() -> None:
    assert full_jitter(1, 10.0, 0.5, ALMOST_ONE) == pytest.approx(0.5)
    assert full_jitter(1, 10.0, 0.5, 0.0) == pytest.approx(0.5)


def test_attempts_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="attempt: counted from 1, got 0"):
        full_jitter(0, 0.5, 60.0, 0.5)


@given(
    attempt=st.integers(1, 10**9),
    base=st.floats(1e-3, 1e6),
    largest=st.floats(1e-3, 1e6),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_every_wait_is_above_nothing_and_at_most_the_maximum(
    attempt: int, base: float, largest: float, draw: float
) -> None:
    assert 0 < full_jitter(attempt, base, largest, draw) <= largest


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("+3", 3),
        ("1.5", 1.5),
        ("-4", 0),
        ("9999999999", 9_999_999_999),
        ("99999999999", 9_999_999_999),  # a larger number must not wait less
        ("9" * 400, 9_999_999_999),
        ("20, 40", 40),  # the header came twice
        ("40,20", 40),
        ("soon, 5", 5),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 11:59:30 GMT", 0),  # in the past
        ("Mon, 23 Nov 2026 13:00:30 +0100", 30),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30),  # the obsolete form of RFC 850
        ("Mon, 23 Nov 2026 12:00:30 GMT, 20", 30),
        ("40, Mon, 23 Nov 2026 12:00:30 GMT", 40),
        ("Mon, 23 Nov 2026 12:00:30 GMT, Mon, 23 Nov 2026 12:00:50 GMT", 50),
        ("Mon Nov 23 12:00:30 2026", 30),  # and that of asctime, which is GMT without saying so
    ],
)
def test_reads_seconds_and_dates(header: str, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "header", [None, "", " ", "soon", "1e3", "0x10", "nan", "inf", "-inf", "٣", "a, b", ",", "Mon, 99 Foo 2026"]
)
def test_garbage_is_as_if_it_were_not_there(header: str | None) -> None:
    assert retry_after_seconds(header, NOW) is None


@given(st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(9998, 1, 1)))  # noqa: DTZ001 - zone follows
def test_every_date_is_read_back_as_it_was_written(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    wanted = max(0.0, moment.timestamp() - NOW)
    assert retry_after_seconds(format_datetime(moment, usegmt=True), NOW) == pytest.approx(wanted)


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,9} [A-Z][a-z]{2} [0-9]{1,9} [0-9:]{1,12} [+-]?[0-9]{1,9}"))
def test_no_header_raises_or_makes_a_wait_that_is_no_finite_time(header: str) -> None:
    seconds = retry_after_seconds(header, NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@pytest.mark.parametrize(
    ("waited_seconds", "next_seconds"),
    [
        (0, 60),
        (59, 60),
        (60, 660),
        (661, 4_260),
        (4_260, 25_860),
        (25_860, 112_260),
        (112_260, 198_660),
        (10 * 86_400, 25_860 + 10 * 86_400),
    ],
)
def test_a_parked_pair_is_tried_by_a_schedule_that_begins_with_its_first_refusal(
    waited_seconds: int, next_seconds: int
) -> None:
    assert next_try_ms(1_000, 1_000 + waited_seconds * 1000) == 1_000 + next_seconds * 1000


def test_a_clock_that_went_back_begins_the_schedule_again() -> None:
    assert next_try_ms(10_000_000, 1_000) == 61_000
