"""The program ``contact-sync``: its commands, and how each of them ends (contract, section 6).

A command's module is loaded when the command is called. So `status` and `--help` start without loading Celery, httpx
or the stand-in's web server, which takes far longer.
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
from worker.cli.interrupts import EXIT_INTERRUPTED, heeding_sigterm_as_process_1, losing_no_ctrl_c

if TYPE_CHECKING:
    from collections.abc import Mapping


class CommandSource(NamedTuple):
    """Where a command is, and its summary, so that ``--help`` need not load it."""

    module: str
    name: str
    summary: str


COMMANDS: Final[Mapping[str, CommandSource]] = {
    "demo": CommandSource("worker.cli.demo", "demo", "Show the whole system on this machine; ends by itself."),
    "up": CommandSource("worker.cli.up", "up", "Run Redis, a worker and, if asked, the stand-in, until Ctrl-C."),
    "worker": CommandSource("worker.cli.worker", "worker", "Run a worker with good defaults for this machine."),
    "endpoint": CommandSource(
        "worker.cli.endpoint", "endpoint", "Serve a stand-in for the platform's endpoint, in memory."
    ),
    "emit": CommandSource("worker.cli.emit", "emit", "Append changes to the log from JSON lines."),
    "relay": CommandSource("worker.cli.relay", "relay", "Forward what apps recorded in their outbox."),
    "reconcile": CommandSource("worker.cli.reconcile", "reconcile_command", "Make the endpoint match a source."),
    "conform": CommandSource("worker.cli.conform", "conform", "Check what a producer wrote against each rule."),
    "status": CommandSource("worker.cli.status", "status", "Show what is waiting, since when, and the endpoint."),
    "serve": CommandSource("worker.cli.serve", "serve_command", "Serve metrics, probes, and a page about the fleet."),
    "health": CommandSource("worker.cli.health", "health", "Say if a restart may help, by exit status."),
    "drain": CommandSource("worker.cli.drain", "drain", "Wait until all changes are delivered."),
    "explain": CommandSource("worker.cli.explain", "explain", "Show all that is known of a pair."),
    "dead-letters": CommandSource(
        "worker.cli.dead_letters", "dead_letters", "List, redrive or purge what could not be delivered."
    ),
    "parked": CommandSource("worker.cli.parked", "parked", "List, retry or bury what is refused with an unknown code."),
    "forget": CommandSource("worker.cli.forget", "forget", "Remove what is stored about an owner."),
    "erase": CommandSource("worker.cli.erase", "erase", "Erase a user here and at the endpoint."),
    "pause": CommandSource("worker.cli.pause", "pause", "Pause deliveries in the whole fleet, until resume."),
    "resume": CommandSource("worker.cli.pause", "resume", "Continue deliveries after pause."),
    "repartition": CommandSource("worker.cli.repartition", "repartition", "Change the number of partitions."),
    "upgrade": CommandSource("worker.cli.upgrade", "upgrade_command", "Let the log take its newest form."),
    "check": CommandSource("worker.cli.check", "check", "Check settings, Redis, broker, key and endpoint."),
}


_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of writing that the user can fix. Click itself handles a reader that has gone."""


class _ClosedInput(io.RawIOBase):
    """Standard input that was closed before the start (`<&-`): reading it is an error that says so."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise OSError(errno.EBADF, "standard input is closed")


class Commands(click.Group):
    """A group that loads a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """Loads a command."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command: click.Command = getattr(import_module(place.module), place.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """Writes the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the program; if its output cannot be written, it says so in one line."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # it was closed before the start
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - it stays open until the process ends
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # ids have characters that some terminals lack
        if sys.stdin is None:
            sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedInput()))
        try:
            heeding_sigterm_as_process_1()
            with losing_no_ctrl_c():
                return super().main(*args, **options)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the rest is discarded
            click.echo(f"contact-sync: standard output cannot be written: {error.strerror}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; a user's mistake is one line and an exit status, never a traceback."""
        try:
            from worker.cli.session import EXIT_USAGE, Failure  # noqa: PLC0415 - not for --help

            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # ends the line that shows the terminal's ^C
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except (
            ContactSyncError
        ) as error:  # a setting is invalid, or the number of partitions differs from the recorded one
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
