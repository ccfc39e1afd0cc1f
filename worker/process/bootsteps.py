"""Runs the ticker beside Celery's pool in each worker process, and connects it to the queue of hints."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import redis
import structlog
from amqp.exceptions import ChannelError
from celery import bootsteps, signals
from celery.worker import state as worker_state

from worker.core.flow import FlowLimits
from worker.core.timing import TICKER_IDLE_SECONDS
from worker.process import runtime
from worker.process.hint import FLUSH_TASK
from worker.process.stopping import STOPPING
from worker.process.ticker import Ticker
from worker.store.client import LEASE_PATH_SECONDS, connect
from worker.store.cluster_backlog import scanner_of
from worker.store.gate import Gate
from worker.store.inbox import Inbox, load_map
from worker.store.ledger_rotation import LedgerRotation
from worker.store.loss_detector import LossDetector
from worker.store.namespace import Namespace
from worker.store.presence import Presence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.config.settings import WorkerSettings

_LOG = structlog.get_logger("contact_sync")

EX_TEMPFAIL: Final = 75  # of sysexits.h: start the process again

QUICK: Final = {"socket_timeout": LEASE_PATH_SECONDS, "socket_connect_timeout": LEASE_PATH_SECONDS}
"""A broker that never answers must not delay the ticker for longer than its lease."""


def quick_options(settings: WorkerSettings) -> Mapping[str, float]:
    """The same for a broker that takes such options."""
    return {} if settings.broker_is_database else QUICK


class HintQueue:
    """One queue of the broker, through Celery's own connection settings.

    If the broker is away or refuses, each transport raises its own errors.

    Attributes:
        name: of the queue.
    """

    def __init__(self, app: Any, name: str) -> None:
        self.name = name
        self._app = app
        self._connection: Any = None

    def hints(self) -> int:
        """Returns how many hints are in the queue."""
        connection = self._connected()
        try:
            return int(connection.default_channel.queue_declare(self.name, passive=True).message_count)
        except ChannelError:
            return 0  # the queue does not exist yet
        except Exception:
            self.close()
            raise

    def leave(self, hints: int) -> None:
        """Adds this many hints."""
        task = self._app.tasks[FLUSH_TASK]
        try:
            for _ in range(hints):
                task.apply_async(queue=self.name, connection=self._connected(), retry=False)
        except Exception:
            self.close()
            raise

    def purge(self) -> None:
        """Removes all hints from it, if the broker is there."""
        with suppress(Exception):
            self._connected().default_channel.queue_purge(self.name)
        self.close()

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.release()
            self._connection = None

    def _connected(self) -> Any:
        if self._connection is None:
            connection = self._app.connection_for_write(transport_options=quick_options(runtime.settings_of(self._app)))
            try:
                connection.ensure_connection(max_retries=1, timeout=LEASE_PATH_SECONDS)
            except BaseException:
                connection.release()
                raise
            self._connection = connection
        return self._connection


def _flush_here(settings: WorkerSettings) -> Callable[[float], int]:
    def flush(seconds: float) -> int:
        # Looked up at each call: the process of the ticker builds a runtime of its own only if the broker is away.
        return runtime.of_this_process(settings).flush(seconds)

    return flush


def shared_settings(settings: WorkerSettings) -> list[str]:
    """The settings that all workers of a fleet must share, for its heartbeats; of URL and mapping a digest."""
    endpoint = sha256(settings.endpoint_url.encode()).hexdigest()[:8]
    times = (f"{name}={getattr(settings, name):.0f}" for name in ("ledger_seconds", "late_seconds"))
    by = load_map(settings.inbox_map)
    inbox_map = "none" if by is None else by.digest
    return [f"endpoint_url={endpoint}", f"readd={settings.readd}", *times, f"inbox_map={inbox_map}"]


def _restart() -> None:
    """Ends this process, so that it is started again and reads the number of partitions again."""
    worker_state.should_stop = EX_TEMPFAIL  # type: ignore[assignment] # a status, as its own code reads it
    STOPPING.set()


class TickerStep(bootsteps.StartStopStep):
    """The ticker, in a thread of the pool's parent. It starts after the pool and shares no client with it."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._app = worker.app
        self._ticker: Ticker | None = None
        self._thread: threading.Thread | None = None
        self._presence: Presence | None = None

    def start(self, worker: Any) -> None:
        """Starts ticking."""
        settings = runtime.settings_of(self._app)
        client = connect(
            settings.redis_url, settings.redis_credentials, timeout_seconds=TICKER_IDLE_SECONDS + LEASE_PATH_SECONDS
        )
        queue = HintQueue(self._app, settings.namespace)
        partitions = runtime.partitions_of(self._app)
        name, pool = f"{worker.hostname} {os.getpid()}", worker.pool_cls.__module__.rpartition(".")[2]
        namespace = Namespace(client, settings.keys, partitions)
        self._presence = Presence(
            namespace,
            name,
            worker.concurrency,
            pool,
            time.monotonic,
            trouble=self._trouble,
            settings=shared_settings(settings),
        )
        self._ticker = Ticker(
            settings,
            namespace=namespace,
            scanner=scanner_of(namespace),
            gate=Gate(namespace, FlowLimits.of(settings.rate, settings.in_flight)),
            broker=queue,
            inbox=Inbox(namespace, load_map(settings.inbox_map), settings.wait_replicas),
            flush=_flush_here(settings),
            token=f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}",
            monotonic=time.monotonic,
            log=_LOG,
            watches=(
                LossDetector(namespace, time.monotonic, _LOG, _restart).check,
                LedgerRotation(namespace, time.monotonic, settings.ledger_seconds).rotate_due,
                self._presence.beat,
            ),
        )
        self._thread = threading.Thread(target=self._ticker.run, name="ticker", daemon=True)
        self._thread.start()
        signals.worker_shutdown.connect(self._wait, weak=False)

    def _trouble(self) -> str:
        return "" if self._ticker is None else self._ticker.trouble()

    def close(self, _worker: Any) -> None:
        """Stops ticking, so that the ticker of another process takes over while this process finishes its requests."""
        if self._ticker is not None:
            self._ticker.stop()

    def _wait(self, sender: Any, **_: Any) -> None:
        """Waits until the ticker has stopped, after the pool and so at the same time.

        While the broker is away it may have a request under way itself.
        """
        if self._thread is not None:
            request_seconds = runtime.settings_of(sender.app).request_timeout_seconds
            self._thread.join(TICKER_IDLE_SECONDS + 2 * LEASE_PATH_SECONDS + request_seconds)
        if self._presence is not None:
            with suppress(redis.RedisError):  # otherwise the process is shown for another minute
                self._presence.leave()
