"""``contact-sync serve``: serves metrics, probes, and a page that shows the fleet and handles dead letters."""

from __future__ import annotations

from pathlib import Path

import click

from producers.settings import load_settings, variable_of
from worker.cli.host import named
from worker.cli.interrupts import EXIT_INTERRUPTED
from worker.cli.session import EXIT_USAGE, Failure
from worker.config.listen import LOCALHOST, is_loopback_host
from worker.config.serve import ServeSettings, read_tokens
from worker.process.logs import set_up_logging
from worker.serve.server import serve

_EPILOG = """\b
Example:
  contact-sync serve
  CONTACT_SYNC_SERVE_TOKEN_FILE=/run/secrets/token contact-sync serve --host 0.0.0.0 --port 8090
"""


@click.command("serve", epilog=_EPILOG)
@click.option(
    "--host",
    callback=named,
    default=LOCALHOST,
    show_default=True,
    help="Address to listen on; other machines need a token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--quiet", is_flag=True, help="Do not print the URL.")
def serve_command(*, host: str, port: int, quiet: bool) -> None:
    """Serve metrics for Prometheus, probes, and a page that shows the fleet.

    /metrics, /healthz (alive) and /readyz (Redis answers) are for machines; / is for people. If a token is set
    (CONTACT_SYNC_SERVE_TOKEN to act, CONTACT_SYNC_SERVE_READ_TOKEN to read), people must sign in, and /metrics needs it
    as a bearer token. Without a token it serves only this machine.
    """
    settings = load_settings(ServeSettings, None, Path(".env"))
    tokens = read_tokens(settings)
    if not tokens.needed and not is_loopback_host(host):
        names = f"{variable_of('serve_token')} or {variable_of('serve_read_token')}"
        raise Failure(f"{host} is reached from other machines: set {names} (or ..._FILE) to serve there", EXIT_USAGE)

    def announce(url: str) -> None:
        if not quiet:
            click.echo(f"contact-sync serves on {url} (Ctrl-C ends it)", err=True)

    set_up_logging("WARNING")
    try:
        serve(settings, tokens, host, port, announce)
    except OSError as error:
        # Only the address can fail here: the server listens before it serves.
        raise Failure(f"cannot listen on {host} port {port}: {error.strerror}") from None
    raise click.exceptions.Exit(EXIT_INTERRUPTED)  # it only returns after Ctrl-C
