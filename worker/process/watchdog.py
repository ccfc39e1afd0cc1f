"""A watch over a process' own hearing: one that takes no hints any more ends itself, so that it is started anew.

A worker can lose its hearing in ways that look healthy from inside, and while others take all hints the fleet's queue
shows nothing of it. So a process that hears nothing leaves itself a hint, in a queue of its own that it takes from
just as it does from the fleet's, on the same connection and with the same slots.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
import structlog
from celery import bootsteps, signals
from celery.worker import state as worker_state
from kombu import Exchange, Queue

from worker.core.timing import FLUSH_BUDGET_SECONDS
from worker.process import runtime
from worker.process.bootsteps import HintQueue
from worker.process.signals import end_at_once
from worker.process.stopping import STOPPING
from worker.store.client import LEASE_PATH_SECONDS, connect

if TYPE_CHECKING:
    from worker.config.settings import WorkerSettings

LISTEN_SECONDS: Final = 5.0
"""Between two looks; who heard anything since the last one leaves itself nothing."""

DEAF_SECONDS: Final = 30.0
"""Who has heard nothing for so long, though there was something to hear, does not hear any more."""

RECONNECT_SECONDS: Final = 40.0
"""What is added while Celery has not yet found a broker that is back: it looks every 30 s in the end."""

_LOOKS: Final = 3  # so many looks ago is lately; and no look counts for more, lest a machine that slept be called deaf

EXIT_DEAF: Final = 70  # EX_SOFTWARE: something is wrong with this process; whoever started it starts it anew

_LOG = structlog.get_logger("contact_sync")


class ConsumerWatchdog(bootsteps.StartStopStep):
    """Ends a process that hears no more. Its exit status says that something was wrong.

    It is no fault of the process that the broker is away: then it can leave itself nothing, and nobody else hears.
    """

    requires = ("celery.worker.components:Pool",)
    listen_seconds = LISTEN_SECONDS
    deaf_seconds = DEAF_SECONDS
    reconnect_seconds = RECONNECT_SECONDS

    def __init__(self, worker: Any, **_: Any) -> None:
        self._worker = worker
        self._settings = runtime.settings_of(worker.app)
        self._name = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._fleets = QueueMonitor(HintQueue(worker.app, self._settings.namespace))
        self._own = QueueMonitor(HintQueue(worker.app, f"{self._settings.namespace}:hearing:{self._name}"))
        queue = worker.app.amqp.queues.select_add(Queue(self._own.queue.name, routing_key=self._own.queue.name))
        queue.exchange = Exchange("")  # bound to none, it leaves nothing behind in the broker but its one hint
        self._others = FleetHeartbeat(self._settings, self._name, _LOOKS * self.listen_seconds)
        self._reaches, self._owed = False, False  # the broker; something to hear
        self._patience_seconds, self._steady_seconds = 0.0, 0.0  # how long it may hear nothing, and since when so long
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hearing", daemon=True)

    def start(self, _worker: Any) -> None:
        """Starts to watch."""
        signals.task_received.connect(self._hear, weak=False)
        signals.worker_shutdown.connect(self._take_back, weak=False)
        self._thread.start()

    def stop(self, _worker: Any) -> None:
        """Stops to watch."""
        signals.task_received.disconnect(self._hear)
        self._stop.set()

    def _take_back(self, **_: Any) -> None:
        """Removes what it left itself, when Celery has given back what it took and did not begin."""
        self._thread.join(2 * LEASE_PATH_SECONDS)  # it may be asking a broker that does not answer
        self._own.queue.purge()

    def _hear(self, request: Any, **_: Any) -> None:
        ear = self._own if request.delivery_info["routing_key"] == self._own.queue.name else self._fleets
        ear.received += 1

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._stop.wait(self.listen_seconds):
            before, looked = looked, time.monotonic()
            seconds = min(looked - before, _LOOKS * self.listen_seconds)
            self._listen(seconds)
            self._have_patience(seconds)
            silent = max(self._own.silent_seconds, self._fleets.silent_seconds)
            # Who had reason to hear nothing until a moment ago gets some looks to hear what was left meanwhile.
            steady = self._steady_seconds >= _LOOKS * self.listen_seconds
            if silent >= self._patience_seconds and steady and not STOPPING():
                self._end(silent)
                return

    def _listen(self, seconds: float) -> None:
        heard_own, heard_fleets = self._own.heard(), self._fleets.heard()
        self._own.note(seconds, silent=self._owed and not heard_own and not heard_fleets)
        if heard_own or heard_fleets:
            self._others.tell()
            self._reaches, self._owed = True, False
        else:
            self._reaches = self._own.leave()
            self._owed = self._reaches or self._others.hear()
        free = self._reaches and not heard_fleets and not self._busy()
        self._fleets.note(seconds, silent=free and self._fleets.waits())

    def _busy(self) -> bool:
        return len(worker_state.reserved_requests) >= int(self._worker.concurrency)

    def _have_patience(self, seconds: float) -> None:
        """Longer where there is good reason to hear nothing: all slots are taken, or Celery seeks its broker."""
        patience = self.deaf_seconds
        if self._busy():
            patience += FLUSH_BUDGET_SECONDS + self._settings.request_timeout_seconds
        if self._worker.consumer.connection is None and self._reaches:
            patience += self.reconnect_seconds
        self._steady_seconds = self._steady_seconds + seconds if patience == self._patience_seconds else 0.0
        self._patience_seconds = patience

    def _end(self, silent_seconds: float) -> None:
        _LOG.error("worker_deaf", seconds=silent_seconds, exit_status=EXIT_DEAF)
        worker_state.should_stop = EXIT_DEAF  # type: ignore[assignment] # a status, as its own code reads it
        STOPPING.set()
        # Asked to stop, it may hang in the very thing that made it deaf.
        force = threading.Timer(FLUSH_BUDGET_SECONDS + self._settings.request_timeout_seconds, self._force)
        force.daemon = True
        force.start()

    def _force(self) -> None:
        self._own.queue.purge()
        end_at_once(EXIT_DEAF)


class QueueMonitor:
    """One queue that this process takes hints from.

    Attributes:
        queue: the queue.
        received: hints taken from it so far.
        silent_seconds: for how long it has heard nothing of it although there was something to hear.
    """

    def __init__(self, queue: HintQueue) -> None:
        self.queue = queue
        self.received = 0
        self.silent_seconds = 0.0
        self._noticed = 0

    def heard(self) -> bool:
        """Whether anything was received since this was asked last."""
        before, self._noticed = self._noticed, self.received
        return self._noticed != before

    def note(self, seconds: float, *, silent: bool) -> None:
        """Takes note of so much more time."""
        self.silent_seconds = self.silent_seconds + seconds if silent else 0.0

    def waits(self) -> bool:
        """Whether a hint lies in the queue."""
        try:
            return self.queue.hints() > 0
        except self.queue.errors:
            return False

    def leave(self) -> bool:
        """Sees to it that a hint lies there; False where the broker is away."""
        try:
            if not self.queue.hints():
                self.queue.leave(1)
        except self.queue.errors:
            return False
        return True


class FleetHeartbeat:
    """Whether anybody in the fleet hears, by a key of the log's Redis that whoever hears keeps alive.

    It tells a broker that only this process cannot reach from one that is away: the former is worth a new start, and
    frees the ticker's lease, the latter is nobody's fault.
    """

    def __init__(self, settings: WorkerSettings, name: str, fresh_seconds: float) -> None:
        self._client = connect(settings.redis_url)
        self._fresh_ms = int(fresh_seconds * 1000)
        self._key = settings.keys.hearing
        self._name = name.encode()

    def tell(self) -> None:
        """Says that this process hears."""
        with suppress(redis.RedisError):
            self._client.set(self._key, self._name, px=self._fresh_ms)

    def hear(self) -> bool:
        """Whether another one said so lately."""
        try:
            return self._client.get(self._key) not in {None, self._name}
        except redis.RedisError:
            return False
