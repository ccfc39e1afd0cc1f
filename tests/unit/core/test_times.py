"""Times and durations as people and programs read them."""

from __future__ import annotations

import pytest

from worker.core.times import in_words, iso_utc

T = 1_795_460_847_757


def test_moments_are_written_in_iso_8601_utc_to_the_millisecond() -> None:
    assert iso_utc(T) == "2026-11-23T19:07:27.757Z"
    assert iso_utc(10**20) == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (0.34, "0.3 s"), (42, "42 s"), (61, "1 min 1 s"), (12_000, "3 h 20 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_written_in_their_two_largest_units(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
