"""``python -m tests.mutants.run``: plants bugs, each in a copy of the tree, and says which check sees them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutants.catalogue import MUTANTS
from tests.mutants.checks import CheckFailed
from tests.mutants.hunt import Caught, hunt, without_bug
from tests.proof.published import made, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.mutants.mutant import Mutant

_EPILOG = """\b
Examples:
  python -m tests.mutants.run
  python -m tests.mutants.run --only late_ignored --only ledger_off
"""


def _hunt_all(mutants: Sequence[Mutant], seeds: int, caught: list[Caught], *, sound: bool) -> None:
    """Hunts all; what was found so far is in the list, also where Ctrl-C ends it.

    Raises:
        CheckFailed: the checks are red without any bug, or cannot be run.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("all checks without a bug", total=len(mutants))
        if sound and (red := without_bug(mutants, seeds)):
            raise CheckFailed(f"without any bug this is red already: {red}")
        for mutant in mutants:
            progress.update(task, description=mutant.name)
            caught.append(hunt(mutant, seeds))
            progress.advance(task)
            click.echo(_line(caught[-1]), err=True)


def _line(each: Caught) -> str:
    what = each.trouble or each.by or "NOTHING SEES IT"
    return f"{each.name}: {what} ({_seeds(each)} seeds, {each.seconds} s)"


def _seeds(each: Caught) -> str:
    return "-" if not each.asked else str(each.seeds) if each.seeds else f"none of {each.asked:,}"


def _short(check: str) -> str:
    """A test by its file and name."""
    path, _, test = check.partition("::")
    return f"{path.removeprefix('tests/')}: {test}" if test else check


def _table(caught: Sequence[Caught]) -> Table:
    table = Table(title="Planted bugs")
    for heading in ("bug", "what it breaks", "seen by", "seeds", "seconds"):
        table.add_column(heading, overflow="fold")
    for each in caught:
        seen = _short(each.by) if each.good else f"[bold]{each.trouble or 'nothing'}[/bold]"
        table.add_row(each.name, each.why, seen, _seeds(each), f"{each.seconds:.1f}")
    return table


def _chosen(only: Sequence[str]) -> Iterator[Mutant]:
    unknown = set(only) - {mutant.name for mutant in MUTANTS}
    if unknown:
        raise click.BadParameter(f"there is no bug {min(unknown)!r}", param_hint="--only")
    return (mutant for mutant in MUTANTS if not only or mutant.name in only)


@click.command(epilog=_EPILOG)
@click.option("--only", multiple=True, metavar="NAME", help="This bug, and others that are named so.")
@click.option("--seeds", type=click.IntRange(min=1), default=3000, show_default=True, help="Most worlds for each.")
@click.option("--unproved", is_flag=True, help="Leave out the proof that without a bug all checks are green.")
@click.option("--list", "listed", is_flag=True, help="Only say which there are.")
@click.option("--json", "as_json", is_flag=True, help="What was found, for machines.")
@click.option("--publish", is_flag=True, help="Write what was found into tests/proof/results, for `make proof`.")
def main(  # noqa: PLR0913 - one parameter an option
    *, only: tuple[str, ...], seeds: int, unproved: bool, listed: bool, as_json: bool, publish: bool
) -> None:
    """Plants bugs, each in a copy of the tree, and runs the checks that must see it, in order of cost.

    Exit status 0 where every bug was seen, 1 where one was not, no longer fits the code, or a check is red without any
    bug; 130 at Ctrl-C, with what was found so far.
    """
    mutants = [*_chosen(only)]
    if publish and only:
        raise click.UsageError("--publish needs all bugs: a result is of one commit")
    if listed:
        click.echo("\n".join(f"{mutant.name}: {mutant.why}" for mutant in mutants))
        return
    caught: list[Caught] = []
    status = 0
    try:
        _hunt_all(mutants, seeds, caught, sound=not unproved)
    except KeyboardInterrupt:
        status = 130
    except CheckFailed as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    good = sum(each.good for each in caught)
    if publish and not status:
        write("mutants", {"made": made(), "found": [each._asdict() for each in caught]})
    if as_json:
        found = [each._asdict() for each in caught]
        click.echo(json.dumps({"bugs": len(mutants), "seen": good, "interrupted": bool(status), "found": found}))
    else:
        Console().print(_table(caught))
        click.echo(f"{good} of {len(mutants)} planted bugs were seen")
    sys.exit(status or (0 if good == len(mutants) else 1))


if __name__ == "__main__":
    main()
