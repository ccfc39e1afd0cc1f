"""One reconciliation at a time in the fleet: a lease in Redis, renewed while its process lives."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Self

import redis

from worker.store import scripts

if TYPE_CHECKING:
    from producers.contract.keys import Keys

LEASE_SECONDS: Final = 10.0
"""How long a lease outlives a process that was killed."""

_RENEW_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.2


class ReconcileLock:
    """The lease; a context manager that gives it back.

    Two at once, where Redis was away for longer than the lease, cost requests and nothing else: both stamp what they
    say with the time that their snapshot began.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._key = client, keys.reconcile_lease
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def take(self, patience_seconds: float = 0.0) -> bool:
        """Whether it was taken, now or while one waits so long.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        until = time.monotonic() + patience_seconds
        while not self._ask():
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_SECONDS)
        self._over.clear()
        self._thread = threading.Thread(target=self._renew, name="reconcile-lease", daemon=True)
        self._thread.start()
        return True

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Ends it, if it was taken."""
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._thread = None
            try:
                # Ours still: it lasts three times as long as the time between two renewals.
                if self._ask(milliseconds=1):
                    self._client.delete(self._key)
            except redis.RedisError:
                return  # it is over by itself soon

    def _ask(self, milliseconds: int = int(LEASE_SECONDS * 1000)) -> bool:
        reply: Any = scripts.run(self._client, [scripts.Call(scripts.TICKER, [self._key], [self._token, milliseconds])])
        if isinstance(reply[0], Exception):
            raise reply[0]
        return bool(reply[0])

    def _renew(self) -> None:
        while not self._over.wait(_RENEW_SECONDS):
            try:
                self._ask()
            except redis.RedisError:
                continue  # it is away; the next renewal comes soon
