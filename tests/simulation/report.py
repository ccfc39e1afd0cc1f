"""``python -m tests.simulation.report FILE…``: sums the pieces that runs of the simulation wrote, on any machines.

A piece names its commit and its seeds. Pieces of several commits, or with seeds in common, do not make one whole, and
are refused.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tests.proof.published import add_run, made

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_PROJECT: Final = Path(__file__).parents[2]


@dataclass(slots=True)
class CameUp:
    """In how many worlds each fault, each pair of faults, and each outcome came up."""

    faults: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def count(self, faults: Collection[str], outcomes: Collection[str]) -> None:
        """One more world."""
        self.faults.update(faults)
        self.pairs.update(map(" + ".join, combinations(sorted(faults), 2)))
        self.outcomes.update(outcomes)

    def add(self, other: CameUp) -> None:
        """Those of other worlds."""
        self.faults.update(other.faults)
        self.pairs.update(other.pairs)
        self.outcomes.update(other.outcomes)

    def as_json(self) -> dict[str, dict[str, int]]:
        """As in a piece."""
        every = (("faults", self.faults), ("pairs_of_faults", self.pairs), ("outcomes", self.outcomes))
        return {name: dict(sorted(counted.items())) for name, counted in every}

    @classmethod
    def of(cls, piece: dict[str, Any]) -> CameUp:
        """That of a piece."""
        return cls(Counter(piece["faults"]), Counter(piece["pairs_of_faults"]), Counter(piece["outcomes"]))


def commit() -> str:
    """The commit that this tree is of, with a mark if it differs from it; empty without the project's history."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    ran = subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, check=False)
    return ran.stdout.strip()


def wrong_with(pieces: Sequence[dict[str, Any]]) -> str:
    """Why pieces are not one whole; empty if they are."""
    commits = sorted({piece["commit"] for piece in pieces})
    if len(commits) > 1:
        return f"the pieces are of several commits: {', '.join(commits)}"
    spans = sorted((piece["first"], piece["first"] + piece["seeds"]) for piece in pieces if piece["seeds"])
    for (_, end), (first, _) in pairwise(spans):
        if first < end:
            return f"seed {first} is in several pieces"
    if any(piece["interrupted"] for piece in pieces):
        return "a piece was interrupted: which of its seeds were lived is not known"
    return ""


def as_markdown(pieces: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The sum, line by line."""
    summed: Counter[str] = Counter()
    worlds = CameUp()
    for piece in pieces:
        summed.update({name: piece[name] for name in ("seeds", "steps", "requests", "processor_seconds")})
        worlds.add(CameUp.of(piece))
    failing = sorted(each["seed"] for piece in pieces for each in piece["failing"])
    seconds = summed["processor_seconds"]
    yield f"# {summed['seeds']:,} simulated worlds of commit {pieces[0]['commit'] or 'unknown'}"
    yield ""
    yield f"{len(failing)} broke an invariant{': seeds ' + ', '.join(map(str, failing[:20])) if failing else ''}."
    yield f"{summed['steps']:,} steps, {summed['requests']:,} requests, {len(pieces)} pieces,"
    yield f"{summed['seeds'] / seconds if seconds else 0:.1f} worlds a second a core."
    yield ""
    yield "| seeds | fingerprint of all draws |"
    yield "| --- | --- |"
    for piece in sorted(pieces, key=lambda each: int(each["first"])):
        yield f"| {piece['first']} to {piece['first'] + piece['seeds'] - 1} | {piece['fingerprint'][:16]} |"
    possible = len(worlds.faults) * (len(worlds.faults) - 1) // 2
    yield from _table("Faults", worlds.faults, summed["seeds"])
    yield from _table("Outcomes", worlds.outcomes, summed["seeds"])
    yield from ("", f"## Pairs of faults: {len(worlds.pairs)} of {possible} in one world", "")
    yield from (f"- {pair}: {number:,}" for pair, number in worlds.pairs.most_common()[::-1])


def _table(title: str, counted: Counter[str], seeds: int) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| | worlds | of all |", "| --- | ---: | ---: |")
    yield from (f"| {name} | {number:,} | {number / seeds:.2%} |" for name, number in counted.most_common())


def result(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum as it is published, as one run."""
    worlds = CameUp()
    for piece in pieces:
        worlds.add(CameUp.of(piece))
    seeds, steps, requests = (sum(piece[name] for piece in pieces) for name in ("seeds", "steps", "requests"))
    seconds = sum(piece["processor_seconds"] for piece in pieces)
    return {
        "made": made(pieces[0]["commit"]),
        "first": min(piece["first"] for piece in pieces),
        "pieces": len(pieces),
        "seeds": seeds,
        "steps": steps,
        "requests": requests,
        "worlds_per_second_per_core": round(seeds / seconds, 1) if seconds else 0,
        "failing": [each for piece in pieces for each in piece["failing"]],
        **worlds.as_json(),
    }


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--publish", is_flag=True, help="Add the sum to tests/proof/results, for `make proof`.")
def main(files: Sequence[Path], *, publish: bool) -> None:
    """Sums pieces, and says in how many worlds what came up.

    Exit status 0 if they are one whole and every invariant held; 1 if one was broken; 2 if they do not make one whole.
    """
    pieces = [json.loads(file.read_text("utf-8")) for file in files]
    if wrong := wrong_with(pieces):
        raise click.UsageError(wrong)
    click.echo("\n".join(as_markdown(pieces)))
    if publish:
        add_run("simulation", result(pieces))
    if any(piece["failing"] for piece in pieces):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
