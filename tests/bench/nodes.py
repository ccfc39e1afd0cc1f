"""What a change costs on a cluster of one to six nodes: Redis by node, producer, worker, and commands for all alike.

All nodes share this machine, so nothing here shows speed: processor time and counts tell what each part would need.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import redis

from producers import ContactChange, ContactProducer
from tests.bench.processes import cpu_seconds, process, urls
from tests.bench.systems import ours
from worker.local.cluster import EmbeddedCluster
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from producers.nodes.url import Address
    from tests.bench.processes import Endpoint

NODES: Final = (1, 2, 3, 4, 6)
OWNERS: Final = 40_000
LATENCY_MS: Final = 20.0
_BATCH: Final = 1_000
_LONGEST_SECONDS: Final = 300.0
_KEY: Final = re.compile(r"contact-sync:[^\s\"]+")
_OF_A_PARTITION: Final = re.compile(r"contact-sync:\{\d+\}:")


def nodes(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """Lets a worker deliver so many distinct pairs from clusters of growing size."""
    return {str(number): _of(at, number, count) for number in NODES}


def _of(at: Endpoint, number: int, count: int) -> dict[str, Any]:
    with ExitStack() as stack:
        cluster = stack.enter_context(EmbeddedCluster(masters=number))
        broker = stack.enter_context(EmbeddedRedis(tcp=True))
        each_node = [
            stack.enter_context(redis.Redis(host=address.host, port=address.port)) for address in cluster.addresses
        ]
        begun = _cpu(each_node)
        producing = _produce(cluster.url, 0, count)
        produced = _cpu(each_node)
        at.begin(LATENCY_MS)
        worker = _drain(at, cluster.url, broker.url, count)
        drained = _cpu(each_node)
        # Counted apart, because to watch every command costs a server more than to run it.
        few = count // 2
        _produce(cluster.url, count, few)
        at.begin(LATENCY_MS)
        shared = _shared_commands(cluster.addresses, lambda: _drain(at, cluster.url, broker.url, few))
        requests = at.counts()["requests"]
    spent = [b - a for a, b in zip(produced, drained, strict=True)]
    return {
        "changes": count,
        "xadd_us": sum(b - a for a, b in zip(begun, produced, strict=True)) / count * 1e6,
        "redis_us": sum(spent) / count * 1e6,
        "busiest_share": max(spent) / sum(spent),
        "producer_us": producing / count * 1e6,
        "worker_us": worker / count * 1e6,
        "shared_commands_a_request": shared / requests,
    }


def _cpu(each_node: Sequence[redis.Redis]) -> list[float]:
    """Processor time of each server's process (seconds): its commands, and its work with the network."""
    infos: list[dict[str, Any]] = [node.info("cpu") for node in each_node]
    return [info["used_cpu_user"] + info["used_cpu_sys"] for info in infos]


def _produce(url: str, first: int, count: int) -> float:
    """Sends distinct pairs; returns the processor time that took (seconds)."""
    begun = time.process_time()
    with ContactProducer(url) as producer:
        for at in range(first, first + count, _BATCH):
            numbers = range(at, min(at + _BATCH, first + count))
            producer.send(
                [
                    ContactChange(owner=str(100_000 + i % OWNERS), contact=str(10_000_000 + i), op="upsert")
                    for i in numbers
                ]
            )
    return time.process_time() - begun


def _drain(at: Endpoint, url: str, broker_url: str, count: int) -> float:
    """Lets a worker deliver all that waits; returns its processor time from the first request on (seconds)."""
    system = ours()
    environment = {**urls(url, at.url), **system.environment, "CONTACT_SYNC_BROKER_URL": broker_url}
    with process(system.command, environment) as worker:
        ends, begun = time.monotonic() + _LONGEST_SECONDS, 0.0
        while (counted := at.counts())["records"] < count:
            if counted["requests"] and not begun:
                begun = cpu_seconds(worker.pid)
            if time.monotonic() > ends:
                raise RuntimeError(f"{counted['records']} of {count} records after {_LONGEST_SECONDS:.0f} s")
            time.sleep(0.05)
        return cpu_seconds(worker.pid) - begun


def _shared_commands(addresses: Sequence[Address], run: Callable[[], object]) -> int:
    """How many commands for keys that belong to no partition came while this ran."""
    found, over = [0] * len(addresses), threading.Event()

    def watch(address: Address, number: int) -> None:
        with redis.Redis(host=address.host, port=address.port, socket_timeout=None) as client:
            monitor: Any = client.monitor  # its stub has no types
            with monitor() as every:
                for said in every.listen():
                    keys = _KEY.findall(said["command"])
                    asked = said["client_type"] != "lua" and bool(keys)  # what a script does is part of it
                    found[number] += asked and not any(_OF_A_PARTITION.match(key) for key in keys)
                    if over.is_set():
                        return

    threads = [threading.Thread(target=watch, args=(each, i), daemon=True) for i, each in enumerate(addresses)]
    for each in threads:
        each.start()
    time.sleep(0.2)
    run()
    over.set()
    for address in addresses:  # one more command, so that each sees that it is over
        with redis.Redis(host=address.host, port=address.port) as client:
            client.ping()
    for each in threads:
        each.join(5)
    return sum(found)
