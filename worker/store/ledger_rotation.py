"""Rotates the ledgers of idle partitions, so that old outcomes are forgotten although no change arrives.

A Redis may be full of ledgers alone. Then it accepts no change, no log moves on, and no settle would rotate a ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.store import scripts
from worker.store.loss_detector import tell_of_logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.store.namespace import Namespace


OFTEN: Final = 4
"""Number of rotations to try in the time that a ledger remembers."""

LONGEST_SECONDS: Final = 60.0
"""Longest time between two tries."""


class LedgerRotation:
    """Rotates the ledgers of partitions in which nothing waits. Any process may do it.

    Args:
        namespace: whose ledgers.
        monotonic: a clock, in seconds.
        ledger_seconds: shortest time that a confirmed outcome is remembered.
    """

    def __init__(self, namespace: Namespace, monotonic: Callable[[], float], ledger_seconds: float) -> None:
        self._client, self._keys, partitions = namespace
        keys = self._keys
        self._monotonic = monotonic
        self._every_seconds = min(LONGEST_SECONDS, ledger_seconds / OFTEN)
        self._next = monotonic() + self._every_seconds
        self._calls = [
            scripts.Call(
                scripts.ROTATE,
                [
                    *(keys.lease(p), keys.partition(p), keys.events(p), keys.bulk(p), keys.late(p)),
                    *(keys.ledger_new(p), keys.ledger_old(p), *keys.pending_classes(p), keys.totals(p), keys.parked(p)),
                ],
                [int(ledger_seconds * 1000)],
            )
            for p in range(partitions)
        ]

    def rotate_due(self) -> None:
        """Rotates the ledgers that are due, if it is time to try.

        Raises:
            redis.ConnectionError, redis.TimeoutError: Redis is away.
        """
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + self._every_seconds
            replies = scripts.run(self._client, self._calls)
            # A partition that refuses, or has a key of the wrong type, stays as it is.
            trimmed = {p: gone for p, gone in enumerate(replies) if isinstance(gone, int)}
            tell_of_logs(self._client, self._keys, (), trimmed)
