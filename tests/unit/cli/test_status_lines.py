"""The status in words, as `status` prints it."""

from __future__ import annotations

from tests.support.snapshot import T, snapshot
from worker.admin.status import LaneStatus
from worker.cli.status import status_lines


def row(name: str, lines: list[str]) -> str:
    (found,) = [line.removeprefix(name).strip() for line in lines if line.startswith(name)]
    return found


def test_each_lane_has_its_own_words() -> None:
    lanes = {"live": LaneStatus(1, 0, T - 2500), "bulk": LaneStatus(7, 8_000, T - 600_000)}
    assert row("lanes", status_lines(snapshot(lanes=lanes).status)) == (
        "live: 1 entry in the log, 0 pairs pending, the oldest for 2.5 s; "
        "bulk: 7 entries in the log, 8,000 pairs pending, the oldest for 10 min 0 s"
    )


def test_a_lane_in_which_nothing_waits_says_so() -> None:
    lanes = {"live": LaneStatus(0, 0, None), "bulk": LaneStatus(0, 1, T - 1000)}
    assert row("lanes", status_lines(snapshot(lanes=lanes).status)) == (
        "live: nothing waits; bulk: 0 entries in the log, 1 pair pending, the oldest for 1.0 s"
    )
