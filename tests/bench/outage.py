"""What a node of a Redis Cluster that is away costs the partitions of the others: their rate, beside that before.

Three nodes without replicas, on this machine. Changes to partitions of two of them are drained, first with all three
there and then with the third one dead, or hung since three seconds. Each node in turn is the third one.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import partition_of
from producers.contract.keys import Keys
from producers.nodes.connect import cluster_client
from producers.nodes.slots import slot_of
from tests.bench.changes import Change
from tests.bench.processes import Endpoint, cpu_seconds, process, urls
from tests.bench.systems import PARTITIONS, ours, packed_log
from worker.local.cluster import EmbeddedCluster

if TYPE_CHECKING:
    from producers.nodes.cluster import ClusterClient

LATENCY_MS: Final = 20.0
SETTLED_SECONDS: Final = 3.0
"""So long after a node is gone the drain begins: what the first moment costs is told by itself."""

_LONGEST_SECONDS: Final = 300.0
_CHUNK: Final = 1_000


def outage(at: Endpoint, count: int, rounds: int) -> dict[str, Any]:
    """The rates with each node away, dead or hung, and with all there; with half as many changes as a drain has."""
    found: dict[str, Any] = {}
    for node in range(3):
        for how in ("dead", "hung"):
            runs = [_both(at, count // 2, node, how) for _ in range(min(rounds, 3))]
            roles = runs[0]["roles"]
            name = f"node {node + 1}{' (' + roles + ')' if roles else ''}, {how}"
            found[name] = {
                "there": statistics.median(run["there"] for run in runs),
                "away": statistics.median(run["away"] for run in runs),
                "ratio": statistics.median(run["away"] / run["there"] for run in runs),
                "there_us": statistics.median(run["there_us"] for run in runs),
                "away_us": statistics.median(run["away_us"] for run in runs),
                "pause": statistics.median(run["pause"] for run in runs),
                "runs": runs,
            }
    return found


def _both(at: Endpoint, count: int, node: int, how: str) -> dict[str, Any]:
    """One drain with all nodes there, and one with this node away."""
    keys = Keys("contact-sync")
    with EmbeddedCluster(3) as cluster, cluster_client(cluster.url) as client:
        client.execute_command("HSET", keys.config, "partitions", PARTITIONS, "format", 1)
        nodes = client.nodes.slots
        address = cluster.addresses[node]
        named = {"gate": keys.gate, "configuration": keys.config, "ticker": keys.ticker}
        roles = [name for name, key in named.items() if nodes.node_of(slot_of(["GET", key]) or 0) == address]
        others = {p for p in range(PARTITIONS) if nodes.node_of(slot_of(["GET", keys.events(p)]) or 0) != address}
        environment = {**urls(cluster.url, at.url), "CONTACT_SYNC_BROKER_URL": "memory://", **ours().environment}
        with process(ours().command, environment) as worker:
            _drained(client, at, 1_000, others, first=0)  # the process has begun
            begun = cpu_seconds(worker.pid)
            there = _drained(client, at, count, others, first=1_000)
            there_us = (cpu_seconds(worker.pid) - begun) / count * 1e6
            pid = cluster.servers[node].pid
            os.kill(pid, signal.SIGSTOP if how == "hung" else signal.SIGKILL)
            try:
                pause = _pause(client, at, others, first=1_000 + count)
                time.sleep(SETTLED_SECONDS)
                begun = cpu_seconds(worker.pid)
                away = _drained(client, at, count, others, first=100_000 + count)
                away_us = (cpu_seconds(worker.pid) - begun) / count * 1e6
            finally:
                if how == "hung":
                    os.kill(pid, signal.SIGCONT)
    rates = {"there": there, "away": away, "there_us": there_us, "away_us": away_us}
    return {"roles": ", ".join(roles), "pause": pause, **rates}


def _drained(client: ClusterClient, at: Endpoint, count: int, partitions: set[int], first: int) -> float:
    """Appends so many changes to these partitions; returns the rate of their delivery, from the first request on."""
    at.begin(LATENCY_MS)
    _append(client, count, partitions, first)
    ends = time.monotonic() + _LONGEST_SECONDS
    while (counted := at.counts())["records"] < count or counted["in_flight"]:
        if time.monotonic() > ends:
            raise RuntimeError(f"{counted['records']:,} of {count:,} in {_LONGEST_SECONDS:.0f} s")
        time.sleep(0.05)
    return float(count / (counted["last"] - counted["first"]))


def _pause(client: ClusterClient, at: Endpoint, partitions: set[int], first: int) -> float:
    """How long changes that are said in the very moment in which the node goes away take to arrive, in seconds."""
    begun = time.time()
    _drained(client, at, 100, partitions, first)
    return float(at.counts()["last"]) - begun


def _append(client: ClusterClient, count: int, partitions: set[int], first: int) -> None:
    now = int(time.time() * 1000)
    given: list[Change] = []
    number = first
    while len(given) < count:
        owner = str(100_000 + number % 40_000)
        if partition_of(owner, PARTITIONS) in partitions:
            given.append(Change(owner, str(10_000_000 + number), "upsert", now))
        number += 1
    slots = [slot_of(["GET", f"{{{partition_of(each.owner, PARTITIONS)}}}"]) or 0 for each in given]
    packed = packed_log(given)
    for i in range(0, count, _CHUNK):
        replies = client.exchange(packed[i : i + _CHUNK], slots[i : i + _CHUNK])
        refused = next((each for each in replies if isinstance(each, Exception)), None)
        if refused is not None:
            raise refused
