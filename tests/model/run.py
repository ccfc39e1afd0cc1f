"""``python -m tests.model.run``: tries everything that can happen to one pair in a small world, scene by scene."""

from __future__ import annotations

import json
import logging
import sys
import time
from multiprocessing import Pool
from typing import TYPE_CHECKING, Any

import click
import structlog
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.model.bugs import NO_BUG, Bug
from tests.model.explore import explore
from tests.model.scenes import PLANTED, SCENES, Scene
from tests.proof.published import made, write

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPILOG = """\b
Examples:
  python -m tests.model.run                 every scene, then every planted bug
  python -m tests.model.run --scene 2       one scene alone
"""


def told(work: tuple[str, Scene, Bug]) -> dict[str, Any]:
    """Explores one scene, in a process of its own, and says what was found."""
    name, scene, bug = work
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.process_time()
    found = explore(scene, bug=bug)
    seconds = round(time.process_time() - began, 1)
    return {"name": name, "planted": bug != NO_BUG, "seconds": seconds, **found._asdict()}


def _works(only: tuple[int, ...]) -> Iterator[tuple[str, Scene, Bug]]:
    for i, scene in enumerate(SCENES):
        if not only or i in only:
            yield f"{i}: {scene}", scene, NO_BUG
    if not only:
        for bug, scene in PLANTED:
            yield bug.why, scene, bug


@click.command(epilog=_EPILOG)
@click.option("--scene", type=click.IntRange(0, len(SCENES) - 1), multiple=True, help="this scene alone, by its number")
@click.option("--json", "as_json", is_flag=True, help="say it as JSON")
@click.option("--publish", is_flag=True, help="write it into tests/proof/results, for `make proof`")
def main(*, scene: tuple[int, ...], as_json: bool, publish: bool) -> None:
    """Try everything that can happen to one pair: two workers, one Redis, one endpoint, scene by scene.

    Exit 1 if something that must hold is broken, or a planted bug is not found.
    """
    if publish and scene:
        raise click.UsageError("--publish needs all scenes")
    works = list(_works(scene))
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress, Pool() as pool:
        task = progress.add_task("scenes", total=len(works))
        for each in pool.imap(told, works):
            results.append(each)
            progress.advance(task)
            if not as_json:
                click.echo(_line(each))
    if as_json:
        click.echo(json.dumps(results))
    if publish:
        write("model", {"made": made(), "scenes": [{**each, "story": [*each["story"]]} for each in results]})
    sys.exit(any(bool(each["broken"]) != each["planted"] for each in results))


def _line(of: dict[str, Any]) -> str:
    size = f"{of['states']:,} states, {of['moves']:,} moves, {of['seconds']:.1f} s"
    if of["planted"]:
        return f"planted, {'found' if of['broken'] else 'NOT FOUND'}: {of['name']} ({size})"
    if not of["broken"]:
        return f"holds: {of['name']} ({size})"
    return f"BROKEN: {of['name']}: {of['broken']} ({size})\n  " + "\n  ".join(of["story"])


if __name__ == "__main__":
    main()
