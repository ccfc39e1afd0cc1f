"""``contact-sync pause`` and ``resume``: no request goes out in the meantime, whoever works."""

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
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def pause(*, as_json: bool) -> None:
    """Pause deliveries in the whole fleet until `contact-sync resume`, whatever is restarted in between.

    Producers go on. Workers go on too, all but the requests: they join what arrives, as while the endpoint is away. A
    request that is on its way ends as it does, within the request timeout.
    """
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as (client, keys, _):
        gate = Gate(client, keys)
        was = gate.pause()
        since = was or gate.snapshot().paused_ms
    if as_json:
        echo_json({"paused": True, "since": iso_utc(since), "was_paused": bool(was)})
        return
    on_their_way = f"requests on their way end within {settings.request_timeout_seconds:g} s"
    click.echo(f"paused since {iso_utc(since)}, as it was before" if was else f"paused; {on_their_way}")


@click.command(epilog=_RESUME_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def resume(*, as_json: bool) -> None:
    """Let deliveries go on after `contact-sync pause`; workers notice within a second or two."""
    with session(load_worker_settings(require_credentials=False)) as (client, keys, _):
        was = Gate(client, keys).resume()
    if as_json:
        echo_json({"paused": False, "since": iso_utc(was) if was else None, "was_paused": bool(was)})
        return
    click.echo(f"resumed; it was paused since {iso_utc(was)}" if was else "it was not paused")
