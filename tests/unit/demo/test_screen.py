"""What a person sees of the demo, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from tests.support.snapshot import idle_status
from worker.demo.numbers import Numbers
from worker.demo.screen import LiveScreen, PlainScreen, Rate, screen_for
from worker.demo.summary import summarize
from worker.standin.views import Counts

VALUES = {"emitted": "1,234", "waiting": "34", "coalesced": "200", "requests": "7", "confirmed": "1,000"}


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def numbers() -> Numbers:
    counts: Any = dict.fromkeys(Counts.__annotations__, 0) | {"faults": {}, "requests": 7}
    ends = {"events": 1_234, "coalesced": 150, "superseded": 50, "records_confirmed": 1_000}
    status = idle_status(backlog_events=34, totals=ends)
    return Numbers(1_234, status, 0, counts)


def live(clock: Clock) -> tuple[LiveScreen, Terminal]:
    terminal = Terminal()
    able = {"TERM": "xterm"}  # whatever terminal the tests run in
    console = Console(file=terminal, force_terminal=True, width=100, color_system=None, _environ=able)
    return LiveScreen(console, clock), terminal


def plain(clock: Clock) -> tuple[PlainScreen, io.StringIO]:
    lines = io.StringIO()
    screen = screen_for(lines, clock)
    assert isinstance(screen, PlainScreen)
    return screen, lines


def test_the_live_view_shows_every_number_above_its_name(clock: Clock) -> None:
    screen, terminal = live(clock)
    with screen:
        screen.show(numbers(), done=0.5)
    lines = re.sub(r"\x1b\[[0-9?;]*[A-Za-z]", "", terminal.getvalue()).splitlines()
    place = next(i for i, line in enumerate(lines) if "emitted" in line)
    shown = dict(zip(lines[place].split(), lines[place - 1].split(), strict=True))
    assert {name: shown[name] for name in VALUES} == VALUES


def test_the_live_view_tells_what_happens_with_the_time(clock: Clock) -> None:
    screen, terminal = live(clock)
    with screen:
        clock.seconds += 3.2
        screen.say("The endpoint is back")
    assert "  3.2 s  The endpoint is back" in terminal.getvalue()


def test_elsewhere_every_event_is_a_line_with_the_time(clock: Clock) -> None:
    screen, lines = plain(clock)
    with screen:
        clock.seconds += 12.34
        screen.say("The endpoint [away] is back")
    assert lines.getvalue() == " 12.3 s  The endpoint [away] is back\n"


def test_elsewhere_the_numbers_are_a_line_a_second(clock: Clock) -> None:
    screen, lines = plain(clock)
    with screen:
        for _ in range(25):
            clock.seconds += 0.1
            screen.show(numbers(), done=0.5)
    assert lines.getvalue().count("\n") == 2
    assert all(f"{name} {value}" in lines.getvalue() for name, value in VALUES.items())


@pytest.mark.parametrize(
    ("stream", "term", "kind"), [(Terminal(), "xterm", LiveScreen), (Terminal(), "dumb", PlainScreen)]
)
def test_the_live_view_is_for_terminals_that_can_move_their_cursor(
    stream: Terminal, term: str, kind: type, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert isinstance(screen_for(stream, clock), kind)


def test_the_summary_is_a_line_for_each_number(clock: Clock) -> None:
    screen, lines = plain(clock)
    pair = {("1", "2")}
    judged = summarize(
        seconds=12.0,
        kinds=Counter(ties=3),
        pairs=pair,
        expected=pair,
        actual=set(),
        numbers=numbers(),
        workers_killed=1,
        unfinished=[],
    )
    screen.conclude(judged)
    assert re.search(r"^wrong pairs +1 ", lines.getvalue(), re.MULTILINE)
    assert re.search(r"^faults survived +1  workers killed: 1$", lines.getvalue(), re.MULTILINE)


def test_the_rate_is_that_of_the_last_two_seconds(clock: Clock) -> None:
    rate = Rate(clock)
    assert rate.of(0) == 0
    clock.seconds += 1
    assert rate.of(10) == 10
    clock.seconds += 1
    assert rate.of(10) == 5
    clock.seconds += 2
    assert rate.of(10) == 0
