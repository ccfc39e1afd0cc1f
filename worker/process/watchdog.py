"""Ends a worker process that no longer consumes hints, so that whoever runs it starts it again.

A consumer can stall in ways that look healthy from inside, and while other workers take all hints, the fleet's queue
shows nothing of it. So a process that received nothing leaves itself a hint in a queue of its own, which it consumes
on the same connection and with the same slots as the fleet's.
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
from worker.process.pipeline import STRAGGLES_SECONDS
from worker.process.signals import end_at_once, stop_seconds
from worker.process.stopping import STOPPING
from worker.store.client import LEASE_PATH_SECONDS, connect

if TYPE_CHECKING:
    from worker.config.settings import WorkerSettings

CHECK_SECONDS: Final = 5.0
"""Between two checks. A process that received a hint since the last one leaves itself none."""

STALLED_SECONDS: Final = 30.0
"""A process that received nothing for this long, although a hint was there for it, counts as stalled."""

RECONNECT_SECONDS: Final = 40.0
"""Extra patience until Celery finds that the broker is back: in the end it tries only every 30 s."""

_CHECKS: Final = 3  # how many checks "lately" spans; a longer gap counts as no more, in case the machine slept

EXIT_STALLED: Final = 70  # EX_SOFTWARE: something is wrong with this process; whoever started it starts it again

_LOG = structlog.get_logger("contact_sync")


class ConsumerWatchdog(bootsteps.StartStopStep):
    """Ends the process with :data:`EXIT_STALLED` if its consumer has stalled.

    A broker that is away is not the process' fault: then it cannot leave itself a hint, and no other worker consumes.
    """

    requires = ("celery.worker.components:Pool",)
    check_seconds = CHECK_SECONDS
    stalled_seconds = STALLED_SECONDS
    reconnect_seconds = RECONNECT_SECONDS

    def __init__(self, worker: Any, **_: Any) -> None:
        self._worker = worker
        self._settings = runtime.settings_of(worker.app)
        self._name = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._fleets = QueueMonitor(HintQueue(worker.app, self._settings.namespace))
        self._own = QueueMonitor(HintQueue(worker.app, f"{self._settings.namespace}:watchdog:{self._name}"))
        queue = worker.app.amqp.queues.select_add(Queue(self._own.queue.name, routing_key=self._own.queue.name))
        queue.exchange = Exchange("")  # without a binding, all that it leaves behind in the broker is its one hint
        self._heartbeat = FleetHeartbeat(self._settings, self._name, _CHECKS * self.check_seconds)
        self._broker_reached, self._hint_expected = False, False
        self._patience_seconds = 0.0  # how long it may receive nothing
        self._steady_seconds = 0.0  # how long the patience has been the same
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self, _worker: Any) -> None:
        """Starts to watch."""
        signals.task_received.connect(self._count_received, weak=False)
        signals.worker_shutdown.connect(self._purge_own_queue, weak=False)
        self._thread.start()

    def stop(self, _worker: Any) -> None:
        """Stops watching."""
        signals.task_received.disconnect(self._count_received)
        self._stop.set()

    def _purge_own_queue(self, **_: Any) -> None:
        """Removes its own hint, once Celery has returned the messages that it took but did not start."""
        self._thread.join(2 * LEASE_PATH_SECONDS)  # it may be waiting for a broker that does not answer
        self._own.queue.purge()

    def _count_received(self, request: Any, **_: Any) -> None:
        is_own = request.delivery_info["routing_key"] == self._own.queue.name
        monitor = self._own if is_own else self._fleets
        monitor.received += 1

    def _watch(self) -> None:
        checked = time.monotonic()
        while not self._stop.wait(self.check_seconds):
            before, checked = checked, time.monotonic()
            seconds = min(checked - before, _CHECKS * self.check_seconds)
            self._check_queues(seconds)
            self._set_patience(seconds)
            silent = max(self._own.silent_seconds, self._fleets.silent_seconds)
            # A process that until now had good reason to receive nothing gets some checks to consume what is waiting.
            steady = self._steady_seconds >= _CHECKS * self.check_seconds
            if silent >= self._patience_seconds and steady and not STOPPING():
                self._end(silent)
                return

    def _check_queues(self, seconds: float) -> None:
        from_own, from_fleets = self._own.received_since_last_check(), self._fleets.received_since_last_check()
        received = from_own or from_fleets
        self._own.add_time(seconds, silent=self._hint_expected and not received)
        if received:
            self._heartbeat.beat()
            self._broker_reached, self._hint_expected = True, False
        else:
            self._broker_reached = self._own.ensure_hint()
            self._hint_expected = self._broker_reached or self._heartbeat.another_beats()
        free = self._broker_reached and not from_fleets and not self._busy()
        self._fleets.add_time(seconds, silent=free and self._fleets.has_hint())

    def _busy(self) -> bool:
        return len(worker_state.reserved_requests) >= int(self._worker.concurrency)

    def _set_patience(self, seconds: float) -> None:
        """Sets it higher while there is good reason to receive nothing: all slots are taken, or Celery reconnects."""
        patience = self.stalled_seconds
        if self._busy():
            # Beside a request that takes until its timeout others go on, beyond the budget; the last of them may too.
            patience += FLUSH_BUDGET_SECONDS + STRAGGLES_SECONDS + 2 * self._settings.request_timeout_seconds
        if self._worker.consumer.connection is None and self._broker_reached:
            patience += self.reconnect_seconds
        self._steady_seconds = self._steady_seconds + seconds if patience == self._patience_seconds else 0.0
        self._patience_seconds = patience

    def _end(self, silent_seconds: float) -> None:
        _LOG.error("consumer_stalled", seconds=silent_seconds, exit_status=EXIT_STALLED)
        worker_state.should_stop = EXIT_STALLED  # type: ignore[assignment] # a status, as its own code reads it
        STOPPING.set()
        # The shutdown may hang on whatever stalled the consumer.
        force = threading.Timer(stop_seconds(self._settings.request_timeout_seconds), self._force)
        force.daemon = True
        force.start()

    def _force(self) -> None:
        self._own.queue.purge()
        end_at_once(EXIT_STALLED)


class QueueMonitor:
    """One queue that this process consumes hints from.

    Attributes:
        queue: the queue.
        received: hints received from it so far.
        silent_seconds: how long nothing was received from it although a hint was there.
    """

    def __init__(self, queue: HintQueue) -> None:
        self.queue = queue
        self.received = 0
        self.silent_seconds = 0.0
        self._seen = 0

    def received_since_last_check(self) -> bool:
        """Whether anything was received since the last call."""
        before, self._seen = self._seen, self.received
        return self._seen != before

    def add_time(self, seconds: float, *, silent: bool) -> None:
        """Adds to `silent_seconds`, or resets it if the time was not silent."""
        self.silent_seconds = self.silent_seconds + seconds if silent else 0.0

    def has_hint(self) -> bool:
        """Whether a hint is in the queue; False if the broker is away."""
        try:
            return self.queue.hints() > 0
        except Exception:  # noqa: BLE001 - each transport raises its own
            return False

    def ensure_hint(self) -> bool:
        """Leaves a hint if the queue is empty; returns False if the broker is away."""
        try:
            if not self.queue.hints():
                self.queue.leave(1)
        except Exception:  # noqa: BLE001 - each transport raises its own
            return False
        return True


class FleetHeartbeat:
    """Whether any worker of the fleet consumes: each that does keeps a key alive in the log's Redis.

    It tells a broker that only this process cannot reach from one that is away for all. In the first case a restart
    helps, and frees the ticker's lease; in the second it does not.
    """

    def __init__(self, settings: WorkerSettings, name: str, fresh_seconds: float) -> None:
        self._client = connect(settings.redis_url, settings.redis_credentials)
        self._fresh_ms = int(fresh_seconds * 1000)
        self._key = settings.keys.last_consumer
        self._name = name.encode()

    def beat(self) -> None:
        """Notes that this process consumes."""
        with suppress(redis.RedisError):
            self._client.set(self._key, self._name, px=self._fresh_ms)

    def another_beats(self) -> bool:
        """Whether another process has consumed lately."""
        try:
            return self._client.get(self._key) not in {None, self._name}
        except redis.RedisError:
            return False
