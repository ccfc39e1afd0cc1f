"""`contact-sync erase` while everything else goes on: in processes that are called again until they are done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.soak.traffic import PEOPLE
from worker.local.worker import environment_of

if TYPE_CHECKING:
    from tests.soak.homes import On
    from worker.config.settings import WorkerSettings

WAIT_SECONDS: Final = 20
"""How long one call waits for the endpoint."""

PAUSE_SECONDS: Final = 0.5
"""Time between two calls."""

CONTACT_SYNC: Final = Path(sys.executable).with_name("contact-sync")

UNKNOWN: Final = "nothing is stored about this user"
"""What it says of somebody that nobody has said anything of lately."""

_FORGOTTEN: Final = re.compile(r"confirmed before (\S+), and not since")


@dataclass(slots=True)
class Erasure:
    """One of them.

    Attributes:
        user: who is erased.
        begun, ended: monotonic seconds; ended is None until it is done.
        calls: how often it was called.
        said: the receipt; empty until it is done.
        failed: what the last call said that was not the end.
    """

    user: str
    begun: float
    ended: float | None = None
    calls: int = 0
    said: dict[str, Any] = field(default_factory=dict)
    failed: str = ""

    @property
    def begun_ms(self) -> int:
        """When the user was suppressed (Unix ms)."""
        return _ms(self.said["begun_at"])

    @property
    def forgotten_ms(self) -> int:
        """What was confirmed before this and not since may be forgotten (Unix ms); 0 if nothing is."""
        found = next((found for each in self.said["uncertain"] if (found := _FORGOTTEN.search(each))), None)
        return 0 if found is None else _ms(found[1])


class Erasures:
    """The erasures of a soak.

    Args:
        settings: what they work with.
        directory: where their processes run.
        on: where the log lives: where a failover may lose who is suppressed, it waits for a replica.

    Attributes:
        every: all that were begun.
    """

    def __init__(self, settings: WorkerSettings, directory: Path, on: On) -> None:
        self.every: list[Erasure] = []
        self._environment = environment_of(settings, os.environ)
        if on != "redis" and not settings.wait_replicas:
            self._environment["CONTACT_SYNC_WAIT_REPLICAS"] = "1"
        self._directory = directory
        self._left = {kind: list(people) for kind, people in PEOPLE.items()}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()

    def begin(self, kind: str) -> Erasure | None:
        """Begins to erase the next person of a kind, in a thread; None if all of them are erased."""
        if not self._left[kind]:
            return None
        erasure = Erasure(self._left[kind].pop(0), time.monotonic())
        self.every.append(erasure)
        self.call(erasure)
        return erasure

    def call(self, erasure: Erasure) -> None:
        """Calls for it, and again until it is done; a second time beside the first if it is called for twice."""
        thread = threading.Thread(target=self._run, args=(erasure,), name=f"erases {erasure.user}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def kill(self, erasure: Erasure) -> None:
        """Kills what works on it just now; it is called again."""
        with self._lock:
            process = self._running.get(id(erasure))
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)

    def finish(self, seconds: float) -> None:
        """Waits until all are done, for so long at most."""
        ends = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        self._stop.set()
        for each in self.every:
            self.kill(each)

    def _run(self, erasure: Erasure) -> None:
        while not self._stop.is_set():
            erasure.calls += 1
            said, failed, status = self._call(erasure)
            if status == 0:
                erasure.said = json.loads(said)
                erasure.ended = erasure.ended or time.monotonic()
                return
            erasure.failed = f"status {status}: {(failed.strip().splitlines() or ['?'])[-1]}"
            if UNKNOWN in failed and not erasure.said:
                return
            self._stop.wait(PAUSE_SECONDS)

    def _call(self, erasure: Erasure) -> tuple[str, str, int]:
        command = [str(CONTACT_SYNC), "erase", erasure.user, "--wait", str(WAIT_SECONDS), "--json"]
        with subprocess.Popen(
            command,
            env=self._environment,
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            with self._lock:
                self._running[id(erasure)] = process
            said, failed = process.communicate()
        return said, failed, process.returncode


def _ms(time_iso: str) -> int:
    return int(datetime.fromisoformat(time_iso).timestamp() * 1000)
