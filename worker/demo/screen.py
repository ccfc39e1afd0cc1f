"""Shows the demo: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from typing import IO, TYPE_CHECKING, Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.demo.numbers import Numbers
    from worker.demo.summary import Summary

LINE_SECONDS: Final = 1.0
"""Time between two plain lines of numbers."""

RATE_SECONDS: Final = 2.0
"""Time over which the requests per second are measured."""


class Screen(Protocol):
    """Shows the demo's progress; a context manager."""

    def __enter__(self) -> Self:
        """Starts the display."""

    def __exit__(self, *_: object) -> None:
        """Restores the terminal."""

    def say(self, line: str) -> None:
        """Shows an event."""

    def show(self, numbers: Numbers, done: float) -> None:
        """Shows the current numbers; called often. `done` is the emitted part of the changes (0 to 1)."""

    def conclude(self, summary: Summary) -> None:
        """Shows the summary."""


def screen_for(stream: IO[str], clock: Callable[[], float]) -> Screen:
    """Returns the live view if the stream is a terminal that can move its cursor, else plain lines.

    Args:
        stream: where to write.
        clock: monotonic seconds.
    """
    console = Console(file=stream, highlight=False)  # rich respects NO_COLOR
    if stream.isatty() and not console.is_dumb_terminal:
        return LiveScreen(console, clock)
    return PlainScreen(Console(file=stream, highlight=False, color_system=None, width=1000, soft_wrap=True), clock)


class Rate:
    """Requests per second, over the last seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, requests: int) -> float:
        """Returns the rate, given the current total of requests."""
        now = self._clock()
        self._seen.append((now, requests))
        while now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        return (requests - before) / (now - then) if now > then else 0.0


class PlainScreen:
    """One line for each event, and one line per second with the numbers."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._began = self._shown = clock()
        self._rate = Rate(clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def say(self, line: str) -> None:
        """Writes the event with the time since the start."""
        self._console.print(f"{self._clock() - self._began:5.1f} s  {line}", markup=False)

    def show(self, numbers: Numbers, done: float) -> None:  # noqa: ARG002 - the same for every screen
        """Writes the numbers, at most once per second."""
        rate = self._rate.of(numbers.counts["requests"])
        if self._clock() - self._shown < LINE_SECONDS:
            return
        self._shown = self._clock()
        self.say("  ".join(f"{name} {value}" for name, value in _values(numbers, rate)))

    def conclude(self, summary: Summary) -> None:
        """Writes the summary, one line for each number."""
        self._console.print()
        for name, number, words in summary.rows():
            self._console.print(f"{name:<16}{number:>8}  {words}".rstrip(), markup=False)


class LiveScreen:
    """A view that is updated in place, below the lines of events."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._rate = Rate(clock)
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Writes the event above the view, with the time since the start."""
        self._console.print(Text.assemble((f"{self._clock() - self._began:5.1f} s  ", "dim"), line))

    def show(self, numbers: Numbers, done: float) -> None:
        """Updates the view."""
        grid = Table.grid(padding=(0, 3))
        values = [*_values(numbers, self._rate.of(numbers.counts["requests"]))]
        for _ in values:
            grid.add_column(justify="right")
        grid.add_row(*(Text(value, style="bold") for _, value in values))
        grid.add_row(*(Text(name, style="dim") for name, _ in values))
        bar = Table.grid(expand=True)  # a bar alone does not end its line, so what follows would be cut off
        bar.add_row(ProgressBar(total=1.0, completed=done))
        self._live.update(Group(Text(), bar, grid), refresh=True)

    def conclude(self, summary: Summary) -> None:
        """Replaces the view with the summary."""
        self._live.stop()
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right", style="bold")
        table.add_column(style="dim")
        for row in summary.rows():
            table.add_row(*row)
        self._console.print(Text(), table, sep="\n")


def _values(numbers: Numbers, rate: float) -> list[tuple[str, str]]:
    """Returns the names and values that every view shows, in this order."""
    return [
        ("emitted", f"{numbers.emitted:,}"),
        ("waiting", f"{numbers.status.waiting_changes:,}"),
        ("coalesced", f"{numbers.joined:,}"),
        ("requests", f"{numbers.counts['requests']:,}"),
        ("requests/s", f"{rate:.1f}"),
        ("confirmed", f"{numbers.status.totals['records_confirmed']:,}"),
    ]
