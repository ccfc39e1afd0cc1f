"""The status in words, as `status` prints it."""

from __future__ import annotations

from dataclasses import replace

from tests.support.snapshot import T, snapshot
from worker.admin.status import TOTALS, LaneStatus
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


def test_one_of_a_thing_is_said_in_the_singular() -> None:
    ones = dict.fromkeys(TOTALS, 1)
    lines = status_lines(replace(snapshot().status, backlog_events=1, pending_pairs=1, dead_letters=1, totals=ones))
    assert "1 entry in the log, 1 pair pending" in row("waiting", lines)
    assert row("dead", lines).startswith("1 letter:")
    assert row("confirmed", lines) == "1 record: 1 upsert, 1 delete"
    assert row("spared", lines) == "1 coalesced, 1 superseded, 1 stale, of 1 event"
    assert row("requests", lines) == "1, 1 retry, 1 repair"
