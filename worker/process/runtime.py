"""One process' worker, put together: settings in, a flusher out. Made after the fork, never shared by processes."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import redis
import structlog
from redis.exceptions import NoPermissionError

from producers.contract.errors import SettingsError
from producers.contract.partitions import agree_partitions
from producers.settings import variable_of
from worker.config.server_key import read_server_key
from worker.core.linger import Linger
from worker.delivery.claims import Claims
from worker.delivery.endpoint import PATH, Endpoint
from worker.delivery.flush import Flusher
from worker.delivery.request import RequestSender
from worker.delivery.settle import Settler
from worker.process.stopping import STOPPING
from worker.store.backlog import BacklogScanner
from worker.store.client import connect
from worker.store.gate import Gate
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.settings import WorkerSettings
    from worker.delivery.tracing import Tracing


class ServerKeyHeader:
    """The header value to send with.

    Read anew for each generation of the gate, so before each probe, and in every process once another's probe has
    opened the gate: a process that kept an old key would close it again.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._read: tuple[int, str] | None = None

    def __call__(self, generation: int) -> str:
        """The value of `Server-Key`, for a request that goes out under this generation of the gate.

        Raises:
            SettingsError: the key is missing, or its file cannot be read.
        """
        read = self._read  # threads share this object: each goes by what it saw
        if read is None or read[0] != generation:
            read = self._read = (generation, read_server_key(self._settings).header)
        return read[1]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What one process works with.

    Attributes:
        settings: the worker's settings.
        client: Redis, for the event log and all state.
        partitions: how many there are.
        gate: the endpoint as the fleet sees it.
        flusher: flushes batches.
    """

    settings: WorkerSettings
    client: redis.Redis
    partitions: int
    gate: Gate
    flusher: Flusher


def settings_of(app: Any) -> WorkerSettings:
    """The settings that the Celery app was made with."""
    found: WorkerSettings = app.contact_sync_settings
    return found


def build(settings: WorkerSettings, stopping: Callable[[], bool] = STOPPING) -> Runtime:
    """A runtime of this process' own.

    Args:
        settings: the worker's settings.
        stopping: whether the process is about to end.

    Raises:
        PartitionsMismatch: the log was begun with another number of partitions than configured.
        redis.RedisError: Redis does not answer.
    """
    client = connect(settings.redis_url)
    count = agree_partitions(client, settings.keys, settings.partitions)
    monotonic, draw, log = time.monotonic, random.random, structlog.get_logger("contact_sync")
    gate = Gate(client, settings.keys)
    partitions = Partitions(
        client,
        settings.keys,
        count,
        monotonic,
        lease_seconds=settings.lease_seconds,
        late_seconds=settings.late_seconds,
        ledger_seconds=settings.ledger_seconds,
    )
    endpoint = Endpoint(settings.endpoint_url, settings.request_timeout_seconds, monotonic)
    tracing = _tracing(endpoint, settings)
    requests = RequestSender(
        settings,
        gate=gate,
        endpoint=tracing or endpoint,
        server_key=ServerKeyHeader(settings),
        monotonic=monotonic,
        epoch=time.time,
        draw=draw,
    )
    scanner = BacklogScanner(client, settings.keys, count)
    linger = Linger.of(settings.linger_seconds, settings.delete_linger_seconds)
    flusher = Flusher(
        settings,
        partitions=partitions,
        claims=Claims(
            partitions,
            scanner,
            monotonic,
            draw,
            linger=linger,
        ),
        gate=gate,
        requests=requests,
        settler=Settler(settings, partitions, requests, monotonic, log),
        monotonic=monotonic,
        stopping=stopping,
        tracing=tracing,
    )
    return Runtime(settings, client, count, gate, flusher)


def _tracing(endpoint: Endpoint, settings: WorkerSettings) -> Tracing | None:
    """None where the extra `otel` is not installed."""
    try:
        from worker.delivery.tracing import Tracing  # noqa: PLC0415 - it needs that extra
    except ModuleNotFoundError:
        return None
    return Tracing(endpoint, settings.endpoint_url + PATH)


_GARBAGE: Final = 50_000
"""New objects after which the collector looks for cycles; a batch makes some thousands, none of them in a cycle."""

_lock = threading.Lock()
_runtimes: dict[int, Runtime] = {}


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - a lock that another thread held at the fork stays locked in the child for ever
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def of_this_process(settings: WorkerSettings) -> Runtime:
    """The process' runtime, built at first use: a client made before a fork would be shared by the children."""
    pid = os.getpid()
    with _lock:
        if pid not in _runtimes:
            _runtimes[pid] = build(settings)
            # What was loaded by now stays: to look through all of it again and again was a tenth of the time.
            gc.freeze()
            gc.set_threshold(_GARBAGE, 20, 100)
        return _runtimes[pid]


_RETRY_SECONDS: Final = 1.0


def wait_for_redis(settings: WorkerSettings) -> int:
    """Waits until Redis answers, saying so once, and checks that the log may be worked on.

    Returns:
        How many partitions there are.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log was begun otherwise than configured.
        SettingsError: the server may evict keys, and with them changes; or it refuses us for good.
    """
    client = connect(settings.redis_url)
    log = structlog.get_logger("contact_sync")
    said = False
    while True:
        try:
            partitions = agree_partitions(client, settings.keys, settings.partitions)
            policy = client.info("memory").get("maxmemory_policy", "noeviction")
            break
        except redis.RedisError as error:
            _refuse_what_no_waiting_mends(settings, error)
            if not said:
                log.warning("redis_away", error=type(error).__name__, waits="until it is back")
                said = True
            time.sleep(_RETRY_SECONDS)
    client.close()
    if said:
        log.info("redis_back")
    if policy != "noeviction":
        raise SettingsError(f"Redis has maxmemory-policy {policy}, under which it drops changes: set it to noeviction")
    return partitions


def _refuse_what_no_waiting_mends(settings: WorkerSettings, error: redis.RedisError) -> None:
    if isinstance(error, redis.AuthenticationError):
        raise SettingsError(f"{variable_of('redis_url')}: Redis refuses its user or password") from None
    if isinstance(error, NoPermissionError) or "unknown command" in str(error):
        raise SettingsError(f"Redis refuses what a worker must do: {error}") from None
    if "WRONGTYPE" in str(error):
        raise SettingsError(f"the key {settings.keys.config} in Redis is none of ours: it is of another type") from None
