"""The endpoint's pace: a limit of requests, one that changes, live deletes behind a long backlog, and a knee.

The endpoint limits as the stand-in does. Ideal is what its limit allows: full requests, one after the other.
"""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import redis

from tests.bench.changes import Change
from tests.bench.latency import say_deletes
from tests.bench.processes import Endpoint, process, urls
from tests.bench.systems import PARTITIONS, append_all, ours, packed_log
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from producers.contract.change import Lane

BATCH: Final = 500
RATE: Final = 20.0
LATENCY_MS: Final = 20.0
DELETES_A_SECOND: Final = 4
MANY_PARTITIONS: Final = 1024
KNEE: Final = 8
"""So many requests under way at once cost nothing; more double the latency of all."""

FOLLOWED_SECONDS: Final = 30.0
"""So long after the limit has changed, the fleet has to have followed."""

_LONGEST_SECONDS: Final = 400.0
_BLOCK: Final = 50_000


def flow(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """All of it, with half as many changes as a drain has."""
    pairs = count // 2
    found: dict[str, Any] = {}
    for workers in (1, 4):
        plain = paced(at, pairs, workers)
        found[f"{workers} workers, {RATE:g} a second"] = plain
        found[f"{workers} workers, with live deletes"] = paced(at, pairs, workers, deletes=True)
        found[f"{workers} workers, live deletes behind bulk"] = paced(at, pairs, workers, deletes=True, lane="bulk")
        found[f"{workers} workers, 20, then 40, then 10"] = followed(at, workers)
    many = f"{MANY_PARTITIONS:,} partitions"
    found[f"1 workers, {many}, with live deletes"] = paced(at, pairs, 1, deletes=True, partitions=MANY_PARTITIONS)
    found["no limit, with live deletes"] = paced(at, 5 * pairs, 1, rate=0.0, deletes=True)
    found[f"no limit, {many}, with live deletes"] = paced(
        at, 5 * pairs, 1, rate=0.0, deletes=True, partitions=MANY_PARTITIONS
    )
    found["knee"] = knee(at)
    return found


def followed(at: Endpoint, workers: int) -> dict[str, Any]:
    """How much of a limit that changed is used half a minute later."""
    changes = ((40.0, 40.0), (40.0, 10.0))
    run = paced(at, 135_000, workers, changes=changes, batch=50)
    used, begun = {}, 0.0
    for seconds, limit in changes:
        begun += seconds
        later = run["a_second"][int(begun + FOLLOWED_SECONDS) :][:8]
        used[f"{limit:g} a second"] = statistics.mean(later) / limit
    return run | {"used": used}


def paced(  # noqa: PLR0913 - what one run is made of, by name
    at: Endpoint,
    pairs: int,
    workers: int,
    *,
    rate: float = RATE,
    deletes: bool = False,
    lane: Lane = "live",
    changes: Sequence[tuple[float, float]] = (),
    batch: int = BATCH,
    partitions: int = PARTITIONS,
) -> dict[str, Any]:
    """Lets workers deliver so many pairs to an endpoint that allows so many requests a second.

    Args:
        at: the endpoint.
        pairs: how many wait.
        workers: how many processes.
        rate: requests a second; 0 for any number.
        deletes: whether live deletes are said meanwhile.
        lane: where the pairs wait.
        changes: other limits, each after so many seconds.
        batch: records in a request.
        partitions: how many there are.
    """
    system = replace(ours(partitions=partitions, CONTACT_SYNC_BATCH_SIZE=str(batch)), processes=workers)
    limits = [(0.0, rate), *changes]
    with EmbeddedRedis(tcp=True) as server, redis.Redis.from_url(server.url) as client, ExitStack() as stack:
        for block in _blocks(pairs):
            append_all(server.url, packed_log(block, partitions, lane))
        at.begin(LATENCY_MS)
        at.watch()
        at.limit(rate)
        environment = {**urls(server.url, at.url), **system.environment}
        for _ in range(workers):
            stack.enter_context(process(system.command, environment))
        over = threading.Event()
        _wait(lambda: bool(at.counts()["requests"]))
        said = [0]
        if deletes:
            teller = threading.Thread(
                target=lambda: said.append(say_deletes(client, DELETES_A_SECOND, over, partitions))
            )
            teller.start()
        for seconds, other in changes:
            time.sleep(seconds)
            at.limit(other)
        _wait(lambda: at.counts()["records"] >= pairs)
        counted = at.counts()
        over.set()
        if deletes:
            teller.join()
    seconds = counted["last"] - counted["first"]
    waits = sorted(each / 1e6 for each in counted["waits"])
    return {
        "pairs": pairs,
        "seconds": seconds,
        "ideal": _ideal(pairs / batch, limits) if rate else None,
        "requests": counted["requests"],
        "limited": counted["limited"],
        "a_second": counted["a_second"],
        "deletes": sum(said),
        "p50": statistics.median(waits) if waits else None,
        "p95": waits[int(len(waits) * 0.95)] if waits else None,
    }


def _ideal(requests: float, limits: Sequence[tuple[float, float]]) -> float:
    """Seconds that the limits allow it to take at least; each but the last ends when the next one begins."""
    left, seconds = requests, 0.0
    for (_, rate), (lasts, _) in zip(limits, [*limits[1:], (float("inf"), 0.0)], strict=True):
        now = min(lasts, left / rate)
        seconds, left = seconds + now, left - now * rate
    return seconds


def knee(at: Endpoint) -> dict[str, Any]:
    """Throughput with several fixed limits of requests under way, and with the one that is found; records a second."""
    return {str(limit): _with_limit(at, limit) for limit in (4, KNEE, 12, 16, "auto")}


def _with_limit(at: Endpoint, limit: int | str, pairs: int = 30_000, batch: int = 25) -> float:
    system = ours(CONTACT_SYNC_IN_FLIGHT=str(limit), CONTACT_SYNC_BATCH_SIZE=str(batch))
    with EmbeddedRedis(tcp=True) as server:
        for block in _blocks(pairs):
            append_all(server.url, packed_log(block))
        at.begin(100.0)
        at.knee(KNEE)
        with process(system.command, {**urls(server.url, at.url), **system.environment}):
            _wait(lambda: at.counts()["records"] >= pairs)
            counted = at.counts()
    return float(pairs / (counted["last"] - counted["first"]))


def _blocks(pairs: int) -> Iterator[list[Change]]:
    at = int(time.time() * 1000) - 60_000
    for first in range(0, pairs, _BLOCK):
        numbers = range(first, min(pairs, first + _BLOCK))
        yield [Change(str(100_000 + number % 40_000), str(10_000_000 + number), "upsert", at) for number in numbers]


def _wait(done: Any) -> None:
    ends = time.monotonic() + _LONGEST_SECONDS
    while not done():
        if time.monotonic() > ends:
            raise RuntimeError(f"not done in {_LONGEST_SECONDS:.0f} s")
        time.sleep(0.1)
