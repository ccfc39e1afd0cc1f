"""The ticker scans many partitions less often than few: a scan costs as much more."""

from __future__ import annotations

import pytest

from worker.core.backlog import PartitionBacklog, Survey
from worker.core.timing import TICKER_IDLE_SECONDS
from worker.process.ticker import PACE_SECONDS, SCANNED_AT_PACE, pace_of


def _survey(waiting: int) -> Survey:
    return Survey(1, [PartitionBacklog(p, oldest_ms=1, entries=1) for p in range(waiting)])


@pytest.mark.parametrize("waiting", [1, 64, SCANNED_AT_PACE])
def test_few_partitions_are_scanned_at_the_usual_pace(waiting: int) -> None:
    assert pace_of(_survey(waiting)) == PACE_SECONDS


def test_scans_of_many_take_no_larger_share_of_the_time() -> None:
    assert pace_of(_survey(1_024)) == pytest.approx(4 * PACE_SECONDS)


def test_no_scan_is_later_than_that_of_an_idle_ticker() -> None:
    assert pace_of(_survey(16_384)) == TICKER_IDLE_SECONDS
