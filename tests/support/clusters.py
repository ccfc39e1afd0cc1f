"""What happens to a cluster's nodes: kills, hangs, slots that move."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.nodes.url import Address
    from worker.local.cluster import EmbeddedCluster


def connected(address: Address) -> redis.Redis:
    """A client of one node, which waits for nobody long."""
    return redis.Redis(
        host=address.host, port=address.port, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )


def node_of(cluster: EmbeddedCluster, slot: int) -> int:
    """Which server serves a slot."""
    for i, address in enumerate(cluster.addresses):
        with suppress(redis.RedisError), connected(address) as client:
            for line in bytes(client.execute_command("CLUSTER", "NODES")).decode().splitlines():
                words = line.split()
                if "myself" in words[2] and "master" in words[2] and any(_has(each, slot) for each in words[8:]):
                    return i
    raise AssertionError(f"nobody serves slot {slot}")


def _has(slots: str, slot: int) -> bool:
    first, _, last = slots.partition("-")
    return not slots.startswith("[") and int(first) <= slot <= int(last or first)


@contextmanager
def hung(cluster: EmbeddedCluster, index: int) -> Iterator[None]:
    """A node that keeps its connections and answers nothing."""
    with stopped(cluster.servers[index].pid):
        yield


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill(cluster: EmbeddedCluster, index: int) -> None:
    os.kill(cluster.servers[index].pid, signal.SIGKILL)


@contextmanager
def away(cluster: EmbeddedCluster, index: int, how: str) -> Iterator[None]:
    """A node that is "dead", for good, or as long as the context lasts "hung", "down" or "alone"."""
    if how == "dead":
        kill(cluster, index)
        yield
    else:
        with {"hung": hung, "down": _down, "alone": _alone}[how](cluster, index):
            yield


@contextmanager
def _down(cluster: EmbeddedCluster, index: int) -> Iterator[None]:
    """A node that answers CLUSTERDOWN, as one does that was restarted or is cut off: it misses a slot."""
    with connected(cluster.addresses[index]) as node:
        told = bytes(node.execute_command("CLUSTER", "NODES")).decode()
        [mine] = [line.split()[8:] for line in told.splitlines() if "myself" in line]
        slots = (slot for slot in range(16_384) if any(_has(each, slot) for each in mine))
        free = next(each for each in slots if not node.execute_command("CLUSTER", "COUNTKEYSINSLOT", each))
        node.config_set("cluster-require-full-coverage", "yes")
        node.execute_command("CLUSTER", "DELSLOTS", free)
        wait_until(lambda: not _serves(node), what="the node serves nothing")
        try:
            yield
        finally:
            node.execute_command("CLUSTER", "ADDSLOTS", free)
            node.config_set("cluster-require-full-coverage", "no")
            wait_until(lambda: _serves(node), seconds=30, what="the node serves again")


def _serves(node: Any) -> bool:
    return b"cluster_state:ok" in bytes(node.execute_command("CLUSTER", "INFO"))


@contextmanager
def _alone(cluster: EmbeddedCluster, index: int) -> Iterator[None]:
    """A node that accepts no writes, because it misses a replica."""
    with connected(cluster.addresses[index]) as node:
        node.config_set("min-replicas-to-write", 1)
        try:
            yield
        finally:
            node.config_set("min-replicas-to-write", 0)


def changes(many: int, contact: str = "1") -> list[dict[str, str]]:
    """An upsert of one contact for each of so many owners."""
    return [{"owner": str(i), "contact": contact, "op": "upsert"} for i in range(many)]


def begin_move(cluster: EmbeddedCluster, slot: int, to: int) -> int:
    """Opens a slot between its node and another; returns the number of its node."""
    source = node_of(cluster, slot)
    with connected(cluster.addresses[source]) as here, connected(cluster.addresses[to]) as there:
        ids = [bytes(each.execute_command("CLUSTER", "MYID")).decode() for each in (here, there)]
        there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    return source


def move_keys(cluster: EmbeddedCluster, slot: int, source: int, to: int, most: int = 1_000_000) -> int:
    """Moves so many keys of an open slot; returns how many moved."""
    target = cluster.addresses[to]
    moved = 0
    with connected(cluster.addresses[source]) as here:
        while moved < most:
            keys: Any = here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, min(10, most - moved))
            if not keys:
                break
            here.execute_command("MIGRATE", target.host, target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
    return moved


def end_move(cluster: EmbeddedCluster, slot: int, to: int) -> None:
    """Closes a slot at its new node."""
    with connected(cluster.addresses[to]) as there:
        node_id = bytes(there.execute_command("CLUSTER", "MYID")).decode()
    # The target first, so that the slot is never nobody's.
    order = [to, *(i for i in range(len(cluster.servers)) if i != to)]
    for i in order:
        with suppress(redis.RedisError), connected(cluster.addresses[i]) as client:  # refused by a replica
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id)


def move_slot(cluster: EmbeddedCluster, slot: int, to: int) -> None:
    """Moves a slot whole."""
    source = begin_move(cluster, slot, to)
    move_keys(cluster, slot, source, to)
    end_move(cluster, slot, to)


def entries(cluster: EmbeddedCluster, pattern: str = "*:events") -> int:
    """How many entries the logs have on all masters that answer."""
    found = 0
    for address in cluster.addresses:
        with suppress(redis.ConnectionError, redis.TimeoutError), connected(address) as client:
            info: Any = client.info("replication")
            if info["role"] == "master":
                found += sum(client.xlen(key) for key in client.scan_iter(pattern))
    return found


def wait_for_failover(cluster: EmbeddedCluster, slot: int, lost: int) -> int:
    """Waits until another node serves the slot; returns which."""

    def there() -> bool:
        try:
            return node_of(cluster, slot) != lost
        except AssertionError:
            return False

    wait_until(there, seconds=40, what="a replica takes over")
    return node_of(cluster, slot)
