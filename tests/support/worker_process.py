"""Worker processes as their users start them: `celery -A worker worker`, or `contact-sync worker`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from tests.support.fleet import Fleet

THREADS = ("-P", "threads", "-c", "8")
PREFORK = ("-P", "prefork", "-c", "2")

CELERY = (sys.executable, "-m", "celery", "-A", "worker", "worker", "-l", "INFO")
CONTACT_SYNC = (str(Path(sys.executable).with_name("contact-sync")), "worker")

PROCESS: dict[str, Any] = {
    "linger_seconds": 0.05,
    "request_timeout_seconds": 1.0,
    "lease_seconds": 2.0,
    "late_seconds": 1.0,
}
"""Room for a process that is scheduled late, on top of the quick settings."""

GRACE_SECONDS = 20.0
"""Longest that a worker may take to end."""


def broker_url(redis_url: str) -> str:
    """Another database of the same server, so that the broker can be flushed alone."""
    return redis_url.replace("db=0", "db=1")


def wait_until_delivered(fleet: Fleet, seconds: float = 30.0) -> None:
    wait_until(lambda: not fleet.waits() and not fleet.leases(), seconds=seconds, what="everything is delivered")


class WorkerProcess:
    """One worker process, with its children, which are gone when the context ends.

    Args:
        environment: its settings; of this process' own environment it gets what a shell needs.
        directory: where it runs and writes what it says.
        options: for `celery worker`, such as the pool.
        command: what starts it.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        directory: Path,
        options: tuple[str, ...] = THREADS,
        command: tuple[str, ...] = CELERY,
    ) -> None:
        self._environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment |= environment
        self._directory = directory
        self._command = (*command, *options)

    def __enter__(self) -> Self:
        self._directory.mkdir(exist_ok=True)
        self._log = self._directory / f"worker-{len(list(self._directory.glob('worker-*')))}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its children are in its process group, so that all can be ended at once
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if kind is not None:
            print(self.said())  # noqa: T201 - shown by pytest with the failure

    def said(self) -> str:
        """All that it wrote to standard output and standard error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self) -> Self:
        """Returns when it takes tasks."""
        wait_until(
            lambda: " ready." in self.said() or self.process.poll() is not None, seconds=30, what="the worker is ready"
        )
        assert self.process.poll() is None, self.said()
        return self

    def children(self) -> list[int]:
        """Process ids of its children, such as those of a prefork pool; Linux only."""
        pid = self.process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in listed.split()]

    def end(self) -> int:
        """Asks it to end, as a service manager does, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.exit_status()

    def signal_all(self, number: int) -> None:
        """Sends a signal to it and its children, as a terminal does."""
        os.killpg(self.process.pid, number)

    def insist(self, number: int) -> int:
        """Sends a signal again and again, as an impatient person does, and returns its exit status."""

        def ended() -> bool:
            self.process.send_signal(number)  # does nothing to one that has ended
            return self.process.poll() is not None

        wait_until(ended, seconds=GRACE_SECONDS, what="the worker has ended")
        return self.exit_status()

    def exit_status(self) -> int:
        """Its exit status, once it has ended."""
        try:
            return self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended after {GRACE_SECONDS:g} seconds: {self.said()[-3_000:]}") from None

    def kill(self) -> None:
        """Ends it and its children at once, in the middle of whatever they do."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(GRACE_SECONDS)
