"""`contact-sync demo`: the whole system at work on this machine, with nothing installed but the package."""

from __future__ import annotations

import sys
import time
from typing import IO, Final

import click
import httpx
import orjson
import redis

from producers.contract.errors import ContactSyncError
from worker.cli.interrupts import exiting_on_sigterm
from worker.cli.session import EXIT_FAILED, EXIT_INTERRUPTED
from worker.demo.run import Demo
from worker.demo.screen import screen_for
from worker.demo.system import DemoFailedError, System
from worker.local.process import ProcessStartError
from worker.local.redis import EmbeddedRedisError
from worker.local.redis_binary import RedisNotFoundError

DEADLINE_SECONDS: Final = 55.0
"""When it ends at the latest, whatever is left to do: who watches a demo gives it a minute."""

DEFAULT_SECONDS: Final = 10.0
"""How long the traffic lasts: long enough for an outage and a killed worker to fit in."""

CLOSING_SECONDS: Final = 3.0
"""Of the deadline, what is left for the comparison and for ending what was started."""

_NEXT = """
Next:
  contact-sync --help                  every command, each with an example
  contact-sync up --stand-in           such a system to send changes of your own to
  contact-sync endpoint --port 8080    the stand-in endpoint alone, with faults to order
  README.md                            how to produce changes, run workers and watch them
"""

_EPILOG = """\b
Example:
  contact-sync demo
  contact-sync demo --seconds 6 --json | jq .wrong_pairs
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--seconds",
    type=click.FloatRange(3, 25),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="How long changes flow; the whole takes some 10 seconds more.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON; what happens goes to standard error.")
def demo(*, seconds: float, as_json: bool) -> None:
    """Show the whole system at work on this machine.

    It starts a Redis, a stand-in endpoint and a worker of its own, lets changes flow, takes the endpoint away and
    kills the worker on the way, and compares in the end what the endpoint holds with what it must. Nothing else on this
    machine is touched, and nothing is left behind.

    It exits with 0 if every pair is right, else with 1.
    """
    sys.exit(run_demo(seconds=seconds, as_json=as_json))


def run_demo(
    *, seconds: float = DEFAULT_SECONDS, as_json: bool = False, deadline_seconds: float = DEADLINE_SECONDS
) -> int:
    """Runs the demo, shows it, and returns the exit status: 0 if all is right, 1 if not, 130 after Ctrl-C.

    Args:
        seconds: how long changes flow.
        as_json: whether the summary goes to standard output as JSON, and all else to standard error.
        deadline_seconds: when it ends at the latest.
    """
    try:
        with exiting_on_sigterm():
            return _run(sys.stderr if as_json else sys.stdout, seconds, deadline_seconds, as_json=as_json)
    except KeyboardInterrupt:
        click.echo("contact-sync: interrupted; nothing is left behind", err=True)
        return EXIT_INTERRUPTED
    except (RedisNotFoundError, EmbeddedRedisError, ProcessStartError, DemoFailedError, ContactSyncError) as error:
        click.echo(f"contact-sync: {error}", err=True)
    except redis.RedisError as error:
        click.echo(f"contact-sync: the demo's Redis went away: {type(error).__name__}", err=True)
    except httpx.HTTPError as error:
        click.echo(f"contact-sync: the demo's endpoint went away: {type(error).__name__}", err=True)
    return EXIT_FAILED


def _run(stream: IO[str], seconds: float, deadline_seconds: float, *, as_json: bool) -> int:
    began = time.monotonic()
    ends = began + deadline_seconds - CLOSING_SECONDS
    with screen_for(stream, time.monotonic) as screen:
        screen.say("Starting a Redis and a stand-in endpoint, on this machine alone")
        with System() as system:
            summary = Demo(system, screen, seconds=seconds, began=began, ends=ends).run()
            screen.conclude(summary)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    for line in summary.unfinished:
        click.echo(f"contact-sync: when time was up: {line}", err=True)
    if not as_json and summary.ok:
        click.echo(_NEXT.rstrip())
    return 0 if summary.ok else EXIT_FAILED
