"""``contact-sync worker``: runs Celery's own worker with good defaults for this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from worker.config.settings import load_worker_settings
from worker.local.cores import cores

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST: Final = 4  # a thread mostly waits for the endpoint, so even one core can run several
_MOST: Final = 32
_THREADS_PER_CORE: Final = 4

_EPILOG = """\b
Example:
  contact-sync worker
  contact-sync worker --concurrency 16 --loglevel WARNING
  contact-sync worker -- --hostname sync@%h --events
"""


def default_concurrency() -> int:
    """A good number of parallel flushes for this machine."""
    return max(_FEWEST, min(_MOST, _THREADS_PER_CORE * cores()))


def worker_command(concurrency: int, pool: str, loglevel: str, further: Sequence[str]) -> list[str]:
    """The command line of Celery that this command runs."""
    return [
        # -P: nothing is imported from the current directory, even if it is called `worker`.
        *(sys.executable, "-P", "-m", "worker", "-A", "worker", "worker"),
        *("--pool", pool, "--concurrency", str(concurrency), "--loglevel", loglevel),
        # Nothing here needs them, and after a kill of Redis gossip has crashed workers for good.
        *("--without-gossip", "--without-mingle"),
        *further,
    ]


@click.command(epilog=_EPILOG)
@click.option(
    "--concurrency",
    "-c",
    type=click.IntRange(min=1),
    help="Number of parallel flushes.  [default: 4 per core, but 4 to 32]",
)
@click.option(
    "--pool",
    "-P",
    type=click.Choice(["threads", "prefork"]),
    default="threads",
    show_default=True,
    help="Celery's pool: threads in one process, or processes.",
)
@click.option(
    "--loglevel",
    "-l",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="Lowest level that is logged.",
)
@click.argument("further", nargs=-1, type=click.UNPROCESSED, metavar="[-- CELERY ARGUMENTS]")
def worker(*, concurrency: int | None, pool: str, loglevel: str, further: tuple[str, ...]) -> None:
    """Run a worker until it is stopped; start as many as you like.

    It becomes `celery -A worker worker` with good defaults for this machine. It needs nothing else beside it: no beat.
    """
    load_worker_settings(require_credentials=True)  # reports an invalid setting in one line, before Celery is loaded
    line = worker_command(concurrency or default_concurrency(), pool, loglevel.upper(), further)
    sys.stdout.flush()
    sys.stderr.flush()
    if "NO_COLOR" in os.environ:
        os.environ["NO_COLOR"] = "1"  # any value means it, but Celery expects a number and refuses most
    os.execv(line[0], line)  # noqa: S606 - no shell: the process becomes the worker, so it gets the signals and sets the exit status
