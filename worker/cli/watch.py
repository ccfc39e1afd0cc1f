"""The screen of ``contact-sync status --watch``: 80 by 24 characters, redrawn every second."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console
from rich.text import Text

from worker.core.numbers import many
from worker.core.times import in_words, iso_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.admin.status import Part, Status

WIDTH: Final = 80
HEIGHT: Final = 24

_PAPER: Final = Console(width=WIDTH, force_terminal=False)
"""Only measures the width of characters; nothing is written to it."""

_REMEMBERED: Final = 61
"""Number of statuses that are remembered: those of a minute, and the one before."""

_CHART: Final = 29
_ROW: Final = 64
_BUSIEST: Final = 3
_BARS: Final = "▁▂▃▄▅▆▇█"

_FLOW: Final = (
    ("accepted", ("events",)),
    ("confirmed", ("records_confirmed",)),
    ("spared", ("coalesced", "superseded", "stale")),
    ("requests", ("requests",)),
    ("retries", ("retries",)),
)


class Flow(NamedTuple):
    """How fast something moved.

    Attributes:
        name: what moved.
        now: per second, since the status before.
        minute: per second, over all that is remembered.
        course: the same between each two statuses, oldest first.
    """

    name: str
    now: float
    minute: float
    course: Sequence[float]


class Watched:
    """The statuses of the last minute."""

    def __init__(self) -> None:
        self._statuses: deque[Status] = deque(maxlen=_REMEMBERED)

    def add(self, status: Status) -> None:
        """Adds a status; if the clock went back, it forgets the earlier ones, which give no rates any more."""
        if self._statuses and status.gate.now_ms <= self._statuses[-1].gate.now_ms:
            self._statuses.clear()
        self._statuses.append(status)

    @property
    def last(self) -> Status | None:
        """The last status."""
        return self._statuses[-1] if self._statuses else None

    def flows(self) -> list[Flow]:
        """What moved since the status before, and in the last minute."""
        return [self._flow(name, counters) for name, counters in _FLOW]

    def _flow(self, name: str, counters: Sequence[str]) -> Flow:
        statuses = list(self._statuses)
        course = [_rate(one, other, counters) for one, other in pairwise(statuses)]
        minute = _rate(statuses[0], statuses[-1], counters) if len(statuses) > 1 else 0.0
        return Flow(name, course[-1] if course else 0.0, minute, course)


def _rate(one: Status, other: Status, counters: Sequence[str]) -> float:
    moved = sum(other.totals[name] - one.totals[name] for name in counters)
    return max(0, moved) / max(1, other.gate.now_ms - one.gate.now_ms) * 1000


def screen(watched: Watched, lines: Sequence[str], trouble: str = "") -> Text:
    """The whole screen.

    Args:
        watched: the statuses so far.
        lines: the last status in words, as `status` prints it.
        trouble: why there is no newer status; empty if there is.
    """
    last = watched.last
    if last is None:
        return Text(trouble, style="red")
    shown = [_head(last, trouble), Text()]
    for line in lines:  # all of it, however long: errors matter more than charts
        shown += Text.from_ansi(line).wrap(_PAPER, WIDTH)
    shown += [
        Text(),
        *(_flow_line(flow) for flow in watched.flows()),
        Text(),
        *_partitions(last.parts),
        *_busiest(last),
    ]
    return Text("\n").join(shown[:HEIGHT])


def _head(last: Status, trouble: str) -> Text:
    seen = f"{iso_utc(last.gate.now_ms)[:19].replace('T', ' ')} UTC"
    if trouble:
        return _cut(Text(f"{seen}, and nothing newer: {trouble}", style="bold red"))
    return _cut(
        Text.assemble(("contact-sync", "bold"), f"   {seen}   {many(last.partitions, 'partition')}   Ctrl-C ends")
    )


def _flow_line(flow: Flow) -> Text:
    most = max([*flow.course, 1.0])
    chart = "".join(_BARS[min(7, math.ceil(each / most * 7))] for each in flow.course[-_CHART:])
    return _cut(
        Text.assemble(f"{flow.name:<10}{flow.now:>9,.1f}/s {flow.minute:>9,.1f}/s in a minute  ", (chart, "cyan"))
    )


def _partitions(parts: Sequence[Part]) -> Iterable[Text]:
    """One character for each partition, or for several if there are many: what is waiting, and if a worker has it."""
    each_of = math.ceil(len(parts) / _ROW) or 1
    groups = [parts[i : i + each_of] for i in range(0, len(parts), each_of)]
    waits = [sum(part.backlog + part.pending for part in group) for group in groups]
    most = max([*waits, 1])
    row = Text("partitions ")
    for group, waiting in zip(groups, waits, strict=True):
        sign = _BARS[min(7, int(math.log(waiting + 1) / math.log(most + 1) * 7.99))] if waiting else "·"
        style = "red" if any(part.dead for part in group) else "yellow" if waiting else "dim"
        row.append(sign, style + " reverse" * any(part.leased for part in group))
    yield row
    yield Text("           · nothing waiting, ▁ to █ more; reversed: leased; red: dead letters", style="dim")


def _busiest(last: Status) -> Iterable[Text]:
    waits = [(part.backlog + part.pending, number, part) for number, part in enumerate(last.parts)]
    for waiting, number, part in sorted(waits, key=lambda each: -each[0])[:_BUSIEST]:
        if waiting:
            since = "" if part.oldest_ms is None else in_words(max(0, last.gate.now_ms - part.oldest_ms) / 1000)
            text = f"  {number:>6}  {part.backlog:,} in the log, {part.pending:,} pending; the oldest for {since}"
            yield _cut(Text(text))


def _cut(text: Text) -> Text:
    text.truncate(WIDTH, overflow="ellipsis")
    return text
