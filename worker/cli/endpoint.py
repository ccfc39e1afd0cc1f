"""``contact-sync endpoint``: serves the stand-in endpoint in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worker.cli.host import named
from worker.cli.interrupts import EXIT_INTERRUPTED
from worker.cli.number import Number
from worker.cli.path import PathName
from worker.cli.session import EXIT_USAGE, Failure
from worker.config.listen import LOCALHOST
from worker.standin.key import KEY_ID, KEY_SECRET, KeyInputError, stand_in_key
from worker.standin.server import serve
from worker.standin.settings import DEFAULT_KEY, LONGEST_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

_EPILOG = """\b
Example:
  contact-sync endpoint --port 8080 --latency 0.02
  CONTACT_SYNC_ENDPOINT_URL=http://127.0.0.1:8080 contact-sync worker
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--host", callback=named, default=LOCALHOST, show_default=True, help="Address to listen on.")
@click.option("--key-id", help=f"Id of the key to accept.  [default: {KEY_ID}, or {DEFAULT_KEY}]")
@click.option(
    "--key-secret-file",
    type=PathName(),
    help=f"File with the secret of the key to accept.  [default: {KEY_SECRET} or {KEY_SECRET}_FILE, or {DEFAULT_KEY}]",
)
@click.option(
    "--latency",
    "latency_seconds",
    type=Number(0, LONGEST_SECONDS),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Delay of every request, in seconds.",
)
@click.option("--quiet", is_flag=True, help="Print nothing on standard error.")
def endpoint(  # noqa: PLR0913 - each parameter is an option
    *, port: int, host: str, key_id: str | None, key_secret_file: Path | None, latency_seconds: float, quiet: bool
) -> None:
    """Serve a stand-in for the platform's endpoint, in memory.

    It answers as the platform does. Paths under /_stand-in/ show and change its behaviour: contacts, counts, requests,
    applied, faults, settings, reset.
    """

    def announce(url: str) -> None:
        if not quiet:
            click.echo(f"stand-in endpoint on {url} (Ctrl-C ends it)", err=True)

    try:
        key_id, key_secret = stand_in_key(key_id, key_secret_file)
    except KeyInputError as error:
        raise Failure(str(error), EXIT_USAGE) from None
    try:
        serve(host, port, key_id, key_secret, latency_seconds=latency_seconds, announce=announce)
    except OSError as error:
        # Only the address can fail here: the server listens before it serves.
        raise Failure(f"cannot listen on {host} port {port}: {error.strerror}") from None
    raise click.exceptions.Exit(EXIT_INTERRUPTED)  # it only returns after Ctrl-C


if __name__ == "__main__":
    endpoint()
