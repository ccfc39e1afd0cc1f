"""``python -m tests.simulation.run``: many seeds, each a world of its own, judged by the oracle."""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import structlog
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from tests.simulation.chance import Chance, Retold
from tests.simulation.report import CameUp, commit
from tests.simulation.shrink import shrink
from tests.simulation.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 25
_GARBAGE = 50_000
_ERASES = 5  # in one of so many worlds somebody is erased
_SHOWN_AT_MOST = 5

_EPILOG = """\b
Examples:
  python -m tests.simulation.run --seeds 10000
  python -m tests.simulation.run --seed 4711     tells one seed's whole story
"""


class Lived(NamedTuple):
    """What came of some seeds that lie side by side.

    Attributes:
        seeds, steps, requests: how many.
        seconds: processor time.
        failing: seed and what it broke, one line each.
        fingerprint: of all draws; equal seeds give equal ones, whatever the process.
        worlds: in how many each fault, each pair of faults and each outcome came up.
    """

    first: int
    seeds: int
    steps: int
    requests: int
    seconds: float
    failing: list[tuple[int, list[str]]]
    fingerprint: str
    worlds: CameUp


def chance_of(seed: int) -> Chance:
    """What decides in the world of this seed."""
    return Chance(seed, erases=seed % _ERASES == _ERASES - 1)


def live(chunk: tuple[int, int]) -> Lived:
    """Lives some seeds, from the first on."""
    first, seeds = chunk
    gc.set_threshold(_GARBAGE)  # a world is full of circles, and short: to look for them often is in vain
    began = time.process_time()
    steps = requests = 0
    failing = []
    drawn = hashlib.sha256()
    worlds = CameUp()
    for seed in range(first, first + seeds):
        told = simulate(chance_of(seed))
        steps, requests = steps + told.steps, requests + told.sent
        drawn.update(repr(told.taken).encode())
        worlds.count(told.faults, told.outcomes)
        if told.violations:
            failing.append((seed, [f"{each.kind}: {each.says}" for each in told.violations]))
    return Lived(first, seeds, steps, requests, time.process_time() - began, failing, drawn.hexdigest(), worlds)


@dataclass(slots=True)
class Summary:
    """All that was lived so far."""

    first: int
    chunks: list[Lived] = field(default_factory=list)
    interrupted: bool = False

    @property
    def seeds(self) -> int:
        """How many seeds."""
        return sum(each.seeds for each in self.chunks)

    @property
    def failing(self) -> list[tuple[int, list[str]]]:
        """The seeds that broke something, the lowest first."""
        return sorted(failed for each in self.chunks for failed in each.failing)

    def as_json(self) -> dict[str, object]:
        """For machines."""
        steps, seconds = sum(each.steps for each in self.chunks), sum(each.seconds for each in self.chunks)
        fingerprints = "".join(each.fingerprint for each in sorted(self.chunks, key=lambda each: each.first))
        return {
            "first": self.first,
            "seeds": self.seeds,
            "steps": steps,
            "steps_per_seed": round(steps / self.seeds, 1) if self.seeds else 0,
            "requests": sum(each.requests for each in self.chunks),
            "seeds_per_second_per_core": round(self.seeds / seconds, 1) if seconds else 0,
            "failing": [{"seed": seed, "violations": violations} for seed, violations in self.failing],
            "fingerprint": hashlib.sha256(fingerprints.encode()).hexdigest(),
            "interrupted": self.interrupted,
        }

    def piece(self) -> dict[str, Any]:
        """For :mod:`tests.simulation.report`: what was lived, of which commit, and what came up in it."""
        worlds = CameUp()
        for each in self.chunks:
            worlds.add(each.worlds)
        seconds = round(sum(each.seconds for each in self.chunks), 1)
        return {"commit": commit(), **self.as_json(), "processor_seconds": seconds, **worlds.as_json()}

    def line(self) -> str:
        """For people."""
        found = self.as_json()
        ended = "stopped after" if self.interrupted else "lived"
        return (
            f"{ended} {self.seeds:,} seeds from {self.first} on: {found['steps']:,} steps, "
            f"{found['requests']:,} requests, {found['seeds_per_second_per_core']} seeds a second a core; "
            f"{len(self.failing)} broke an invariant"
        )


def _chunks(first: int, seeds: int) -> Iterator[tuple[int, int]]:
    for at in range(first, first + seeds, _CHUNK):
        yield at, min(_CHUNK, first + seeds - at)


def _live_all(first: int, seeds: int, jobs: int, *, all_of_them: bool) -> Summary:
    """Lives all seeds, in several processes; ends at the first that fails, unless asked for all, or at Ctrl-C."""
    summary = Summary(first)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
    # Children leave Ctrl-C to us, and die with the pool.
    pool = multiprocessing.get_context("fork").Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with pool, shown as progress:
        task = progress.add_task("seeds", total=seeds)
        try:
            for lived in pool.imap_unordered(live, _chunks(first, seeds)):
                summary.chunks.append(lived)
                progress.advance(task, lived.seeds)
                if lived.failing and not all_of_them:
                    break
        except KeyboardInterrupt:
            summary.interrupted = True
    return summary


def _tell_seed(seed: int) -> int:
    told = simulate(chance_of(seed), told=True)
    click.echo("\n".join([*told.story, *map(str, told.violations)]))
    return 1 if told.violations else 0


def _tell_shortest(seed: int, seconds: float) -> None:
    """The shortest story of a failing seed that is found in this time."""
    ends = time.monotonic() + seconds
    draws = shrink(chance_of(seed), lambda: time.monotonic() > ends)
    told = simulate(Retold(draws, erases=chance_of(seed).erases), told=True)
    click.echo(f"seed {seed}, its shortest story:", err=True)
    click.echo("\n".join([*told.story, *map(str, told.violations)]), err=True)
    click.echo(f"its whole story: python -m tests.simulation.run --seed {seed}", err=True)


@click.command(epilog=_EPILOG)
@click.option("--seeds", type=click.IntRange(min=1), default=1000, show_default=True, help="How many worlds to live.")
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="Processes.  [default: all cores]"
)
@click.option("--all", "all_of_them", is_flag=True, help="Go on after a seed that fails.")
@click.option("--seed", type=click.IntRange(min=0), help="Tell the whole story of one seed.")
@click.option("--shrink-seconds", type=click.FloatRange(min=0), default=30, show_default=True, help="For the story.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where a piece for tests.simulation.report goes.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary, for machines.")
def main(  # noqa: PLR0913 - one parameter an option
    *,
    seeds: int,
    first: int,
    jobs: int,
    all_of_them: bool,
    seed: int | None,
    shrink_seconds: float,
    report: Path | None,
    as_json: bool,
) -> None:
    """Lives worlds by seeds: the real code on a model of Redis and endpoint, with all that can go wrong.

    Exit status 0 where every invariant holds, 1 where one is broken: the shortest story of the first such seed
    goes to standard error. 130 at Ctrl-C, with what was lived so far.
    """
    # What the worker logs does not belong into the summary.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if seed is not None:
        sys.exit(_tell_seed(seed))
    summary = _live_all(first, seeds, jobs, all_of_them=all_of_them)
    click.echo(json.dumps(summary.as_json()) if as_json else summary.line())
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(summary.piece(), indent=2) + "\n", encoding="utf-8")
    for failed, violations in islice(summary.failing, _SHOWN_AT_MOST):
        click.echo(f"seed {failed}: {'; '.join(violations)}", err=True)
    if summary.interrupted:
        sys.exit(130)
    if summary.failing:
        _tell_shortest(summary.failing[0][0], shrink_seconds)
        sys.exit(1)


if __name__ == "__main__":
    main()
