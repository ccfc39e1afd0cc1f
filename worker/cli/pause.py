"""``contact-sync pause`` and ``resume``: no worker sends a request in between."""

from __future__ import annotations

import click

from worker.cli.session import echo_json, session
from worker.config.settings import load_worker_settings
from worker.core.times import iso_utc
from worker.store.gate import Gate

_PAUSE_EPILOG = """\b
Example:
  contact-sync pause
  contact-sync status          # endpoint  paused
  contact-sync resume
"""

_RESUME_EPILOG = """\b
Example:
  contact-sync resume
"""


@click.command(epilog=_PAUSE_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pause(*, as_json: bool) -> None:
    """Pause deliveries in the whole fleet until `contact-sync resume`, even if workers restart.

    Producers continue. Workers continue to join what arrives, as while the endpoint is away, but send no requests. A
    request that was already sent ends within the request timeout.
    """
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace:
        paused = Gate(namespace).pause(settings.wait_replicas)
    since = iso_utc(paused.since_ms)
    if as_json:
        echo_json({"paused": True, "since": since, "was_paused": paused.already})
        return
    in_flight = f"requests in flight end within {settings.request_timeout_seconds:g} s"
    click.echo(f"already paused since {since}" if paused.already else f"paused; {in_flight}")


@click.command(epilog=_RESUME_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def resume(*, as_json: bool) -> None:
    """Continue deliveries after `contact-sync pause`; workers notice within two seconds."""
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace:
        was = Gate(namespace).resume(settings.wait_replicas)
    if as_json:
        echo_json({"paused": False, "since": iso_utc(was) if was else None, "was_paused": bool(was)})
        return
    click.echo(f"resumed; deliveries were paused since {iso_utc(was)}" if was else "deliveries were not paused")
