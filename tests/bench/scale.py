"""How it scales: with workers, with partitions, with what waits in the log, and with pairs that wait in an outage."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import redis

from tests.bench.changes import changes, named_by_uuids
from tests.bench.drain import drain
from tests.bench.latency import latency
from tests.bench.processes import process, urls
from tests.bench.systems import PARTITIONS, log_waiting, ours
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from tests.bench.changes import Change
    from tests.bench.processes import Endpoint

_BLOCK: Final = 500_000
"""Changes that are made and loaded at once."""

_NOBODY: Final = "http://127.0.0.1:9"
"""An endpoint that is away: nothing listens there."""

_LONGEST_SECONDS: Final = 900.0


def workers(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """Drain by workers, each with a process for each core, by what the endpoint takes."""
    given = changes(count, "distinct")
    found = {}
    for number in (1, 2, 4):
        for latency_ms in (0, 20, 100):
            system = ours(processes=number)
            found[f"{number}, {latency_ms} ms"] = asdict(drain(system, at, "distinct", latency_ms, given))
    return found


def partitions(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """Drain and latency by the number of partitions."""
    given = changes(count, "distinct")
    found = {}
    for number in (1, 8, 64, 256, 1_024):
        drained = asdict(drain(ours(partitions=number), at, "distinct", 0, given))
        waits = latency(at, 50, 10.0, partitions=number)
        found[str(number)] = drained | {"p50": waits["p50"], "p99": waits["p99"]}
    return found


def backlog(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """Drain by what waits, ten thousand to ten million changes: neither its rate nor its memory should move."""
    return {
        str(size): asdict(_drain_of(at, size))
        for size in (10_000, 100_000, 1_000_000, 10_000_000)
        if size <= count * 25
    }


def _drain_of(at: Endpoint, size: int) -> Any:
    first, *others = [min(_BLOCK, size - i) for i in range(0, size, _BLOCK)]
    more = (changes(each, "distinct", seed) for seed, each in enumerate(others, start=2))
    return drain(ours(), at, "distinct", 0, changes(first, "distinct"), more)


def pending(_at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """What a pair costs that waits beside the log, while the endpoint is away."""
    found = {}
    for size in (1_000, 10_000, 100_000, 1_000_000):
        if size <= count * 2.5:
            given = [each._replace(op="upsert") for each in changes(int(size / 0.95), "distinct")]
            found[f"{size:,}, short ids"] = _outage(given)
            found[f"{size:,}, UUIDs"] = _outage(named_by_uuids(given))
    return found


def sizes(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """What Redis needs for an entry of the log, a pair that waits and a pair that is remembered (bytes)."""
    given = [each._replace(op="upsert") for each in changes(2 * count, "distinct")]
    held = _outage(given)
    system = ours()
    with EmbeddedRedis(tcp=True) as server, redis.Redis.from_url(server.url) as client:
        system.load(server.url, given)
        at.begin(0)
        with process(system.command, {**urls(server.url, at.url), **system.environment}):
            begun = time.monotonic()
            while log_waiting(client) != (0, 0):
                if time.monotonic() - begun > _LONGEST_SECONDS:
                    raise RuntimeError(f"there wait {log_waiting(client)}")
                time.sleep(0.1)
        ledger = _bytes_of(client, "ledger:new") + _bytes_of(client, "ledger:old")
    pairs = held["pairs"]
    return {
        "pairs": pairs,
        "log": held["log_bytes_a_change"],
        "pending": held["bytes_a_pair"],
        "ledger": ledger / pairs,
    }


def _outage(given: list[Change]) -> dict[str, Any]:
    """Lets a worker take these changes from the log while the endpoint is away."""
    system = ours()
    pairs = len({each[:2] for each in given})
    with EmbeddedRedis(tcp=True) as server, redis.Redis.from_url(server.url) as client:
        system.load(server.url, given)
        log_bytes = _bytes_of(client, "events")
        with process(system.command, {**urls(server.url, _NOBODY), **system.environment}):
            begun = time.monotonic()
            while log_waiting(client) != (0, pairs):
                if time.monotonic() - begun > _LONGEST_SECONDS:
                    raise RuntimeError(f"of {pairs:,} pairs there wait {log_waiting(client)}")
                time.sleep(0.1)
            seconds = time.monotonic() - begun
        held = _bytes_of(client, "pending")
    return {
        "pairs": pairs,
        "bytes_a_pair": held / pairs,
        "log_bytes_a_change": log_bytes / len(given),
        "seconds": seconds,
    }


def _bytes_of(client: redis.Redis, name: str) -> int:
    pipe = client.pipeline(transaction=False)
    for p in range(PARTITIONS):
        pipe.memory_usage(f"contact-sync:{{{p}}}:{name}", samples=0)
    return sum(each or 0 for each in pipe.execute())
