"""The endurance run: what counts as growth, and a slice of it with all that runs."""

from __future__ import annotations

import pytest

from tests.endurance.run import SLACK, endure
from tests.endurance.trend import trend


def test_what_only_moves_is_flat() -> None:
    assert trend([100 + i % 3 for i in range(100)]).is_flat(0)


def test_what_fills_up_at_first_is_flat() -> None:
    assert trend([min(100.0, 40 + 4 * i) for i in range(100)]).is_flat(0)


def test_what_grows_by_a_tenth_is_not() -> None:
    assert not trend([100 + i / 7 for i in range(100)]).is_flat(0)


def test_one_file_more_in_every_ten_samples_is_growth() -> None:
    assert not trend([10 + i // 10 for i in range(100)]).is_flat(SLACK["files"])


def test_a_trend_needs_samples() -> None:
    with pytest.raises(ValueError, match="needs 8 samples"):
        trend([1.0] * 7)


@pytest.mark.slow
def test_a_slice_runs_all_parts_and_delivers_all() -> None:
    samples, delivered = endure(12, rate=40)
    assert delivered > 2_000  # the rows of the reconciliation
    parts = {name.partition(",")[0] for name in samples} - {"seconds"}
    assert parts == {"worker", "serve", "relay", "reconcile", "Redis"}
    assert all(value > 0 for name, values in samples.items() for value in values), samples
