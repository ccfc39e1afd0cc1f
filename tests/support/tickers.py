"""A ticker for tests, wired as a worker process wires its own, but with what the test gives it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog

from worker.process.ticker import Ticker
from worker.store.backlog import BacklogScanner
from worker.store.gate import Gate
from worker.store.inbox import Inbox
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from worker.config.settings import WorkerSettings


class NoBroker:
    """Nobody is woken here: whoever uses it flushes by itself."""

    errors = (OSError,)

    def hints(self) -> int:
        return 0

    def leave(self, hints: int) -> None:
        """Takes them, and gives them to nobody."""


def ticker_of(  # noqa: PLR0913 - what tests vary, by name
    settings: WorkerSettings,
    client: redis.Redis,
    partitions: int,
    *,
    broker: Any,
    flush: Callable[[float], int],
    token: str,
) -> Ticker:
    """A ticker of the namespace of these settings.

    Args:
        settings: the worker's.
        client: for all that it asks of Redis; its timeout is longer than the ticker's idle time.
        partitions: how many the namespace has.
        broker: where hints go.
        flush: what it calls if the broker is away, with the seconds that it may take.
        token: names it among the fleet's tickers.
    """
    namespace = Namespace(client, settings.keys, partitions)
    return Ticker(
        settings,
        namespace=namespace,
        scanner=BacklogScanner(namespace),
        gate=Gate(namespace),
        broker=broker,
        inbox=Inbox(namespace),
        flush=flush,
        token=token,
        monotonic=time.monotonic,
        log=structlog.get_logger("contact_sync"),
    )
