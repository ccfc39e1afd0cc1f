"""The command ``contact-sync``: which commands there are, and how any of them ends (CONTRACT section 6).

A command's module is loaded when the command is called: `status` starts in a fraction of the time that Celery,
httpx or the stand-in's web server take to load, and so does `--help`.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from producers.contract.errors import ContactSyncError
from worker.cli.interrupts import losing_no_ctrl_c

if TYPE_CHECKING:
    from collections.abc import Mapping


class CommandSource(NamedTuple):
    """Where a command is found, and what it is for in one line, so that ``--help`` need not load it."""

    module: str
    name: str
    summary: str


COMMANDS: Final[Mapping[str, CommandSource]] = {
    "demo": CommandSource("worker.cli.demo", "demo", "Show the whole system at work on this machine; ends by itself."),
    "up": CommandSource("worker.cli.up", "up", "Run Redis, a worker and, if asked, the stand-in, until Ctrl-C."),
    "worker": CommandSource("worker.cli.worker", "worker", "Run a worker with good defaults for this machine."),
    "endpoint": CommandSource(
        "worker.cli.endpoint", "endpoint", "Serve a stand-in for the platform's endpoint, in memory."
    ),
    "emit": CommandSource("worker.cli.emit", "emit", "Append changes to the log from JSON lines."),
    "relay": CommandSource("worker.cli.relay", "relay", "Forward what apps recorded in their outbox."),
    "reconcile": CommandSource(
        "worker.cli.reconcile", "reconcile_command", "Bring the endpoint to what a source says."
    ),
    "conform": CommandSource("worker.cli.conform", "conform", "What a producer wrote, held against each rule."),
    "status": CommandSource("worker.cli.status", "status", "What waits, since when, what was done, and the endpoint."),
    "serve": CommandSource("worker.cli.serve", "serve_command", "Metrics, probes, and a page that shows the fleet."),
    "health": CommandSource("worker.cli.health", "health", "Does the fleet make progress? By exit status."),
    "drain": CommandSource("worker.cli.drain", "drain", "Wait until nothing waits or is in flight."),
    "explain": CommandSource("worker.cli.explain", "explain", "All that is known of a pair, and why."),
    "dead-letters": CommandSource("worker.cli.dead_letters", "dead_letters", "What could not be delivered."),
    "forget": CommandSource("worker.cli.forget", "forget", "Remove what is kept about an owner, with a receipt."),
    "pause": CommandSource("worker.cli.pause", "pause", "Pause deliveries in the whole fleet, until resume."),
    "resume": CommandSource("worker.cli.pause", "resume", "Let deliveries go on after pause."),
    "repartition": CommandSource("worker.cli.repartition", "repartition", "Change the number of partitions."),
    "check": CommandSource("worker.cli.check", "check", "Is everything there and right? One line each."),
}


_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing fails of that whoever runs us can mend; of a reader that has gone click itself takes care."""


class Commands(click.Group):
    """A group whose commands are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """Loads a command."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command: click.Command = getattr(import_module(place.module), place.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """Writes the list of commands without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the program; where what it says cannot be written, that is one line too."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # it was closed before we began
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - it lasts as we do
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # ids are of any script, terminals are not
        try:
            with losing_no_ctrl_c():
                return super().main(*args, **options)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - what is left goes nowhere
            click.echo(f"contact-sync: standard output cannot be written: {error.strerror}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; what its user can mend is one line and an exit status, never a traceback."""
        from worker.cli.session import EXIT_INTERRUPTED, EXIT_USAGE, Failure  # noqa: PLC0415 - not for --help

        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # ends the line that the terminal's ^C stands in
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except ContactSyncError as error:  # a setting, or another number of partitions than recorded
            raise Failure(str(error), EXIT_USAGE) from None


_EPILOG = """\b
Example:
  contact-sync demo
  echo '{"owner": "1", "contact": "2", "op": "upsert"}' | contact-sync emit
  contact-sync status

Settings come from the environment (CONTACT_SYNC_...) or a .env file. Exit status: 0 done, 1 failed, 2 wrong usage or
configuration, 130 Ctrl-C.
"""


@click.group(cls=Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="contact-sync", message="%(package)s %(version)s")
def main() -> None:
    """Deliver contact changes to the chat platform: joined per pair, delete wins, until confirmed."""
