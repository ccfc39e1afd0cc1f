from __future__ import annotations

from producers.nodes.replicas import ReplicaCount


def test_a_replica_that_left_is_counted_for_longer_than_a_failover_takes() -> None:
    now = 0.0
    count = ReplicaCount(lambda: now)
    assert count.number == 1
    count.note({"connected_slaves": 2})
    now = 1.0
    count.note({"connected_slaves": 1})
    assert count.number == 2
    now = 10.5
    count.note({"connected_slaves": 1})
    assert count.number == 1
