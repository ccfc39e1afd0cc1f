"""A lease is kept by progress alone: whoever hangs must lose it, though his process lives on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.partition_zero import partitions_of

if TYPE_CHECKING:
    from tests.support.fleet import Fleet
    from tests.support.waiting import WaitUntil


def test_a_holder_that_does_nothing_loses_its_lease(fleet: Fleet, wait_until: WaitUntil) -> None:
    partition = fleet.partition("1")
    hangs = partitions_of(fleet, fleet.first.namespace.client, lease_seconds=0.5)
    assert hangs.claim([partition])
    other = partitions_of(fleet, fleet.first.namespace.client)
    assert not other.claim([partition])
    wait_until(lambda: bool(other.claim([partition])), seconds=15, what="another takes its lease")
