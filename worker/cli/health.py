"""``contact-sync health``: tells by its exit status whether a restart of the workers may help."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import click
import redis

from producers.nodes.cluster import ClusterClient
from producers.settings import variable_of
from worker.admin.health import Health, assess, default_bound_seconds
from worker.admin.status import read_status
from worker.cli.number import Number
from worker.cli.session import EXIT_FAILED, echo_json, printable, redis_failure
from worker.config.settings import WorkerSettings, load_worker_settings
from worker.store.agreed import agreed_partitions
from worker.store.client import connect
from worker.store.namespace import Namespace
from worker.store.refusal import refusal, server_fault

_EPILOG = """\b
Example:
  contact-sync health
  contact-sync health --older-than 120 || echo 'the workers make no progress'
  contact-sync health --json | jq .reason
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--older-than",
    "bound_seconds",
    type=Number(min=0, min_open=True, max=86400),
    metavar="SECONDS",
    help="How many seconds the oldest change may wait.  "
    "[default: linger + lease + ticker's lease + request timeout, 30 unless configured]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def health(*, bound_seconds: float | None, as_json: bool) -> None:
    """Say in one line whether the fleet makes progress: exit status 0 if it does, 1 if a restart may help.

    The fleet is healthy if the oldest change is younger than the bound, or the backlog moves, or the reason is outside
    the workers: the endpoint is held or backing off, deliveries are paused, or Redis is away, whole or in part. A
    restart helps none of these. What Redis refuses for good, such as the password, does not pass by itself: then the
    exit status is 1.
    """
    settings = _settings()
    bound = default_bound_seconds(settings) if bound_seconds is None else bound_seconds
    found = _health(settings, bound)
    if as_json:
        echo_json({**found.as_json(), "older_than_seconds": bound})
    else:
        word = (
            "healthy, the reason is outside the workers"
            if found.outside
            else "healthy"
            if found.healthy
            else "unhealthy"
        )
        click.echo(f"{word}: {printable(found.message)}")
    if not found.healthy:
        raise click.exceptions.Exit(EXIT_FAILED)


def _settings() -> WorkerSettings:
    """The settings without broker and endpoint: unused here, and checking them would load kombu and httpx."""
    endpoint_url = WorkerSettings.model_fields["endpoint_url"].default
    return load_worker_settings(require_credentials=False, broker_url=None, endpoint_url=endpoint_url)


def _health(settings: WorkerSettings, bound_seconds: float) -> Health:
    with closing(connect(settings.redis_url, settings.redis_credentials)) as client:
        try:
            info: Any = client.info("server")
            if fault := server_fault(info, node=isinstance(client, ClusterClient)):
                return Health("redis_refuses", f"{variable_of('redis_url')}: workers cannot use this Redis: {fault}")
            partitions = agreed_partitions(client, settings)
            return assess(
                lambda: read_status(Namespace(client, settings.keys, partitions)),
                bound_seconds=bound_seconds,
                monotonic=time.monotonic,
                sleep=time.sleep,
            )
        except redis.RedisError as error:
            if refusal(error):
                return Health("redis_refuses", redis_failure(settings.redis_url, error))
            if (
                isinstance(client, ClusterClient)
                and client.nodes.slots
                and len(client.nodes.away()) < len(client.nodes.slots.masters)
            ):
                return Health("redis_partly_away", redis_failure(settings.redis_url, error))
            # A worker waits for Redis by itself. If this failed, an orchestrator would kill the worker again and again
            # while Redis is away, and would still be backing off when Redis is back.
            return Health("redis_away", redis_failure(settings.redis_url, error))
