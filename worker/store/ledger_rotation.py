"""Forgets what was confirmed long ago, where no change comes any more that would push it out.

A Redis may be full of nothing but ledgers. Then it takes no change, no log moves on, and no ledger would ever rotate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.store import scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.store.namespace import Namespace


OFTEN: Final = 4
"""Looks in the time for which a ledger remembers."""

LONGEST_SECONDS: Final = 60.0
"""Longest between two looks."""


class LedgerRotation:
    """Rotates the ledgers of partitions in which nothing waits; any process may, none needs to.

    Args:
        namespace: whose ledgers.
        monotonic: a clock, in seconds.
        ledger_seconds: how long a confirmed outcome is remembered at least.
    """

    def __init__(self, namespace: Namespace, monotonic: Callable[[], float], ledger_seconds: float) -> None:
        self._client, keys, partitions = namespace
        self._monotonic = monotonic
        self._every_seconds = min(LONGEST_SECONDS, ledger_seconds / OFTEN)
        self._next = monotonic() + self._every_seconds
        self._calls = [
            scripts.Call(
                scripts.ROTATE,
                [
                    *(keys.lease(p), keys.partition(p), keys.events(p), keys.pending(p), keys.late(p)),
                    *(keys.ledger_new(p), keys.ledger_old(p)),
                ],
                [int(ledger_seconds * 1000)],
            )
            for p in range(partitions)
        ]

    def rotate_due(self) -> None:
        """Looks, if it is time to.

        Raises:
            redis.ConnectionError, redis.TimeoutError: Redis is away.
        """
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + self._every_seconds
            scripts.run(self._client, self._calls)  # one that is refused, or of strange keys, stays as it is
