"""What ``contact-sync status --watch`` shows on a terminal: one screen of 80 by 24, drawn anew each second."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Console
from rich.text import Text

from worker.core.times import in_words, iso_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.admin.status import Part, Status

WIDTH: Final = 80
HEIGHT: Final = 24

_PAPER: Final = Console(width=WIDTH, force_terminal=False)
"""Nothing is written to it: it knows how wide characters are."""

_KEPT: Final = 61
"""Looks that are remembered: a minute, and the one before it."""

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
        name: what.
        now: a second, since the last look.
        minute: a second, over what is remembered.
        course: the same of each step, oldest first.
    """

    name: str
    now: float
    minute: float
    course: Sequence[float]


class Watched:
    """The looks of the last minute."""

    def __init__(self) -> None:
        self._looks: deque[Status] = deque(maxlen=_KEPT)

    def add(self, look: Status) -> None:
        """One more look; where the clock went back, the ones before it tell no rates any more."""
        if self._looks and look.gate.now_ms <= self._looks[-1].gate.now_ms:
            self._looks.clear()
        self._looks.append(look)

    @property
    def last(self) -> Status | None:
        """The last look."""
        return self._looks[-1] if self._looks else None

    def flows(self) -> list[Flow]:
        """What moved since the last look, and in the minute before it."""
        return [self._flow(name, counters) for name, counters in _FLOW]

    def _flow(self, name: str, counters: Sequence[str]) -> Flow:
        looks = list(self._looks)
        course = [_rate(one, other, counters) for one, other in pairwise(looks)]
        minute = _rate(looks[0], looks[-1], counters) if len(looks) > 1 else 0.0
        return Flow(name, course[-1] if course else 0.0, minute, course)


def _rate(one: Status, other: Status, counters: Sequence[str]) -> float:
    moved = sum(other.totals[name] - one.totals[name] for name in counters)
    return max(0, moved) / max(1, other.gate.now_ms - one.gate.now_ms) * 1000


def screen(watched: Watched, lines: Sequence[str], trouble: str = "") -> Text:
    """The whole screen.

    Args:
        watched: the looks so far, one at least.
        lines: the last one in words, as `status` says it.
        trouble: why there is no newer look, empty where there is.
    """
    last = watched.last
    if last is None:
        return Text(trouble, style="red")
    shown = [_head(last, trouble), Text()]
    for line in lines:  # in whole, however long: what is wrong goes before charts
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
    return _cut(Text.assemble(("contact-sync", "bold"), f"   {seen}   {last.partitions:,} partitions   Ctrl-C ends"))


def _flow_line(flow: Flow) -> Text:
    most = max([*flow.course, 1.0])
    chart = "".join(_BARS[min(7, math.ceil(each / most * 7))] for each in flow.course[-_CHART:])
    return _cut(
        Text.assemble(f"{flow.name:<10}{flow.now:>9,.1f}/s {flow.minute:>9,.1f}/s in a minute  ", (chart, "cyan"))
    )


def _partitions(parts: Sequence[Part]) -> Iterable[Text]:
    """A sign for each partition, or for several where they are many: what waits, and whether somebody is at it."""
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
    yield Text("           · nothing waits, ▁ to █ more; reversed: in work; red: dead letters", style="dim")


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
