"""Heartbeat of each worker process. Display only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from producers.contract.partitions import FIRST_FORMAT, LOG_FORMAT
from worker.core.times import iso_utc
from worker.store import scripts
from worker.store.client import in_parts, round_trip
from worker.store.replies import all_checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.store.namespace import Namespace


EVERY_SECONDS: Final = 10.0
"""Time between two heartbeats."""

GONE_MS: Final = 60_000
"""A process without a heartbeat for this long is no longer shown."""

_REMOVED_MS: Final = 24 * 3_600_000
"""A process without a heartbeat for this long is removed by the next one that starts."""

_FORM: Final = re.compile(
    rb"^(\d{1,15}),(\d{1,15}),(\d{1,6}),([a-z]{1,20})(?:,(\d{1,6}))?(?:,([a-z_]{0,30}))?(?:,([a-z0-9_=.;]{0,200}))?$"
)


class Worker(NamedTuple):
    """A worker process.

    Attributes:
        name: Celery's name for it, and its process id.
        since_ms: when it started (Unix ms, Redis' clock).
        seen_ms: its last heartbeat (Unix ms).
        concurrency: number of flushes that it runs at once.
        pool: `thread`, `prefork` or another of Celery's pools.
        log_format: the newest form of the log that it knows.
        trouble: what its ticker cannot use, such as `broker_away`; empty if nothing.
        settings: those that all workers of a fleet must share, as text, the endpoint's URL as a digest.
    """

    name: str
    since_ms: int
    seen_ms: int
    concurrency: int
    pool: str
    log_format: int = FIRST_FORMAT
    trouble: str = ""
    settings: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """The form in `status --json`."""
        times = {"since": iso_utc(self.since_ms), "seen": iso_utc(self.seen_ms)}
        return {
            "name": self.name,
            "pool": self.pool,
            "concurrency": self.concurrency,
            "log_format": self.log_format,
            "trouble": self.trouble or None,
            **times,
        }


class Presence:
    """The heartbeat of this process.

    Args:
        namespace: where it is stored.
        name: of this process.
        concurrency: number of flushes that it runs at once.
        pool: the kind of Celery's pool.
        monotonic: a clock, in seconds.
        trouble: what its ticker cannot use; empty if nothing.
        settings: those that all workers of a fleet must share, such as `readd=resend`.
    """

    def __init__(  # noqa: PLR0913 - what a heartbeat tells
        self,
        namespace: Namespace,
        name: str,
        concurrency: int,
        pool: str,
        monotonic: Callable[[], float],
        *,
        trouble: Callable[[], str] = lambda: "",
        settings: Sequence[str] = (),
    ) -> None:
        self._client, self._keys, _ = namespace
        self._name = name
        self._concurrency = concurrency
        self._pool = pool
        self._monotonic = monotonic
        self._since_ms = 0
        self._next = 0.0
        self._trouble, self._told = trouble, ""
        self._settings = ";".join(settings)

    def beat(self) -> None:
        """Stores a heartbeat if it is time to, or if there is another trouble to tell.

        Raises:
            redis.ConnectionError, redis.TimeoutError: Redis is away.
        """
        now = self._monotonic()
        trouble = self._trouble()
        if now < self._next and trouble == self._told:
            return
        self._told = trouble
        self._next = now + EVERY_SECONDS
        now_ms = time_ms(self._client.time())
        try:
            if not self._since_ms:
                self._since_ms = now_ms
                self._remove_gone(now_ms)
            note = f"{self._since_ms},{now_ms},{self._concurrency},{self._pool},{LOG_FORMAT}"
            note += f",{trouble},{self._settings}" if trouble or self._settings else ""
            # If the reply is an error, Redis accepts no writes or the key has the wrong type: reported elsewhere.
            scripts.run(self._client, [scripts.Call(scripts.NOTE, [self._keys.workers], [self._name, note])])
        except ResponseError:
            return  # Redis accepts no writes, or the key has the wrong type: reported elsewhere

    def leave(self) -> None:
        """Removes this process.

        Raises:
            redis.RedisError: Redis is away, or refuses.
        """
        self._client.hdel(self._keys.workers, self._name)

    def _remove_gone(self, now_ms: int) -> None:
        noted = _decoded(self._client.hgetall(self._keys.workers))
        gone = [each.name for each in noted if each.seen_ms < now_ms - _REMOVED_MS]
        if gone:
            all_checked(round_trip(self._client, list(in_parts(("HDEL", self._keys.workers), gone))))


def present(namespace: Namespace, now_ms: int) -> list[Worker]:
    """The workers with a heartbeat in the last minute, by name.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    try:
        noted = _decoded(namespace.client.hgetall(namespace.keys.workers))
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        return []
    return sorted(each for each in noted if each.seen_ms >= now_ms - GONE_MS)


def _decoded(noted: Mapping[Any, Any]) -> list[Worker]:
    found = []
    for name, note in noted.items():
        if form := _FORM.match(note):
            since_ms, seen_ms, concurrency = (int(each) for each in form.groups()[:3])
            pool, log_format = form[4].decode(), int(form[5] or FIRST_FORMAT)
            settings = tuple((form[7] or b"").decode().split(";"))
            trouble, shown = (form[6] or b"").decode(), name.decode("utf-8", "replace")
            found.append(Worker(shown, since_ms, seen_ms, concurrency, pool, log_format, trouble, settings))
    return found
