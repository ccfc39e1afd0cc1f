"""Runs the benchmark: `make bench`. Writes a table to standard output, and results.json and plots beside it.

Every number is measured in this run, on this machine: systems in turn, several alternations, medians. A ratio is the
median of the ratios of neighbours in time, so that a machine that is busy for a while does not decide it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench.changes import Kind, changes
from tests.bench.drain import Drained, drain
from tests.bench.floor import floor
from tests.bench.flow import flow
from tests.bench.latency import idle, latency
from tests.bench.plot import bars, lines
from tests.bench.processes import Endpoint, endpoint
from tests.bench.producing import producing
from tests.bench.report import report
from tests.bench.scale import backlog, partitions, pending, workers
from tests.bench.systems import ARQ, CELERY_BATCHES, FASTSTREAM, PEERS_ALL, SCRIPT, SCRIPT_TUNED, System, ours

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS: Final = (
    *("floor", "drain", "peers", "settings", "producing", "latency", "idle"),
    *("backlog", "pending", "partitions", "workers", "flow"),
)
KINDS: Final[tuple[Kind, ...]] = ("distinct", "hot")
_PER_RECORD_SHARE: Final = 25
"""A system that makes a message or a request of every change is given so much less of them: it takes as long."""

# Where the endpoint answers at once, processes use both cores; where it takes its time, threads wait for it, the more
# the slower it is. All others have their default settings.
SUITED: Final = {0: ("prefork", 2), 20: ("threads", 12), 100: ("threads", 48)}


def main() -> None:
    """Parses what is asked for, runs it, writes what was found."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--changes", type=int, default=400_000, help="changes a drain")
    parser.add_argument("--rounds", type=int, default=3, help="alternations")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: " + ", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="directory for results.json and plots")
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    found: dict[str, Any] = {"machine": _machine(), "run": {"changes": asked.changes, "rounds": asked.rounds}}
    asked.out.mkdir(parents=True, exist_ok=True)
    with endpoint() as started:
        for part in parts:
            found[part] = _PARTS[part](started, asked.changes, asked.rounds)
            (asked.out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    _plot(found, asked.out)
    text = report(found)
    (asked.out / "results.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201 - it is what was asked for


def _machine() -> dict[str, Any]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    packages = ("redis", "hiredis", "celery", "kombu", "httpx", "orjson")
    return {
        "cpu": model.partition(": ")[2] or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
        **{name: version(name) for name in packages},
    }


def _alternate(  # noqa: PLR0913, PLR0917 - what one comparison is made of
    systems: Sequence[System], at: Endpoint, kind: Kind, latency_ms: float, counts: dict[str, int], rounds: int
) -> dict[str, Any]:
    """Each system in turn, several times; medians, and the ratio of the first one to each other."""
    runs: dict[str, list[Drained]] = {each.name: [] for each in systems}
    for seed in range(rounds):
        for system in systems:
            given = changes(counts[system.name], kind, seed)
            runs[system.name].append(drain(system, at, kind, latency_ms, given))
    first = runs[systems[0].name]
    medians = {name: _median(each) for name, each in runs.items()}
    for name, each in runs.items():
        medians[name]["ratio"] = statistics.median(a.rate / b.rate for a, b in zip(first, each, strict=True))
        medians[name]["rates"] = [round(run.rate) for run in each]
    return medians


def _median(runs: Sequence[Drained]) -> dict[str, Any]:
    middle = sorted(runs, key=lambda run: run.rate)[len(runs) // 2]
    return asdict(middle) | {"rate": statistics.median(run.rate for run in runs)}


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
        elif each in (SCRIPT, SCRIPT_TUNED, FASTSTREAM) and latency_ms:
            counts[each.name] = count // (2 * waits)
        else:
            counts[each.name] = count
    return counts


def _drain(at: Endpoint, count: int, rounds: int) -> dict[str, Any]:
    found = {}
    for latency_ms, (pool, concurrency) in SUITED.items():
        for kind in KINDS:
            systems = (ours(pool, concurrency), SCRIPT, SCRIPT_TUNED)
            of = _alternate(systems, at, kind, latency_ms, _fair(systems, count, latency_ms), rounds)
            found[f"{kind}, {latency_ms} ms"] = of
    return found


def _peers(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    found = {}
    for latency_ms, (pool, concurrency) in SUITED.items():
        systems = (ours(pool, concurrency), *(each for each in PEERS_ALL if each not in (SCRIPT, SCRIPT_TUNED)))
        found[f"distinct, {latency_ms} ms"] = _alternate(
            systems, at, "distinct", latency_ms, _fair(systems, count, latency_ms), 1
        )
    return found


def _settings(at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """Our own settings, at an endpoint that answers at once: threads, pools, batch sizes."""
    given = changes(count, "distinct")
    tried = {f"threads, {n}": ours("threads", n) for n in (1, 2, 4, 8, 16)}
    tried |= {f"prefork, {n}": ours("prefork", n) for n in (1, 2, 4)}
    tried |= {f"batch size {n}": ours("threads", 4, CONTACT_SYNC_BATCH_SIZE=str(n)) for n in (100, 500, 2_000)}
    return {name: asdict(drain(system, at, "distinct", 0, given)) for name, system in tried.items()}


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
    "flow": flow,
}


def _plot(found: dict[str, Any], out: Path) -> None:
    for name, of in found.get("drain", {}).items():
        others = found.get("peers", {}).get(name, {})
        rates = {system: each["rate"] for system, each in {**of, **others}.items()}
        file = out / f"drain-{name.replace(', ', '-').replace(' ', '')}.svg"
        file.write_text(bars(f"Drain: {name}", "changes a second", rates), encoding="utf-8")
    for name, (title, across, up, value) in _CURVES.items():
        if name in found:
            points = [(float(size), float(each[value])) for size, each in found[name].items()]
            (out / f"{name}.svg").write_text(lines(title, across, up, {"contact-sync": points}), encoding="utf-8")


_CURVES: Final = {
    "backlog": ("Drain rate by backlog", "changes waiting", "changes a second", "rate"),
    "partitions": ("Drain rate by partitions", "partitions", "changes a second", "rate"),
}


if __name__ == "__main__":
    main()
