"""The screen of `status --watch`: eighty columns, twenty-four lines, and what is wrong first."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.snapshot import T, gate_of, idle_status
from worker.admin.status import TOTALS, Part, Status
from worker.cli.watch import HEIGHT, WIDTH, Watched, screen

NOTHING = Part(0, 0, 0, None, None, leased=False)


def status_at(after_ms: int = 0, parts: tuple[Part, ...] = (NOTHING,) * 64, **totals: int) -> Status:
    return idle_status(partitions=len(parts), parts=parts, gate=gate_of(now_ms=T + after_ms), totals=totals)


def watched(*statuses: Status) -> Watched:
    found = Watched()
    for each in statuses:
        found.add(each)
    return found


def drawn(found: Watched, lines: tuple[str, ...] = ("oldest    nothing waits",), trouble: str = "") -> list[str]:
    return screen(found, lines, trouble).plain.split("\n")


def line(lines: list[str], name: str) -> str:
    (found,) = [each for each in lines if each.startswith(name)]
    return found


def test_rates_are_of_the_last_status_and_of_the_minute_before() -> None:
    found = watched(
        status_at(0, events=100), status_at(1_000, events=1_100, stale=3), status_at(3_000, events=1_300, stale=3)
    )
    accepted, spared = line(drawn(found), "accepted"), line(drawn(found), "spared")
    assert accepted.split()[1:3] == ["100.0/s", "400.0/s"]
    assert accepted.endswith("█▂")
    assert spared.split()[1:3] == ["0.0/s", "1.0/s"]


def test_one_status_tells_no_rate() -> None:
    assert line(drawn(watched(status_at(events=100))), "accepted").split()[1] == "0.0/s"


def test_a_clock_that_went_back_begins_anew() -> None:
    assert (
        line(drawn(watched(status_at(5_000, events=100), status_at(0, events=200))), "accepted").split()[1] == "0.0/s"
    )


def test_counters_that_were_begun_anew_are_no_negative_rate() -> None:
    assert line(drawn(watched(status_at(0, events=100), status_at(1_000, events=0))), "accepted").split()[1] == "0.0/s"


def test_a_minute_is_remembered_and_no_more() -> None:
    found = watched(*(status_at(1_000 * n, events=1_000 if n else 0) for n in range(100)))
    assert line(drawn(found), "accepted").split()[2] == "0.0/s"


@pytest.mark.parametrize("count", [1, 64, 100, 1_024])
def test_every_partition_has_its_place_and_the_busiest_are_named(count: int) -> None:
    busy = Part(9_000, 10, 0, T - 61_000, None, leased=True)
    parts = (*(NOTHING,) * (count - 1), busy)
    lines = drawn(watched(status_at(parts=parts)))
    signs = line(lines, "partitions ").removeprefix("partitions ")
    assert len(signs) <= 64
    assert signs.endswith("█")
    assert set(signs[:-1]) <= {"·"}
    assert line(lines, f"  {count - 1:>6}  ").endswith("9,000 in the log, 10 pending; the oldest for 1 min 1 s")


@pytest.mark.parametrize("trouble", ["", "Redis at redis://somewhere.internal:6379/0: " + "it does not answer " * 9])
def test_it_fits_a_small_terminal_whatever_is_wrong(trouble: str) -> None:
    busy = Part(10**9, 10**9, 10**4, T - 10**9, None, leased=True)
    statuses = [status_at(1_000 * n, (busy,) * 64, **dict.fromkeys(TOTALS, 10**9 * n)) for n in range(90)]
    lines = drawn(watched(*statuses), (f"endpoint  held; last error: {'x' * 50} {'界' * 90}",) * 9, trouble)
    assert len(lines) <= HEIGHT
    assert all(len(each) <= WIDTH for each in lines)
    assert lines[0].startswith("contact-sync" if not trouble else "2026-11-23")


def test_trouble_is_said_beside_the_last_that_was_seen() -> None:
    lines = drawn(watched(status_at()), trouble="Redis does not answer")
    assert lines[0] == "2026-11-23 19:07:27 UTC, and nothing newer: Redis does not answer"
    assert "nothing waits" in lines[2]


def test_words_that_are_too_long_go_on_in_the_next_line() -> None:
    said: Any = "endpoint  backing off; last error: " + " ".join(["word"] * 20)
    assert "".join(drawn(watched(status_at()), (said,))[2:4]).replace(" ", "") == said.replace(" ", "")
