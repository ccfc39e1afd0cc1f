"""The demo's own Redis, stand-in endpoint and worker, which leave nothing behind."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from pydantic import SecretStr

from worker.config.settings import WorkerSettings
from worker.local.cluster import EmbeddedCluster
from worker.local.redis import EmbeddedRedis
from worker.local.stand_in import SupervisedStandIn
from worker.local.worker import SupervisedWorker, last_line

if TYPE_CHECKING:
    from worker.standin.client import StandInClient

GRACE_SECONDS: Final = 1.0
"""Time that the worker gets to end: everything is delivered by then, or the demo was stopped."""


class DemoFailedError(RuntimeError):
    """The demo cannot continue. The message is one line that says why."""


class System:
    """The system on this machine, as a context manager.

    Its settings are made here; neither the environment nor a `.env` file can change what it connects to.

    Args:
        cluster: whether Redis is a cluster of three nodes.

    Attributes:
        workers_killed: number of workers killed so far.
        settings: the worker's settings; set when the context is entered.
    """

    def __init__(self, *, cluster: bool = False) -> None:
        self.workers_killed = 0
        self._cluster = cluster
        self._redis: EmbeddedRedis | EmbeddedCluster = EmbeddedCluster() if cluster else EmbeddedRedis()
        self._stand_in = SupervisedStandIn()
        self._worker: SupervisedWorker | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Starts Redis and the endpoint; no worker yet.

        Raises:
            RedisNotFoundError: this machine has no suitable Redis server.
            EmbeddedRedisError, ProcessStartError: Redis or the endpoint does not start.
        """
        with ExitStack() as undo:
            self._log = undo.enter_context(tempfile.TemporaryFile())
            undo.enter_context(self._redis)
            undo.enter_context(self._stand_in)
            undo.callback(self._close_worker)
            self.settings = self._short_times()
            self._stack = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def stand_in(self) -> StandInClient:
        """The client that controls the endpoint."""
        return self._stand_in.client

    def start_worker(self) -> None:
        """Starts a worker, also after a kill; returns before it is ready."""
        self._worker = SupervisedWorker(self.settings, log=self._log, grace_seconds=GRACE_SECONDS)

    def kill_worker(self) -> None:
        """Kills the worker."""
        if self._worker is not None:
            self._worker.kill()
            self.workers_killed += 1

    def check_worker(self) -> None:
        """Checks that the worker runs.

        Raises:
            DemoFailedError: it ended unexpectedly.
        """
        if self._worker is not None and (status := self._worker.poll()) is not None:
            raise DemoFailedError(f"the worker ended with status {status}: {last_line(self._log)}")

    def _close_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def _short_times(self) -> WorkerSettings:
        """Returns settings with short times, so that the demo takes seconds instead of minutes."""
        return WorkerSettings(
            redis_url=self._redis.url,
            broker_url="memory://" if self._cluster else None,
            endpoint_url=self._stand_in.url,
            server_key_id=SecretStr(self._stand_in.key_id),
            server_key_secret=SecretStr(self._stand_in.key_secret),
            linger_seconds=0.2,
            request_timeout_seconds=2,
            lease_seconds=3.5,
            late_seconds=2,
            backoff_base_seconds=0.1,
            backoff_max_seconds=1,
        )
