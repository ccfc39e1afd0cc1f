"""Nodes whose clocks differ: times that are compared come from one clock."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from tests.servers.run import SERVERS
from tests.support.clusters import connected, node_of
from tests.support.fleet import Fleet, T
from worker.local.cluster import EmbeddedCluster
from worker.local.redis_binary import find_redis_binary
from worker.store.scripts import CLAIM, Call, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.standin.client import StandInClient

FAKETIME = SERVERS / "faketime" / "libfaketime.so"

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not FAKETIME.exists(), reason="no libfaketime: make servers"),
]

AHEAD_SECONDS = 600

PROGRAM = """#!/bin/sh
# Each server that is started is further ahead than the one before it.
for argument; do [ "$argument" != --version ] || exec "{binary}" "$@"; done
mkdir -p "{directory}/started"
touch "{directory}/started/$$"
number=$(ls "{directory}/started" | wc -l)
FAKETIME="+$((number * {ahead}))s" FAKETIME_DONT_FAKE_MONOTONIC=1 LD_PRELOAD="{library}" exec "{binary}" "$@"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedCluster]:
    """Three nodes, each ten minutes ahead of the one before it."""
    binary = find_redis_binary()
    try:
        subprocess.run([binary, "--version"], env={"LD_PRELOAD": str(FAKETIME)}, check=True, timeout=5)
    except subprocess.TimeoutExpired:  # Debian's, whose allocator asks for the time before libfaketime is ready
        pytest.skip("the Redis that is first on PATH does not start with libfaketime")
    program = tmp_path / "redis-server"
    program.write_text(
        PROGRAM.format(binary=binary, directory=tmp_path, ahead=AHEAD_SECONDS, library=FAKETIME), encoding="utf-8"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with EmbeddedCluster(3) as made:
        clocks = []
        for address in made.addresses:
            with connected(address) as client:
                clocks.append(int(client.time()[0]))
        assert all(later - sooner > AHEAD_SECONDS - 10 for sooner, later in pairwise(clocks)), clocks
        yield made


@pytest.fixture
def fleet(cluster: EmbeddedCluster, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    with Fleet(cluster.url, namespace, stand_in, broker_url="memory://") as made:
        yield made


def owner_on(cluster: EmbeddedCluster, fleet: Fleet, node: int) -> str:
    """An owner whose partition is on that node."""
    return next(
        owner for owner in map(str, range(1_000)) if node_of(cluster, key_slot(b"%d" % fleet.partition(owner))) == node
    )


@pytest.mark.parametrize("node", range(3))
def test_what_an_unanswered_request_does_late_is_repaired_in_time(
    cluster: EmbeddedCluster, fleet: Fleet, stand_in: StandInClient, node: int
) -> None:
    owner = owner_on(cluster, fleet, node)
    stand_in.faults({"kind": "late", "seconds": 0.5, "times": 1})
    fleet.append(owner, "2", "upsert", T)
    fleet.flush_once()
    fleet.append(owner, "2", "delete", T + 1)
    fleet.deliver()
    assert stand_in.contacts() == set()
    assert fleet.totals()["repairs"] == 1


@pytest.mark.parametrize("node", range(3))
def test_what_the_holder_of_a_lost_lease_may_do_is_repaired_in_time(
    cluster: EmbeddedCluster, fleet: Fleet, node: int
) -> None:
    """Until when it may still act is a time of the partition's node."""
    owner = owner_on(cluster, fleet, node)
    p, k = fleet.partition(owner), fleet.keys
    fleet.append(owner, "2", "delete", T)
    keys = [k.lease(p), k.partition(p), k.events(p), k.bulk(p), k.late(p), k.dead(p), k.dead_pairs(p)]
    keys += [*k.pending_classes(p), k.parked(p), k.ledger_new(p), k.ledger_old(p), k.totals(p)]
    assert run(fleet.client, [Call(CLAIM, keys, [1600, 300])])[0]
    fleet.client.delete(k.lease(p))
    fleet.deliver()
    assert fleet.totals()["records_confirmed"] == 1
    assert fleet.totals()["repairs"] == 1
    assert fleet.marks() == {}
