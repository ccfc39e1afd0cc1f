"""Builds what one process needs to flush, from the settings. Built after the fork, never shared by processes."""

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

from producers.contract.errors import SettingsError
from producers.nodes.cluster import ClusterClient
from producers.nodes.sentinel import UnknownMasterError
from producers.settings import variable_of
from worker.config.server_key import read_server_key
from worker.core.flow import FlowLimits
from worker.delivery.claims import Claims, ScanTurn
from worker.delivery.endpoint import PATH, Endpoint
from worker.delivery.flush import Flusher
from worker.delivery.request import RequestSender
from worker.delivery.settle import Settler
from worker.process.pipeline import RUNS_MAX, Pipeline
from worker.process.stopping import STOPPING
from worker.store.agreed import record_partitions
from worker.store.client import connect
from worker.store.cluster_backlog import scanner_of
from worker.store.gate import Gate
from worker.store.log_form import agree_form
from worker.store.namespace import Namespace
from worker.store.partitions import Partitions
from worker.store.permissions import refused_commands, refused_words
from worker.store.refusal import away_words, refusal, server_fault
from worker.store.replies import is_wrong_type
from worker.store.suppressions import Suppressions

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.settings import WorkerSettings
    from worker.core.gate import Permit
    from worker.delivery.tracing import Tracing


class ServerKeyHeader:
    """The value of the `Server-Key` header.

    Read again for each generation of the gate: before each probe, and in every process after another's probe has
    opened the gate. A process that kept an old key would close it again. While the gate's node of a cluster is away, no
    generation ends: then it is read again after each failure.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._read: tuple[tuple[int, int], str] | None = None

    def __call__(self, permit: Permit) -> str:
        """Returns the value for a request that the gate let out.

        Raises:
            SettingsError: the key is missing, or its file cannot be read.
        """
        read, of = self._read, (permit.generation, permit.attempts)  # threads share this object: another may replace it
        if read is None or read[0] != of:
            read = self._read = (of, read_server_key(self._settings).header)
        return read[1]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What one process works with.

    Attributes:
        settings: the worker's settings.
        namespace: the event log and all state.
        gate: the fleet-wide circuit breaker of the endpoint.
        flusher: flushes batches, one at a time.
        pipeline: has several runs of it under way.
        endpoint: the connections to it.
    """

    settings: WorkerSettings
    namespace: Namespace
    gate: Gate
    flusher: Flusher
    pipeline: Pipeline
    endpoint: Endpoint

    def close(self) -> None:
        """Closes all connections; a worker keeps them until its process ends."""
        self.endpoint.close()
        self.namespace.client.close()

    def flush(self, budget_seconds: float) -> int:
        """Flushes while something is due and the budget lasts; returns the number of rounds.

        Raises:
            redis.RedisError: Redis went away; unsettled changes are still in the log, and leases expire.
        """
        return self.pipeline.run(self.flusher.run, budget_seconds)


def settings_of(app: Any) -> WorkerSettings:
    """The settings that the Celery app was made with."""
    found: WorkerSettings = app.contact_sync_settings
    return found


def partitions_of(app: Any) -> int:
    """How many partitions the log had when the worker started; known also while Redis is away."""
    found: int = app.contact_sync_partitions
    return found


def build(settings: WorkerSettings, stopping: Callable[[], bool] = STOPPING) -> Runtime:
    """Builds a runtime for this process.

    Args:
        settings: the worker's settings.
        stopping: whether the process is ending.

    Raises:
        PartitionsMismatch: the recorded number of partitions differs from the configured one.
        TooOld: the log needs a newer worker.
        redis.RedisError: Redis does not answer.
    """
    client = connect(settings.redis_url, settings.redis_credentials)
    count = record_partitions(client, settings.keys, settings.partitions)
    monotonic, draw, log = time.monotonic, random.random, structlog.get_logger("contact_sync")
    namespace = Namespace(client, settings.keys, count)
    gate = Gate(namespace, FlowLimits.of(settings.rate, settings.in_flight))
    partitions = Partitions.of(namespace, settings)
    partitions.one_pending = agree_form(namespace).one_pending
    endpoint = Endpoint(
        settings.endpoint_url,
        settings.request_timeout_seconds,
        monotonic,
        max_connections=RUNS_MAX,
        reuse=settings.connections == "reuse",
    )
    tracing = _tracing(endpoint, settings)
    pipeline = Pipeline(tracing or endpoint, stopping, monotonic)
    requests = RequestSender(
        settings,
        gate=gate,
        endpoint=pipeline,
        server_key=ServerKeyHeader(settings),
        monotonic=monotonic,
        draw=draw,
        parks=partitions.parks,
        wait=pipeline.rest,
    )
    scanner, suppressed = scanner_of(namespace), Suppressions(namespace).under
    flusher = Flusher(
        settings,
        partitions=partitions,
        claims=Claims(
            settings,
            partitions=partitions,
            scanner=scanner,
            scan_turn=ScanTurn().taken,
            gate=gate,
            monotonic=monotonic,
            draw=draw,
            suppressed=suppressed,
            log=log,
        ),
        requests=requests,
        settler=Settler(settings, partitions, requests, monotonic, log),
        suppressed=suppressed,
        monotonic=monotonic,
        stopping=pipeline.stopping,
        wait=pipeline.wait,
        tracing=tracing,
    )
    return Runtime(settings, namespace, gate, flusher, pipeline, endpoint)


def _tracing(endpoint: Endpoint, settings: WorkerSettings) -> Tracing | None:
    """None if the extra `otel` is not installed."""
    try:
        from worker.delivery.tracing import Tracing  # noqa: PLC0415 - it needs the extra
    except ModuleNotFoundError:
        return None
    return Tracing(endpoint, settings.endpoint_url + PATH)


_GARBAGE: Final = 50_000
"""New objects after which the collector looks for cycles. A batch makes some thousands, none of them in a cycle."""

_lock = threading.Lock()
_runtimes: dict[int, Runtime] = {}


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - a lock that another thread held at the fork would stay locked in the child
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def of_this_process(settings: WorkerSettings) -> Runtime:
    """The runtime of this process, built at first use: children would share a client made before the fork."""
    pid = os.getpid()
    with _lock:
        if pid not in _runtimes:
            _runtimes[pid] = build(settings)
            # What is loaded by now stays. The collector would spend a tenth of the time on it.
            gc.freeze()
            gc.set_threshold(_GARBAGE, 20, 100)
        return _runtimes[pid]


_RETRY_SECONDS: Final = 1.0


def wait_for_redis(settings: WorkerSettings) -> int:
    """Waits until Redis answers, logs once that it is away, and checks that the worker can use the log.

    Returns:
        How many partitions there are.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the recorded number of partitions or format differs.
        TooOld: the log needs a newer worker.
        SettingsError: the server may evict keys and lose changes, or it refuses us and waiting does not help.
    """
    client = connect(settings.redis_url, settings.redis_credentials)
    log = structlog.get_logger("contact_sync")
    said = False
    while True:
        try:
            partitions = _check_redis(client, settings)
            agree_form(Namespace(client, settings.keys, partitions))
            break
        except redis.RedisError as error:
            _raise_if_waiting_is_useless(settings, error)
            if not said:
                log.warning("redis_away", error=away_words(error), waits="until it is back")
                said = True
            time.sleep(_RETRY_SECONDS)
    client.close()
    if said:
        log.info("redis_back")
    return partitions


def _check_redis(client: redis.Redis, settings: WorkerSettings) -> int:
    """Returns how many partitions there are, if a worker can use this Redis."""
    servers = [each for _, each in client.masters()] if isinstance(client, ClusterClient) else [client]
    for server in servers:
        info: Any = server.info()
        if fault := server_fault(info, node=isinstance(client, ClusterClient)):
            raise SettingsError(f"{variable_of('redis_url')}: a worker cannot use this Redis: {fault}")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise SettingsError(
                f"Redis has maxmemory-policy {policy}, under which it drops changes: set it to noeviction"
            )
    partitions = record_partitions(client, settings.keys, settings.partitions)
    found = client.type(settings.keys.gate), client.type(settings.keys.ticker)
    for key, kind, right in zip((settings.keys.gate, settings.keys.ticker), found, (b"hash", b"string"), strict=True):
        if kind not in {b"none", right}:
            raise SettingsError(f"the key {key} in Redis has the wrong type: rename or remove it")
    if refused := refused_commands(client, settings.keys):
        raise SettingsError(refused_words(refused, settings.keys))
    return partitions


def _raise_if_waiting_is_useless(settings: WorkerSettings, error: redis.RedisError) -> None:
    if isinstance(error, UnknownMasterError):
        raise SettingsError(f"{variable_of('redis_url')}: {error}") from None
    if is_wrong_type(error):
        raise SettingsError(
            f"the key {settings.keys.config} in Redis has the wrong type: rename or remove it"
        ) from None
    if why := refusal(error):
        raise SettingsError(f"{variable_of('redis_url')}: a worker cannot use this Redis: {why}") from None
