"""``contact-sync demo``: shows the whole system on this machine; it needs only this package."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import IO, Final

import click
import orjson
import redis

from producers.contract.errors import ContactSyncError
from worker.cli.interrupts import EXIT_INTERRUPTED, exiting_on_sigterm
from worker.cli.number import Number
from worker.cli.session import EXIT_FAILED
from worker.demo.run import Demo
from worker.demo.screen import screen_for
from worker.demo.system import DemoFailedError, System
from worker.local.process import ProcessStartError
from worker.local.redis import EmbeddedRedisError
from worker.local.redis_binary import RedisNotFoundError
from worker.standin.client import StandInAway

DEADLINE_SECONDS: Final = 55.0
"""Time after which it ends in any case: people watch a demo for a minute."""

DEFAULT_SECONDS: Final = 10.0
"""How long changes flow: long enough for an outage and a killed worker."""

CLOSING_SECONDS: Final = 3.0
"""Part of the deadline that is kept for the comparison and for stopping all processes."""

_NEXT: Final = (
    ("{command} --help", "every command, each with an example"),
    ("{command} up --stand-in", "run such a system, and send your own changes"),
    ("{command} endpoint --port 8080", "only the stand-in endpoint, with faults on demand"),
    ("README.md", "how to produce changes, run workers and watch them"),
)

_EPILOG = """\b
Example:
  contact-sync demo
  contact-sync demo --seconds 6 --json | jq .wrong_pairs
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--seconds",
    type=Number(3, 25),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="How many seconds changes flow. The whole demo takes about 10 seconds longer.",
)
@click.option("--cluster", is_flag=True, help="Start a Redis Cluster of three nodes instead of one Redis.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and the progress to standard error.")
def demo(*, seconds: float, cluster: bool, as_json: bool) -> None:
    """Show the whole system on this machine.

    It starts its own Redis, stand-in endpoint and worker, sends changes, stops the endpoint for a while, kills the
    worker, and finally compares the contacts at the endpoint with what they must be. It touches nothing else on this
    machine and leaves nothing behind.

    Exit status 0 if every pair is right, else 1.
    """
    sys.exit(run_demo(seconds=seconds, as_json=as_json, cluster=cluster))


def run_demo(
    *,
    seconds: float = DEFAULT_SECONDS,
    as_json: bool = False,
    deadline_seconds: float = DEADLINE_SECONDS,
    cluster: bool = False,
) -> int:
    """Runs and shows the demo; returns the exit status: 0 if all is right, 1 if not, 130 after Ctrl-C.

    Args:
        seconds: how long changes flow.
        as_json: whether it prints the summary as JSON, and everything else to standard error.
        deadline_seconds: time after which it ends in any case.
        cluster: whether Redis is a cluster of three nodes.
    """
    try:
        with exiting_on_sigterm():
            stream = sys.stderr if as_json else sys.stdout
            return _run(stream, System(cluster=cluster), seconds, deadline_seconds, as_json=as_json)
    except KeyboardInterrupt:
        click.echo("contact-sync: interrupted; nothing is left behind", err=True)
        return EXIT_INTERRUPTED
    except (RedisNotFoundError, EmbeddedRedisError, ProcessStartError, DemoFailedError, ContactSyncError) as error:
        click.echo(f"contact-sync: {error}", err=True)
    except redis.RedisError as error:
        click.echo(f"contact-sync: the demo's Redis went away: {type(error).__name__}", err=True)
    except StandInAway as error:
        click.echo(f"contact-sync: the demo's endpoint went away: {type(error).__name__}", err=True)
    return EXIT_FAILED


def next_steps() -> str:
    """What to try next, with the command as it was called: by its path if PATH does not have it."""
    called, name = sys.argv[0], "contact-sync"
    if Path(called).name == name and shutil.which(name) is None:
        name = os.path.relpath(called)
    rows = [(what.format(command=name), why) for what, why in _NEXT]
    width = max(len(what) for what, _ in rows)
    return "\n".join(("", "Next:", *(f"  {what:<{width}}    {why}" for what, why in rows)))


def _run(stream: IO[str], system: System, seconds: float, deadline_seconds: float, *, as_json: bool) -> int:
    began = time.monotonic()
    ends = began + deadline_seconds - CLOSING_SECONDS
    with screen_for(stream, time.monotonic) as screen:
        screen.say("Starting a Redis and a stand-in endpoint, on this machine alone")
        with system:
            summary = Demo(system, screen, seconds=seconds, began=began, ends=ends).run()
            screen.conclude(summary)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    for line in summary.unfinished:
        click.echo(f"contact-sync: when time was up: {line}", err=True)
    if not as_json and summary.ok:
        click.echo(next_steps())
    return 0 if summary.ok else EXIT_FAILED
