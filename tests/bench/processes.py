"""Processes that a benchmark starts, what they cost, and their end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROJECT: Final = Path(__file__).parents[2]
OURS: Final = PROJECT / ".venv" / "bin"
PEERS: Final = PROJECT / ".venv" / "peers" / "bin"
ARQ: Final = PROJECT / ".venv" / "arq" / "bin"
"""arq wants redis before 6, which would hold back the others."""
BULLMQ: Final = PROJECT / ".venv" / "bullmq" / "node_modules"
"""The peers' own environment: arq and celery-batches want an older redis and Celery than ours."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str], directory: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """One process with its children, which are gone when the context ends."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            list(command),
            env={**inherited, **environment},
            cwd=directory or PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield started
            if started.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{command} ended by itself:\n{log.read().decode()[-4000:]}")
            if os.environ.get("BENCH_SHOW"):
                log.seek(0)
                print(log.read().decode()[-4000:])  # noqa: T201 - asked for
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def cpu_seconds(*groups: int) -> float:
    """Processor time of all processes of these groups so far, with the children that have ended."""
    return sum(sum(int(each) for each in fields[11:15]) for _, fields in _members(groups)) / _TICKS


def peak_megabytes(*groups: int) -> float:
    """The most memory that any process of these groups has held so far, in megabytes."""
    peaks = [0.0]
    for status, _ in _members(groups):
        with suppress(OSError):
            held = re.search(r"VmHWM:\s+(\d+) kB", status.with_name("status").read_text())
            peaks.append(int(held[1]) / 1024 if held else 0.0)
    return max(peaks)


def _members(groups: tuple[int, ...]) -> Iterator[tuple[Path, list[str]]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(") ")[2].split()
            if int(fields[2]) in groups:
                yield stat, fields


def urls(redis_url: str, endpoint_url: str) -> dict[str, str]:
    """Where Redis and the endpoint are, as our settings and the peers' name them; our broker has its own database."""
    return {
        "BENCH_REDIS_URL": redis_url,
        "BENCH_ENDPOINT_URL": endpoint_url,
        "CONTACT_SYNC_REDIS_URL": redis_url,
        "CONTACT_SYNC_BROKER_URL": redis_url.replace("/0", "/1"),
        "CONTACT_SYNC_ENDPOINT_URL": endpoint_url,
    }


class Endpoint:
    """The benchmark's endpoint, as its controls speak to it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def begin(self, latency_ms: float) -> None:
        """Forgets what came, and answers after so many milliseconds from now on."""
        self._get(f"/begin/{latency_ms}")

    def watch(self) -> None:
        """Keeps from now on how long ago each change was said."""
        self._get("/watch")

    def limit(self, rate: float) -> None:
        """Allows so many requests a second from now on; 0 for any number."""
        self._get(f"/limit/{rate}")

    def knee(self, requests: int) -> None:
        """Takes twice as long while more than so many requests are under way."""
        self._get(f"/knee/{requests}")

    def counts(self) -> dict[str, Any]:
        """What came since."""
        counted: dict[str, Any] = json.loads(self._get("/counts"))
        return counted

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:  # noqa: S310 - our own, on loopback
            body: bytes = answer.read()
            return body


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """The endpoint, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.endpoint"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        try:
            yield Endpoint(f"http://127.0.0.1:{int(started.stdout.readline())}")
        finally:
            started.kill()
