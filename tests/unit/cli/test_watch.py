"""The screen of `status --watch`: eighty columns, twenty-four lines, and what is wrong first."""

from __future__ import annotations

from typing import Any

import pytest

from worker.admin.status import TOTALS, Part, Status
from worker.cli.watch import HEIGHT, WIDTH, Watched, screen
from worker.core.gate import GateSnapshot

NOW_MS = 1_795_460_847_757
NOTHING = Part(0, 0, 0, None, None, leased=False)


def look(after_ms: int = 0, parts: tuple[Part, ...] = (NOTHING,) * 64, **totals: int) -> Status:
    gate = GateSnapshot(NOW_MS + after_ms, "ok", 0, 0, None, "", "", 0, 0)
    return Status(
        partitions=len(parts),
        backlog_events=0,
        pending_pairs=0,
        in_flight=0,
        oldest_ms=None,
        dead_letters=0,
        worker_awake=True,
        gate=gate,
        totals={name: totals.get(name, 0) for name in TOTALS},
        wrong_type_partitions=(),
        parts=parts,
    )


def watched(*looks: Status) -> Watched:
    found = Watched()
    for each in looks:
        found.add(each)
    return found


def drawn(found: Watched, lines: tuple[str, ...] = ("oldest    nothing waits",), trouble: str = "") -> list[str]:
    return screen(found, lines, trouble).plain.split("\n")


def line(lines: list[str], name: str) -> str:
    (found,) = [each for each in lines if each.startswith(name)]
    return found


def test_rates_are_of_the_last_look_and_of_the_minute_before() -> None:
    found = watched(look(0, events=100), look(1_000, events=1_100, stale=3), look(3_000, events=1_300, stale=3))
    accepted, spared = line(drawn(found), "accepted"), line(drawn(found), "spared")
    assert accepted.split()[1:3] == ["100.0/s", "400.0/s"]
    assert accepted.endswith("█▂")
    assert spared.split()[1:3] == ["0.0/s", "1.0/s"]


def test_one_look_tells_no_rate() -> None:
    assert line(drawn(watched(look(events=100))), "accepted").split()[1] == "0.0/s"


def test_a_clock_that_went_back_begins_anew() -> None:
    assert line(drawn(watched(look(5_000, events=100), look(0, events=200))), "accepted").split()[1] == "0.0/s"


def test_counters_that_were_begun_anew_are_no_negative_rate() -> None:
    assert line(drawn(watched(look(0, events=100), look(1_000, events=0))), "accepted").split()[1] == "0.0/s"


def test_a_minute_is_remembered_and_no_more() -> None:
    found = watched(*(look(1_000 * n, events=1_000 if n else 0) for n in range(100)))
    assert line(drawn(found), "accepted").split()[2] == "0.0/s"


@pytest.mark.parametrize("count", [1, 64, 100, 1_024])
def test_every_partition_has_its_place_and_the_busiest_are_named(count: int) -> None:
    busy = Part(9_000, 10, 0, NOW_MS - 61_000, None, leased=True)
    parts = (*(NOTHING,) * (count - 1), busy)
    lines = drawn(watched(look(parts=parts)))
    signs = line(lines, "partitions ").removeprefix("partitions ")
    assert len(signs) <= 64
    assert signs.endswith("█")
    assert set(signs[:-1]) <= {"·"}
    assert line(lines, f"  {count - 1:>6}  ").endswith("9,000 in the log, 10 pending; the oldest for 1 min 1 s")


@pytest.mark.parametrize("trouble", ["", "Redis at redis://somewhere.internal:6379/0: " + "it does not answer " * 9])
def test_it_fits_a_small_terminal_whatever_is_wrong(trouble: str) -> None:
    busy = Part(10**9, 10**9, 10**4, NOW_MS - 10**9, None, leased=True)
    looks = [look(1_000 * n, (busy,) * 64, **dict.fromkeys(TOTALS, 10**9 * n)) for n in range(90)]
    lines = drawn(watched(*looks), (f"endpoint  held; last error: {'x' * 50} {'界' * 90}",) * 9, trouble)
    assert len(lines) <= HEIGHT
    assert all(len(each) <= WIDTH for each in lines)
    assert lines[0].startswith("contact-sync" if not trouble else "2026-11-23")


def test_trouble_is_said_beside_the_last_that_was_seen() -> None:
    lines = drawn(watched(look()), trouble="Redis does not answer")
    assert lines[0] == "2026-11-23 19:07:27 UTC, and nothing newer: Redis does not answer"
    assert "nothing waits" in lines[2]


def test_words_that_are_too_long_go_on_in_the_next_line() -> None:
    said: Any = "endpoint  backing off; last error: " + " ".join(["word"] * 20)
    assert "".join(drawn(watched(look()), (said,))[2:4]).replace(" ", "") == said.replace(" ", "")
