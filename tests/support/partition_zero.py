"""Partition 0 of a fleet, moved by its scripts directly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.support.fleet import PARTITIONS
from worker.core.lane import CLASSES, class_of
from worker.core.settlement import Settlement
from worker.store.namespace import Namespace
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    import redis

    from tests.support.fleet import Fleet
    from worker.core.lease import Lease

PAIR, OTHER = b"1\x1f2", b"1\x1f3"


def partitions_of(
    fleet: Fleet,
    client: redis.Redis,
    *,
    lease_seconds: float = 30.0,
    late_seconds: float = 30.0,
    ledger_seconds: float = 3600.0,
) -> Partitions:
    return Partitions(
        Namespace(client, fleet.keys, PARTITIONS),
        time.monotonic,
        lease_seconds=lease_seconds,
        late_seconds=late_seconds,
        ledger_seconds=ledger_seconds,
    )


def claim(partitions: Partitions) -> Lease:
    (lease,) = partitions.claim([0])
    return lease


def settle(partitions: Partitions, lease: Lease, *, renew: bool = True, **writes: Any) -> str:
    """Settles; `keep` and `drop` are of the live upserts."""
    for name in ("keep", "drop"):
        if name in writes:
            classes: list[list[bytes]] = [[] for _ in range(CLASSES)]
            classes[class_of("upsert", bulk=False)] = writes[name]
            writes[name] = classes
    (result,) = partitions.settle([lease], [Settlement(**writes)], [renew])
    return result


def stored(fleet: Fleet, name: str) -> dict[str, str]:
    """A hash of partition 0."""
    found: Any = fleet.client.hgetall(getattr(fleet.keys, name)(0))
    return {key.decode(): value.decode() for key, value in found.items()}


def state_of(fleet: Fleet) -> list[Any]:
    """All that lies in partition 0, byte by byte."""
    return [(key, fleet.client.dump(key)) for key in sorted(fleet.client.keys(fleet.keys.partition(0)[:-9] + "*"))]
