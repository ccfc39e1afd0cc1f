"""``make endurance``: hours of steady load with all that runs; memory, connections, files and keys must stay flat.

One Redis, an endpoint, `contact-sync worker`, `serve`, `relay` and `reconcile --every`, as users start them. Changes
come at the same rate all the time, from a producer and through an outbox; metrics are scraped. The ledger is short, so
that it is as long as it gets after the warm-up. Exit status 1 if anything grows, or was not delivered in the end.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import redis
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from producers import ContactChange, ContactProducer
from producers.contract.keys import Keys
from producers.contract.partitions import DEFAULT_PARTITIONS
from producers.outbox import Outbox, create_tables
from tests.bench.plot import over_time
from tests.bench.processes import OURS, PROJECT, endpoint, process
from tests.endurance.trend import trend
from tests.proof.published import made, write
from tests.support.waiting import wait_until
from worker.local.data_dir import free_port
from worker.local.redis import EmbeddedRedis
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHART: Final = PROJECT / "docs" / "images" / "endurance.svg"
PAIRS: Final = 20_000
OUTBOX_A_SECOND: Final = 5
RECONCILE: Final = "60s"
LEDGER_SECONDS: Final = 120
SAMPLES: Final = 360
_DELETES: Final = 0.2
_DRAIN_SECONDS: Final = 120.0

SLACK: Final[Mapping[str, float]] = {"MB": 2.0, "files": 2.0, "threads": 2.0, "connections": 2.0, "keys": 16.0}
"""What each may grow beside a share of it. A partition has some keys only while something waits in it."""


@click.command(epilog="\b\nExample:\n  python -m tests.endurance.run --minutes 120 --publish")
@click.option("--minutes", type=click.FloatRange(min=1.5), default=120.0, show_default=True)
@click.option("--rate", type=click.IntRange(min=1), default=100, show_default=True, help="Changes a second.")
@click.option("--publish", is_flag=True, help="Write the result and its plot, which are committed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(*, minutes: float, rate: int, publish: bool, as_json: bool) -> None:
    """Run all that runs under steady load, and see that nothing grows."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    samples, delivered = endure(minutes * 60, rate)
    trends = {name: trend(values) for name, values in samples.items() if name != "seconds"}
    grown = [name for name, each in trends.items() if not each.is_flat(SLACK[name.rpartition(", ")[2]])]
    result = {
        "made": made(),
        "minutes": minutes,
        "changes_a_second": rate,
        "delivered": delivered,
        "trends": {
            name: {key: round(value, 2) for key, value in each._asdict().items()} for name, each in trends.items()
        },
        "grown": grown,
    }
    if publish:
        write("endurance", result)
        memory = {name: values for name, values in samples.items() if name.endswith(", MB")}
        drawn = {name: list(zip(samples["seconds"], values, strict=True)) for name, values in memory.items()}
        CHART.write_text(over_time(f"{minutes:g} minutes of {rate} changes a second", "MB", drawn), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        for name, each in trends.items():
            click.echo(f"{name:28} {each.begin:10.1f} {each.end:10.1f}{'  GROWS' if name in grown else ''}")
        click.echo(f"{delivered:,} changes delivered, and nothing waits")
    if grown:
        raise SystemExit(1)


def endure(seconds: float, rate: int) -> tuple[dict[str, list[float]], int]:
    """Runs everything for so long; returns the samples, and how many records the endpoint got.

    Raises:
        click.ClickException: a part ended, or not all was delivered.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="contact-sync-endurance-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = stack.enter_context(EmbeddedRedis(tcp=True))
        at = stack.enter_context(endpoint())
        at.begin(5.0)
        port = free_port()
        environment = {
            "CONTACT_SYNC_REDIS_URL": server.url,
            "CONTACT_SYNC_ENDPOINT_URL": at.url,
            "CONTACT_SYNC_SERVER_KEY_ID": DEFAULT_KEY,
            "CONTACT_SYNC_SERVER_KEY_SECRET": DEFAULT_KEY,
            "CONTACT_SYNC_LEDGER_SECONDS": str(LEDGER_SECONDS),
            "CONTACT_SYNC_LINGER_SECONDS": "0.2",
        }
        database, source = f"sqlite:///{directory / 'app.db'}", directory / "source.csv"
        outbox, engine = Outbox(source="app"), create_engine(database)
        stack.callback(engine.dispose)
        create_tables(engine)
        with source.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("owner", "contact"))
            rows.writerows(_pair(number) for number in range(PAIRS, PAIRS + 2_000))
        commands = {
            "worker": ["worker", "--loglevel", "WARNING"],
            "serve": ["serve", "--port", str(port)],
            "relay": ["relay", database],
            "reconcile": ["reconcile", str(source), "--every", RECONCILE],
        }
        groups = {
            name: stack.enter_context(process([str(OURS / "contact-sync"), *words], environment, directory))
            for name, words in commands.items()
        }
        client = stack.enter_context(redis.Redis.from_url(server.url))
        producer = stack.enter_context(ContactProducer(server.url))
        load = _load(producer, outbox, engine, rate)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), seconds=60, what="serve answers")
        samples = _watched(seconds, load, lambda: _sample(groups, client, url))
        _drain(client, environment)
        return samples, int(at.counts()["records"])


def _load(producer: ContactProducer, outbox: Outbox, engine: Any, rate: int) -> Callable[[], None]:
    """What says a quarter of a second's changes each time it is called."""
    draw = random.Random(1)
    owed = [0.0]

    def say() -> None:
        owed[0] += OUTBOX_A_SECOND / 4
        with Session(engine) as session, session.begin():
            while owed[0] >= 1:
                owner, contact = _pair(draw.randrange(PAIRS))
                outbox.upsert(session, owner=owner, contact=contact)
                owed[0] -= 1
        producer.send(
            [_change(*_pair(draw.randrange(PAIRS)), delete=draw.random() < _DELETES) for _ in range(max(1, rate // 4))]
        )

    return say


def _change(owner: str, contact: str, *, delete: bool) -> ContactChange:
    return ContactChange(owner=owner, contact=contact, op="delete" if delete else "upsert")


def _pair(number: int) -> tuple[str, str]:
    return str(1_000 + number % 500), str(100_000 + number)


def _watched(
    seconds: float, load: Callable[[], None], sample: Callable[[], dict[str, float]]
) -> dict[str, list[float]]:
    begun = time.monotonic()
    found: dict[str, list[float]] = {"seconds": []}
    every = max(1.0, seconds / SAMPLES)
    next_load, next_sample = begun, begun + every
    with click.progressbar(length=int(seconds), label="endures") as bar:
        while (now := time.monotonic()) < begun + seconds:
            if now >= next_load:
                load()
                next_load += 0.25
            if now >= next_sample:
                found["seconds"].append(now - begun)
                for name, value in sample().items():
                    found.setdefault(name, []).append(value)
                next_sample += every
                bar.update(int(now - begun) - bar.pos)
            time.sleep(max(0.0, min(next_load, next_sample) - time.monotonic()))
    return found


def _sample(groups: Mapping[str, subprocess.Popen[bytes]], client: redis.Redis, url: str) -> dict[str, float]:
    for path in ("/metrics", "/"):
        with urllib.request.urlopen(url + path, timeout=30) as answer:  # noqa: S310 - our own, on loopback
            answer.read()
    found: dict[str, float] = {}
    for name, started in groups.items():
        if started.poll() is not None:
            raise click.ClickException(f"{name} ended with {started.returncode}")
        held = [_held(path) for path in _of_group(started.pid)]
        for number, unit in enumerate(("MB", "files", "threads")):
            found[f"{name}, {unit}"] = sum(each[number] for each in held)
    info: dict[str, Any] = client.info()
    found["Redis, MB"] = info["used_memory"] / 1e6
    found["Redis, connections"] = info["connected_clients"]
    found["Redis, keys"] = float(client.dbsize())
    return found


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:  # noqa: S310 - our own, on loopback
            return bool(answer.read())
    except OSError:
        return False


def _of_group(group: int) -> list[Path]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(") ")[2].split()[2]) == group:
                found.append(stat.parent)
    return found


def _held(path: Path) -> tuple[float, float, float]:
    """What a process holds: memory of its own and its share of what it shares (MB), open files, threads."""
    with suppress(OSError):
        memory = re.search(r"^Pss:\s+(\d+)", (path / "smaps_rollup").read_text(), re.MULTILINE)
        threads = re.search(r"^Threads:\s+(\d+)", (path / "status").read_text(), re.MULTILINE)
        if memory and threads:
            return int(memory[1]) / 1000, float(sum(1 for _ in (path / "fd").iterdir())), float(threads[1])
    return 0.0, 0.0, 0.0


def _drain(client: redis.Redis, environment: Mapping[str, str]) -> None:
    command = [str(OURS / "contact-sync"), "drain", "--timeout", str(int(_DRAIN_SECONDS))]
    ran = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise click.ClickException(f"not all was delivered: {ran.stdout}{ran.stderr}")
    if letters := [key for p in range(DEFAULT_PARTITIONS) if client.exists(key := Keys("contact-sync").dead(p))]:
        raise click.ClickException(f"there are dead letters in {', '.join(letters)}")


if __name__ == "__main__":
    main()
