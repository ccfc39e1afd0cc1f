"""Says how far a soak is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType

LINE_SECONDS: Final = 10.0
"""Shortest time between two lines where there is no terminal."""


class Shown:
    """As a context manager; on standard error."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar: Progress | None = None
        self._said = -LINE_SECONDS
        if console.is_terminal:
            columns = [TextColumn("soak"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
            self._bar = Progress(*columns, TextColumn("{task.fields[what]}"), console=console, transient=True)
            self._task = self._bar.add_task("soak", total=1.0, what="starts")

    def at(self, fraction: float, what: str) -> None:
        """So much of the time is over, and this is what happens."""
        if self._bar is not None:
            self._bar.update(self._task, completed=fraction, what=what)
        elif fraction >= 1 or time.monotonic() > self._said + LINE_SECONDS:
            self._said = time.monotonic()
            click.echo(f"soak: {fraction:4.0%}  {what}", err=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
