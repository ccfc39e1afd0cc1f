"""Checks Celery's broker: does it answer, and does it share the log's memory?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis

from producers.contract.errors import SettingsError
from producers.contract.redis_url import split_url
from producers.nodes.url import SCHEMES
from worker.admin.finding import Finding
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from worker.config.settings import WorkerSettings

_TIMEOUT_SECONDS: Final = 5
_NOT_NEEDED: Final = "until it answers, workers look for work by themselves"  # it only carries hints


def check_broker(
    settings: WorkerSettings, log_info: Mapping[str, Any], shown: Callable[[str], str]
) -> Iterator[Finding]:
    """Checks the broker. If it does not answer, that is only a warning.

    Args:
        settings: the settings to check.
        log_info: the reply to INFO of the Redis that holds the log.
        shown: returns a URL without anything that may be secret.
    """
    try:
        settings.check_broker_given()
    except SettingsError as error:
        yield Finding("broker", "wrong", str(error))
        return
    if settings.broker_is_memory:
        yield Finding("broker", "ok", "none: each worker process looks for work by itself")
        return
    url = settings.broker_url or settings.redis_url
    if split_url(url).scheme in SCHEMES and ";" not in url:
        credentials = settings.redis_credentials if settings.broker_url is None else None
        yield _redis(url, credentials, log_info, shown)
    else:
        yield _other(settings.celery_broker_url, settings.broker_sentinel_options, shown)


def _redis(url: str, credentials: str | None, log_info: Mapping[str, Any], shown: Callable[[str], str]) -> Finding:
    client = connect(url, credentials, timeout_seconds=_TIMEOUT_SECONDS)
    try:
        info: Any = client.info("server")
    except redis.RedisError as error:
        return Finding("broker", "warn", f"{shown(url)}: {str(error).rstrip('.')}; {_NOT_NEEDED}")
    finally:
        client.close()
    if info.get("run_id") != log_info.get("run_id"):
        return Finding("broker", "ok", f"{shown(url)}, a server of its own")
    if limit := log_info.get("maxmemory"):
        return Finding(
            "broker",
            "warn",
            f"shares the log's Redis, which refuses writes of both at {limit:,} bytes: use two servers",
        )
    return Finding("broker", "ok", "shares the log's Redis, which has no maxmemory")


def _other(url: str, options: Mapping[str, Any], shown: Callable[[str], str]) -> Finding:
    """Checks a broker that is not a Redis, through the library that Celery uses."""
    from kombu import Connection  # noqa: PLC0415 - slow to load, and most brokers are a Redis
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - the same

    where = " ".join(shown(each) for each in url.split(";"))
    try:
        with Connection(url, connect_timeout=_TIMEOUT_SECONDS, transport_options=dict(options)) as connection:
            connection.ensure_connection(max_retries=1, timeout=_TIMEOUT_SECONDS)
    except (ImportError, KeyError, ValueError) as error:  # no worker starts without the library for it
        return Finding("broker", "wrong", f"{where}: {error}")
    except (OSError, OperationalError) as error:
        return Finding("broker", "warn", f"{where}: {error}; {_NOT_NEEDED}")
    return Finding("broker", "ok", f"{where}, a server of its own")
