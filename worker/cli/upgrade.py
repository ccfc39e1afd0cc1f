"""``contact-sync upgrade``: says that older workers and producers will not come back."""

from __future__ import annotations

import click

from producers.contract.partitions import LOG_FORMAT
from worker.admin.upgrade import upgrade
from worker.cli.session import EXIT_FAILED, Failure, echo_json, printable, session
from worker.config.settings import load_worker_settings

_EPILOG = """\b
Example:
  contact-sync upgrade
"""


@click.command("upgrade", epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def upgrade_command(*, as_json: bool) -> None:
    """Let the log take the newest form, once all workers and producers are new.

    Until then new and old ones work side by side, and you can go back. From then on workers and producers that are too
    old refuse to start. It is refused while a worker is seen that is too old; producers are not seen, so make sure of
    them yourself.
    """
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace:
        found = upgrade(namespace, settings.wait_replicas)
    if as_json:
        echo_json(found.as_json())
    elif not found.too_old:
        done = "raised: older workers and producers refuse to start" if found.raised else "nothing to do"
        click.echo(f"{done}; the log has format {LOG_FORMAT}")
    if found.too_old:
        names = ", ".join(map(printable, found.too_old))
        raise Failure(f"these workers are too old, so nothing was changed: {names}", EXIT_FAILED)
