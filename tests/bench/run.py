"""Runs the benchmark: `make bench`. Writes what it finds into tests/bench/results.json, which is committed.

Systems in turn, several alternations, medians. A ratio is the median of the ratios of neighbours in time, so that a
machine that is busy for a while does not decide it. Each part is kept with the machine, the versions, the time and the
settings of its run, and with every single run; a part that was not asked for stays as it was. `make figures` writes the
figures of the documentation from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis

from tests.bench.changes import HOT_PAIRS, Kind, changes
from tests.bench.compiled import Lacking, compiled
from tests.bench.drain import Drained, drain
from tests.bench.floor import floor
from tests.bench.flow import flow
from tests.bench.latency import idle, latency
from tests.bench.nodes import nodes
from tests.bench.outage import outage
from tests.bench.processes import PROJECT, Endpoint, endpoint
from tests.bench.producing import producing
from tests.bench.reconcile import reconciling
from tests.bench.scale import backlog, partitions, pending, sizes, workers
from tests.bench.systems import (
    ARQ,
    CELERY_BATCHES,
    FASTSTREAM,
    PEERS_ALL,
    SCRIPT,
    SCRIPT_TUNED,
    SCRIPT_TWICE,
    System,
    ours,
)
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS: Final = (
    *("floor", "drain", "peers", "settings", "producing", "latency", "idle"),
    *("backlog", "pending", "partitions", "workers", "nodes", "flow", "outage", "sizes", "reconciling", "compiled"),
)
_PER_RECORD_SHARE: Final = 25
"""A system that makes a message or a request of every change is given so much less of them: it takes as long."""

LATENCIES: Final = (0, 20, 100)
RESULTS: Final = PROJECT / "tests" / "bench" / "results.json"


class Traffic(NamedTuple):
    """What is drained.

    Attributes:
        kind: which pairs.
        stamped: share of changes with an `at`.
        name: as the tables call it.
    """

    kind: Kind
    stamped: float
    name: str


TRAFFIC: Final = (
    Traffic("daily", 0.5, "known pairs, Zipf, half with `at`"),
    Traffic("distinct", 1.0, "95 % distinct, with `at`"),
    Traffic("distinct", 0.0, "95 % distinct, without `at`"),
    Traffic("hot", 1.0, f"{HOT_PAIRS:,} pairs, with `at`"),
    Traffic("hot", 0.0, f"{HOT_PAIRS:,} pairs, without `at`"),
)
"""The first one is traffic as it is, and the headline."""


def main() -> None:
    """Parses what is asked for, runs it, writes what was found."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--changes", type=int, default=100_000, help="changes a drain")
    parser.add_argument("--rounds", type=int, default=5, help="alternations")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: " + ", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="file for the results")
    asked = parser.parse_args()
    found: dict[str, Any] = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    with endpoint() as started:
        for part in asked.parts.split(","):
            run = {"date": time.strftime("%Y-%m-%d"), "changes": asked.changes, "rounds": asked.rounds}
            run |= {"machine": _machine(), "load_before": os.getloadavg()[0]}
            try:
                run["found"] = _PARTS[part](started, asked.changes, asked.rounds)
            except Lacking as lacking:
                print(f"{part} was not measured: {lacking}")  # noqa: T201 - it is to be read
                continue
            run["load_after"] = os.getloadavg()[0]
            found[part] = run
            asked.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _machine() -> dict[str, Any]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    packages = ("redis", "hiredis", "celery", "kombu", "httpx", "orjson")
    return {
        "cpu": model.partition(": ")[2] or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "redis_server": _redis_server(),
        **{name: version(name) for name in packages},
    }


def _redis_server() -> str:
    with EmbeddedRedis(tcp=True) as server, redis.Redis.from_url(server.url) as client:
        told: Any = client.info("server")
    return str(told["redis_version"])


def _alternate(  # noqa: PLR0913, PLR0917 - what one comparison is made of
    systems: Sequence[System], at: Endpoint, traffic: Traffic, latency_ms: float, counts: dict[str, int], rounds: int
) -> dict[str, Any]:
    """Each system in turn, several times; medians, and the ratio of the first one to each other."""
    runs: dict[str, list[Drained]] = {each.name: [] for each in systems}
    for seed in range(rounds):
        for system in systems:
            given = changes(counts[system.name], traffic.kind, seed, traffic.stamped)
            runs[system.name].append(drain(system, at, traffic.kind, latency_ms, given))
    first = runs[systems[0].name]
    medians = {name: _median(each) for name, each in runs.items()}
    for name, each in runs.items():
        medians[name]["ratio"] = statistics.median(a.rate / b.rate for a, b in zip(first, each, strict=True))
        medians[name]["runs"] = [asdict(run) for run in each]
    return medians


def _median(runs: Sequence[Drained]) -> dict[str, Any]:
    middle = sorted(runs, key=lambda run: run.rate)[len(runs) // 2]
    medians = {name: statistics.median(getattr(run, name) for run in runs) for name in ("rate", "span_rate")}
    return asdict(middle) | medians


def _fair(systems: Sequence[System], count: int, latency_ms: float) -> dict[str, int]:
    """How many changes each is given: fewer where one at a time is slow."""
    waits = 1 + int(latency_ms / 20)
    counts = {}
    for each in systems:
        if each is CELERY_BATCHES:
            counts[each.name] = count // 20  # many batches all the same: the clock starts with the first one
        elif each is ARQ:
            counts[each.name] = count // 400 // waits  # it looks for ten jobs twice a second
        elif each.per_record:
            counts[each.name] = count // _PER_RECORD_SHARE // waits
        elif each in (SCRIPT, SCRIPT_TWICE, SCRIPT_TUNED, FASTSTREAM) and latency_ms:
            counts[each.name] = count // (2 * waits)
        else:
            counts[each.name] = count
    return counts


def _drain(at: Endpoint, count: int, rounds: int) -> dict[str, Any]:
    systems = (ours(), SCRIPT, SCRIPT_TWICE, SCRIPT_TUNED)
    return {
        f"{latency_ms} ms, {traffic.name}": _alternate(
            systems, at, traffic, latency_ms, _fair(systems, count, latency_ms), rounds
        )
        for latency_ms in LATENCIES
        for traffic in TRAFFIC
    }


def _peers(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    systems = (ours(), *(each for each in PEERS_ALL if each not in (SCRIPT, SCRIPT_TUNED)))
    traffic = TRAFFIC[1]
    return {
        f"{latency_ms} ms, {traffic.name}": _alternate(
            systems, at, traffic, latency_ms, _fair(systems, count, latency_ms), 1
        )
        for latency_ms in LATENCIES
    }


def _settings(at: Endpoint, count: int, rounds: int) -> dict[str, Any]:
    """Other pools and batch sizes than the default, each beside it: nobody should have to choose one."""
    systems = [ours(), *(ours("--pool", "threads", "-c", str(n)) for n in (1, 8)), ours("-c", "1"), ours("-c", "4")]
    systems += [
        replace(ours(CONTACT_SYNC_BATCH_SIZE=str(n)), name=f"contact-sync worker, batch size {n}") for n in (100, 2_000)
    ]
    return {
        f"{latency_ms} ms": _alternate(
            systems, at, TRAFFIC[1], latency_ms, _fair(systems, count, latency_ms), min(rounds, 3)
        )
        for latency_ms in LATENCIES
    }


def _compiled(at: Endpoint, count: int, rounds: int) -> dict[str, Any]:
    return compiled(at, TRAFFIC, count, rounds)


_PARTS: Final = {
    "floor": lambda at, count, _rounds: floor(at, count),
    "drain": _drain,
    "peers": _peers,
    "settings": _settings,
    "producing": lambda _at, _count, rounds: producing(rounds),
    "latency": lambda at, _count, _rounds: [latency(at, rate, 20.0) for rate in (50, 2_000)],
    "idle": lambda _at, _count, _rounds: idle(20.0),
    "backlog": backlog,
    "pending": pending,
    "partitions": partitions,
    "workers": workers,
    "nodes": nodes,
    "sizes": sizes,
    "reconciling": reconciling,
    "flow": flow,
    "outage": outage,
    "compiled": _compiled,
}


if __name__ == "__main__":
    main()
