"""Takes the lease of one partition for an operator's command, as a worker takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.core.lease import Lease
    from worker.store.partitions import Partitions

_POLL_SECONDS: Final = 0.05
"""Time between two tries: workers release a lease at least every second."""


def take_lease(
    partitions: Partitions,
    partition: int,
    patience_seconds: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> Lease | None:
    """Returns the lease, None if it stays leased to a worker, or one of the partition's keys has the wrong type.

    Args:
        partitions: all of them.
        partition: whose lease.
        patience_seconds: how long to try.
        monotonic: a clock, in seconds.
        sleep: how to wait.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    ends = monotonic() + patience_seconds
    while True:
        for lease in partitions.claim([partition]):
            return lease
        if monotonic() >= ends:
            return None
        sleep(_POLL_SECONDS)
