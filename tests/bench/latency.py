"""How long a change takes from its XADD to the endpoint, at a steady rate; and what an idle worker costs."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import redis
from hiredis import pack_command

from producers.contract.change import partition_of
from tests.bench.processes import Endpoint, cpu_seconds, process, urls
from tests.bench.systems import PARTITIONS, ours
from worker.local.redis import EmbeddedRedis
from worker.store.client import command

if TYPE_CHECKING:
    import threading

    from producers.contract.change import Op

LINGER_SECONDS = 0.05
_WARM_SECONDS = 2.0
_READY_SECONDS = 60.0


def latency(endpoint: Endpoint, rate: int, seconds: float, *, partitions: int = PARTITIONS) -> dict[str, Any]:
    """A steady rate of changes, each to a pair of its own, said one by one (in small bursts above 500 a second)."""
    system = ours(partitions=partitions, CONTACT_SYNC_LINGER_SECONDS=str(LINGER_SECONDS))
    with EmbeddedRedis(tcp=True) as server:
        endpoint.begin(0)
        with process(system.command, {**urls(server.url, endpoint.url), **system.environment}) as started:
            client = redis.Redis.from_url(server.url)
            _wait_until_it_delivers(client, endpoint, partitions)
            _say(client, rate, _WARM_SECONDS, partitions)
            time.sleep(0.5)
            endpoint.begin(0)
            endpoint.watch()
            begun = cpu_seconds(started.pid)
            said = _say(client, rate, seconds, partitions)
            ends = time.monotonic() + _READY_SECONDS
            while (counted := endpoint.counts())["records"] < said and time.monotonic() < ends:
                time.sleep(0.05)
            used = cpu_seconds(started.pid) - begun
            client.close()
    waits = sorted(each / 1e6 for each in counted["waits"])
    return {
        "rate": rate,
        "linger_seconds": LINGER_SECONDS,
        "changes": said,
        "delivered": len(waits),
        "requests": counted["requests"],
        "p50": statistics.median(waits),
        "p99": waits[int(len(waits) * 0.99)],
        "max": waits[-1],
        "worker_cores": used / seconds,
    }


def idle(seconds: float) -> dict[str, Any]:
    """A worker with nothing to do: processor time, and commands that Redis gets, its broker's included."""
    system = ours()
    with EmbeddedRedis(tcp=True) as server:
        environment = {**urls(server.url, "http://127.0.0.1:9"), **system.environment}
        with process(system.command, environment) as started:
            client = redis.Redis.from_url(server.url)
            ends = time.monotonic() + _READY_SECONDS
            while not client.exists("contact-sync:ticker") and time.monotonic() < ends:
                time.sleep(0.1)
            time.sleep(5.0)
            begun = cpu_seconds(started.pid)
            asked = _asked(server.url, seconds)
            used = cpu_seconds(started.pid) - begun
            client.close()
    ours_only = {name: count / seconds for (name, db), count in asked.items() if db == 0}
    celerys = sum(count for (_, db), count in asked.items() if db) / seconds
    return {"seconds": seconds, "cores": used / seconds, "ours": ours_only, "celerys": celerys}


def _asked(url: str, seconds: float) -> Counter[tuple[str, int]]:
    """The commands that clients send, by database: ours is 0, the broker's is 1. Those within scripts do not count."""
    asked: Counter[tuple[str, int]] = Counter()
    ends = time.monotonic() + seconds
    with redis.Redis.from_url(url) as watcher, watcher.monitor() as monitor:
        while time.monotonic() < ends:
            command = monitor.next_command()  # there is always a next one: the broker is asked each second
            if command["client_type"] != "lua":
                asked[command["command"].split()[0].upper(), int(command["db"])] += 1
    return asked


def _say(client: redis.Redis, rate: int, seconds: float, partitions: int) -> int:
    """Changes at this rate; their contact is the microsecond at which they are said. Returns how many."""
    connection: Any = client.connection_pool.get_connection()
    burst = max(1, rate // 500)
    count = int(rate * seconds) // burst * burst
    begun = time.monotonic()
    for i in range(0, count, burst):
        wait = begun + i / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        connection.send_packed_command((b"".join(_xadd(i + j, partitions) for j in range(burst)),), check_health=False)
        for _ in range(burst):
            connection.read_response()
    client.connection_pool.release(connection)
    return count


def say_deletes(client: redis.Redis, rate: int, over: threading.Event, partitions: int = PARTITIONS) -> int:
    """Live deletes at this rate until it is over; their contact is as above. Returns how many."""
    said = 0
    while not over.wait(1 / rate):
        command(client, *_words(said, partitions, "delete"))
        said += 1
    return said


def _xadd(number: int, partitions: int) -> bytes:
    packed: bytes = pack_command(_words(number, partitions, "upsert"))  # type: ignore[arg-type] # its stub means one word
    return packed


def _words(number: int, partitions: int, op: Op) -> tuple[str, ...]:
    owner, now = str(1_000 + number), time.time()
    key = f"contact-sync:{{{partition_of(owner, partitions)}}}:events"
    fields = ("owner", owner, "contact", str(int(now * 1e6)), "op", op, "at", str(int(now * 1000)))
    return ("XADD", key, "*", *fields)


def _wait_until_it_delivers(client: redis.Redis, endpoint: Endpoint, partitions: int) -> None:
    _say(client, 50, 0.1, partitions)
    ends = time.monotonic() + _READY_SECONDS
    while not endpoint.counts()["requests"] and time.monotonic() < ends:
        time.sleep(0.1)
