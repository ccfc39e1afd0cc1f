"""Drain: changes that wait, until all of them were delivered. The clock runs from the first read to the last answer.

So neither the start of an interpreter counts, nor how often we look. All changes wait before a system is started.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import redis

from producers.contract.keys import Keys
from tests.bench.changes import known_pairs
from tests.bench.processes import Endpoint, cpu_seconds, peak_megabytes, process, urls
from tests.bench.systems import PARTITIONS
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Sequence

    from tests.bench.changes import Change, Kind
    from tests.bench.systems import System

_LONGEST_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Drained:
    """One drain.

    Attributes:
        seconds: from the first read of the log to the last answer.
        rate: changes a second in that time.
        span_rate: the same from the first request on.
        start_seconds: from the start of the process to the first request.
        worker_us: processor time of the worker a change, in microseconds, its start and end included.
        worker_mb: most memory that its largest process held, in megabytes.
        redis_us: time that Redis spent in commands, a change, in microseconds.
        commands: the same by command, those of at least 0.005; inside a script and alone are one number.
    """

    system: str
    kind: Kind
    latency_ms: float
    changes: int
    seconds: float
    rate: float
    span_rate: float
    start_seconds: float
    requests: int
    records: int
    most_in_flight: int
    worker_us: float
    worker_mb: float
    redis_us: float
    endpoint_us: float
    commands: dict[str, float]


def drain(  # noqa: PLR0913, PLR0917 - what one drain is made of
    system: System,
    endpoint: Endpoint,
    kind: Kind,
    latency_ms: float,
    given: Sequence[Change],
    more: Iterable[Sequence[Change]] = (),
) -> Drained:
    """Lets one system drain these changes; what is too much to be held at once comes as more."""
    with EmbeddedRedis(tcp=True) as server:
        count = 0
        if kind == "daily" and system.remembers:
            _make_known(system, server.url, endpoint)
        for block in (given, *more):
            system.load(server.url, block)
            count += len(block)
        client = redis.Redis.from_url(server.url)
        client.config_resetstat()
        endpoint.begin(latency_ms)
        environment = {**urls(server.url, endpoint.url), **system.environment}
        with ExitStack() as stack:
            started = [stack.enter_context(process(system.command, environment)) for _ in range(system.processes)]
            groups = [each.pid for each in started]
            ends = time.monotonic() + _LONGEST_SECONDS
            launched, read = time.time(), _first_read(client, started)
            begun, before = 0.0, -1
            while time.monotonic() < ends and all(each.poll() is None for each in started):
                counted = endpoint.counts()
                if counted["requests"] and not begun:
                    begun = cpu_seconds(*groups)
                # Looked at only while nothing comes: with many partitions the look takes a core from what is measured.
                if counted["requests"] == before and before and system.waiting(client) == 0:
                    break
                before = counted["requests"]
                time.sleep(0.05)
            counted = endpoint.counts()
            if system.waiting(client):
                raise RuntimeError(f"{system.name} did not drain in {_LONGEST_SECONDS:.0f} s: {counted}")
            worker = cpu_seconds(*groups) - begun
            peak = peak_megabytes(*groups)
        stats: dict[str, Any] = client.info("commandstats")
        client.close()
    calls = {name.removeprefix("cmdstat_"): each for name, each in stats.items()}
    # A script's time holds that of the commands it calls, which are counted by themselves as well: here they are not
    # added a second time. What the loop itself asks is all of the others, but for our own looks at what waits.
    inner = _WITHIN_SCRIPTS if calls.get("evalsha", {"calls": 0})["calls"] else frozenset()
    outer = sum(each["usec"] for name, each in calls.items() if name not in inner)
    commands = {name: each["usec"] / count for name, each in calls.items() if each["usec"] / count >= 0.005}
    seconds = counted["last"] - read
    return Drained(
        system=system.name,
        kind=kind,
        latency_ms=latency_ms,
        changes=count,
        seconds=seconds,
        rate=count / seconds,
        span_rate=count / (counted["last"] - counted["first"]),
        start_seconds=counted["first"] - launched,
        requests=counted["requests"],
        records=counted["records"],
        most_in_flight=counted["most_in_flight"],
        worker_us=worker / count * 1e6,
        worker_mb=peak,
        redis_us=outer / count,
        endpoint_us=counted["cpu"] / count * 1e6,
        commands=dict(sorted(commands.items(), key=lambda each: -each[1])),
    )


def _make_known(system: System, url: str, endpoint: Endpoint) -> None:
    """Lets it deliver one change of each pair of a day, so that it knows them all."""
    endpoint.begin(0)
    system.load(url, known_pairs())
    ends = time.monotonic() + _LONGEST_SECONDS
    with (
        redis.Redis.from_url(url) as client,
        process(system.command, {**urls(url, endpoint.url), **system.environment}),
    ):
        leases = [_KEYS.lease(p) for p in range(PARTITIONS)]
        while system.waiting(client) or client.exists(*leases):  # one that is killed with a lease leaves doubts behind
            if time.monotonic() > ends:
                raise RuntimeError(f"{system.name} did not come to know the pairs in {_LONGEST_SECONDS:.0f} s")
            time.sleep(0.05)
    with redis.Redis.from_url(url) as client:
        client.delete(_KEYS.ticker)  # of a worker that was killed: who starts next would wait until it expires


def _first_read(client: redis.Redis, started: Sequence[subprocess.Popen[bytes]]) -> float:
    """When the log was read for the first time, or up to 5 ms earlier (Unix seconds)."""
    before = client.hget(_KEYS.gate, "seen")
    while all(each.poll() is None for each in started):
        looked = time.time()
        stats: dict[str, Any] = client.info("commandstats")
        # A worker of ours takes a place in the gate right before it claims what it reads.
        if client.hget(_KEYS.gate, "seen") != before or not stats.keys().isdisjoint(_READS):
            return looked
        time.sleep(0.005)
    return time.time()


_KEYS: Final = Keys("contact-sync")
_READS: Final = frozenset(f"cmdstat_{name}" for name in ("xreadgroup", "brpop", "rpop", "zrangebyscore"))

_WITHIN_SCRIPTS = frozenset(
    ("hset", "hdel", "hget", "xtrim", "hincrby", "hvals", "pexpire", "unlink", "rename", "set", "xrevrange")
)
