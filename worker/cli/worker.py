"""``contact-sync worker``: runs Celery's own worker with good defaults for this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from worker.config.settings import load_worker_settings
from worker.local.cores import cores
from worker.store.inbox import load_map

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG = """\b
Example:
  contact-sync worker
  contact-sync worker --concurrency 4 --loglevel WARNING
  contact-sync worker -- --hostname sync@%h --events
"""


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
    help="Number of processes, or of threads with --pool threads.  [default: 1 per core that it may use]",
)
@click.option(
    "--pool",
    "-P",
    type=click.Choice(["prefork", "threads"]),
    default="prefork",
    show_default=True,
    help="Celery's pool: processes, or one process with threads, which uses one core.",
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

    It becomes `celery -A worker worker` with a process for each core. Each process has as many requests under way as
    the endpoint takes, so there is nothing to choose. It needs nothing else beside it: no beat.
    """
    # An invalid setting is one line, before Celery is loaded.
    load_map(load_worker_settings(require_credentials=True).inbox_map)
    line = worker_command(concurrency or cores(), pool, loglevel.upper(), further)
    sys.stdout.flush()
    sys.stderr.flush()
    if "NO_COLOR" in os.environ:
        os.environ["NO_COLOR"] = "1"  # any value means it, but Celery expects a number and refuses most
    os.execv(line[0], line)  # noqa: S606 - no shell: the process becomes the worker, so it gets the signals and sets the exit status
