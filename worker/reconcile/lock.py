"""Lets only one reconciliation run at a time: a lease in Redis, renewed while its process lives."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Final, Self

import redis

from worker.store import scripts

if TYPE_CHECKING:
    from worker.store.namespace import Namespace

LEASE_SECONDS: Final = 10.0
"""How long the lease lasts after its process is killed."""

_RENEW_SECONDS: Final = 3.0
_TRY_SECONDS: Final = 0.2


class ReconcileLock:
    """The lease, as a context manager that releases it.

    If Redis is away for longer than the lease, two reconciliations can run at once. That only costs requests: both
    stamp their changes with the time at which their snapshot began.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._key = namespace.client, namespace.keys.reconcile_lease
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def acquire(self, patience_seconds: float = 0.0) -> bool:
        """Tries to acquire the lease for this long; returns whether that worked.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        until = time.monotonic() + patience_seconds
        while not self._extend():
            if time.monotonic() >= until:
                return False
            time.sleep(_TRY_SECONDS)
        self._over.clear()
        self._thread = threading.Thread(target=self._renew, name="reconcile-lease", daemon=True)
        self._thread.start()
        return True

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lease, if it was acquired."""
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._thread = None
            try:
                # The lease is still ours: it lasts three times as long as the time between two renewals.
                if self._extend(milliseconds=1):
                    self._client.delete(self._key)
            except redis.RedisError:
                return  # the lease expires soon

    def _extend(self, milliseconds: int = int(LEASE_SECONDS * 1000)) -> bool:
        call = scripts.Call(scripts.TICKER, [self._key], [self._token, milliseconds])
        return bool(scripts.run_one(self._client, call))

    def _renew(self) -> None:
        while not self._over.wait(_RENEW_SECONDS):
            try:
                self._extend()
            except redis.RedisError:
                continue  # Redis is away; the next renewal comes soon
