"""What runs in each worker process beside Celery's pool: the ticker, and a watch over the process' own hearing."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from amqp.exceptions import ChannelError
from celery import bootsteps, signals
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError

from producers.partitions import agree_partitions
from worker import runtime
from worker.gate import Gate
from worker.log_client import LEASE_PATH_SECONDS, connect
from worker.survey import Surveyor
from worker.ticker import IDLE_SECONDS, Ticker

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.settings import WorkerSettings

DEAF_SECONDS: Final = 30.0
"""Hints lie in the queue, this process is free and received none for so long: it does not hear any more."""

EXIT_DEAF: Final = 70  # EX_SOFTWARE: something is wrong with this process; whoever started it starts it anew

_LISTEN_SECONDS: Final = 5.0  # between two looks at the queue

_LOG = structlog.get_logger("contact_sync")


class QueueOfHints:
    """The fleet's queue, through Celery's own connection settings."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What the broker's client raises where the broker is away or refuses."""
        connection = self._app.connection_for_write()
        return (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)

    def hints(self) -> int:
        """How many hints lie in the queue.

        Raises:
            OperationalError, OSError: the broker is away.
        """
        connection = self._connected()
        try:
            queue = self._app.conf.task_default_queue
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
        except ChannelError:
            return 0  # no queue yet, so nothing in it
        except Exception:
            self.close()
            raise

    def leave(self, hints: int) -> None:
        """Leaves so many more.

        Raises:
            OperationalError, OSError: the broker is away.
        """
        task = self._app.tasks["contact_sync.flush"]
        try:
            for _ in range(hints):
                task.apply_async(connection=self._connected(), retry=False)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Gives the connection back; the next call makes another."""
        if self._connection is not None:
            self._connection.release()
            self._connection = None

    def _connected(self) -> Any:
        if self._connection is None:
            connection = self._app.connection_for_write()
            try:
                connection.ensure_connection(max_retries=1, timeout=LEASE_PATH_SECONDS)
            except BaseException:
                connection.release()
                raise
            self._connection = connection
        return self._connection


def _flush_here(settings: WorkerSettings) -> Callable[[float], int]:
    def flush(seconds: float) -> int:
        # Looked up at each call: the ticker's process makes a runtime of its own only if the broker is ever away.
        return runtime.of_this_process(settings).flusher.run(seconds)

    return flush


class TickerStep(bootsteps.StartStopStep):
    """The ticker, in a thread of the process that owns the pool; started after the pool, sharing no client with it."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._app = worker.app
        self._ticker: Ticker | None = None
        self._thread: threading.Thread | None = None

    def start(self, _worker: Any) -> None:
        """Starts ticking."""
        settings = runtime.settings_of(self._app)
        client = connect(settings.redis_url, timeout_seconds=IDLE_SECONDS + LEASE_PATH_SECONDS)
        queue = QueueOfHints(self._app)
        self._ticker = Ticker(
            settings,
            client=client,
            keys=settings.keys,
            surveyor=Surveyor(client, settings.keys, agree_partitions(client, settings.keys, settings.partitions)),
            gate=Gate(client, settings.keys),
            broker=queue,
            broker_errors=queue.errors,
            flush=_flush_here(settings),
            token=f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}",
            monotonic=time.monotonic,
            log=_LOG,
        )
        self._thread = threading.Thread(target=self._ticker.run, name="ticker", daemon=True)
        self._thread.start()

    def stop(self, _worker: Any) -> None:
        """Stops ticking, so that another process' ticker takes over at once."""
        if self._ticker is not None and self._thread is not None:
            self._ticker.stop()
            self._thread.join(IDLE_SECONDS + 2 * LEASE_PATH_SECONDS)


class DeafStep(bootsteps.StartStopStep):
    """Ends a process that consumes no more although hints lie in the queue: Celery's most reported fault.

    It can lose its connection to the broker in ways that look healthy from inside. Whoever started the process
    starts it anew; its exit status says that something was wrong.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._worker = worker
        self._app = worker.app
        self._stop = threading.Event()
        self._received = 0

    def start(self, _worker: Any) -> None:
        """Starts listening to whether anything is heard."""
        signals.task_received.connect(self._hear, weak=False)
        threading.Thread(target=self._watch, name="deaf-watch", daemon=True).start()

    def stop(self, _worker: Any) -> None:
        """Stops watching."""
        self._stop.set()
        signals.task_received.disconnect(self._hear)

    def _hear(self, **_: Any) -> None:
        self._received += 1

    def _watch(self) -> None:
        queue = QueueOfHints(self._app)
        deaf, received = 0.0, 0
        while not self._stop.wait(_LISTEN_SECONDS):
            heard, received = received != self._received, self._received
            deaf = 0.0 if heard or not self._overhears(queue) else deaf + _LISTEN_SECONDS
            if deaf >= DEAF_SECONDS:
                self._end()
                return

    def _overhears(self, queue: QueueOfHints) -> bool:
        """Whether hints lie in the queue that this process is free to take."""
        busy = len(worker_state.reserved_requests) >= self._worker.concurrency
        try:
            return not busy and queue.hints() > 0
        except queue.errors:
            return False  # a broker that is away is no fault of this process' hearing

    def _end(self) -> None:
        _LOG.error("worker_deaf", seconds=DEAF_SECONDS, exit_status=EXIT_DEAF)
        worker_state.should_stop = EXIT_DEAF  # type: ignore[assignment] # a status, as its own code reads it
        # Asked to stop, it may hang in the very thing that made it deaf.
        self._stop.wait(runtime.settings_of(self._app).request_timeout_seconds)
        os._exit(EXIT_DEAF)
