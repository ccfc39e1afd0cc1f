"""``contact-sync repartition``: changes the number of partitions."""

from __future__ import annotations

from contextlib import closing

import click
import redis

from producers.contract.partitions import MAX_PARTITIONS
from producers.settings import variable_of
from worker.admin.repartition import NotNow
from worker.admin.repartition import repartition as change_partitions
from worker.cli.session import Failure, echo_json, redis_failure
from worker.config.settings import load_worker_settings
from worker.core.numbers import many
from worker.store.client import connect

_EPILOG = """\b
Example:
  contact-sync repartition 128
"""

_TIMEOUT_SECONDS = 30.0  # a step may move a thousand pairs, and nothing else is running


@click.command(epilog=_EPILOG)
@click.argument("partitions", type=click.IntRange(1, MAX_PARTITIONS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def repartition(*, partitions: int, as_json: bool) -> None:
    """Change the number of partitions to PARTITIONS.

    Nothing may be waiting or parked, no late mark may be open, and there must be no dead letters. Deliveries must be
    paused, and producers and workers stopped. Otherwise it says what prevents the change, changes nothing, and exits
    with status 1. Confirmed outcomes stay remembered.

    While it runs, Redis refuses new changes. If it is interrupted, producers and workers refuse to work until it is run
    again.
    """
    settings = load_worker_settings(require_credentials=False)
    with closing(connect(settings.redis_url, settings.redis_credentials, timeout_seconds=_TIMEOUT_SECONDS)) as client:
        try:
            done = change_partitions(client, settings.keys, partitions, settings.wait_replicas)
        except NotNow as error:
            raise Failure(str(error)) from None
        except redis.RedisError as error:
            raise Failure(redis_failure(settings.redis_url, error)) from None
    if as_json:
        echo_json({"before": done.before, "after": done.after, "pairs_moved": done.pairs})
    else:
        click.echo(
            f"{many(done.before, 'partition')} became {done.after:,}; {many(done.pairs, 'remembered pair')} moved"
        )
    name = variable_of("partitions")
    click.echo(f"contact-sync: deliveries are still paused; if {name} is set, it must be {done.after}", err=True)
