"""A worker as its users start one, in a process of its own that does not outlive us (:mod:`worker.local.process`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from pydantic import SecretStr

from producers.settings import variable_of
from worker.local.process import SupervisedProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.config.settings import WorkerSettings

PASSED_ON: Final = ("HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV")
PASSED_ON_PREFIXES: Final = ("LC_", "LD_", "DYLD_", "PYTHON", "SSL_CERT_")
"""What of our environment a kept worker gets. All else stays behind: not only CONTACT_SYNC_ variables decide where a
worker connects, but also Celery's own, such as CELERY_BROKER_URL, BROKER_URL or CONFIG_MODULE."""

MARGIN_SECONDS: Final = 10.0
"""What a worker may take to end before it is killed, beside the time of the request that it has in hand."""


def environment_of(settings: WorkerSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that is to work with exactly these settings.

    Args:
        settings: what it is to work with; a path among them is made absolute.
        environ: ours, of which it gets what any program needs.
    """
    variables = {
        name: value for name, value in environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, Path):
            value = value.absolute()
        if value is not None:
            variables[variable_of(field)] = str(value)
    return variables


class SupervisedWorker:
    """One Celery worker, from construction until :meth:`close`, :meth:`kill`, its own end, or ours.

    Its current directory is a new and empty one, which goes with it: whatever lies in ours, a `.env` or a module that
    happens to be called `worker`, is none of its business.

    Attributes:
        pid: process id of the worker.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        concurrency: int = 8,
        log: IO[bytes] | None = None,
        grace_seconds: float | None = None,
    ) -> None:
        """Starts it, and returns before it is ready.

        Args:
            settings: what it works with.
            concurrency: how many threads it has.
            log: file that takes all it says; None passes its log on to our standard error.
            grace_seconds: how long it may take to finish what it sends, once it is closed or we are gone; None gives
                it time for a whole request.

        Raises:
            NotKeptError: it cannot be started.
        """
        directory = Path(tempfile.mkdtemp(prefix="contact-sync-worker-"))
        # -P: what lies in the current directory is never imported, not even before Celery changes to another.
        command = [sys.executable, "-P", "-m", "celery", "-A", "worker", "--workdir", str(directory), "worker"]
        options = ["-P", "threads", "-c", str(concurrency), "-n", f"{directory.name}@%h", "--loglevel", "WARNING"]
        self._kept = SupervisedProcess(
            [*command, *options],
            env=environment_of(settings, os.environ),
            grace_seconds=settings.request_timeout_seconds + MARGIN_SECONDS if grace_seconds is None else grace_seconds,
            remove=[directory],
            stdout=subprocess.DEVNULL if log is None else log,  # Celery's banner
            stderr=log,
        )
        self.pid = self._kept.pid

    def poll(self) -> int | None:
        """Its exit status, as a shell has it; None while it runs."""
        return self._kept.poll()

    def kill(self) -> None:
        """Kills it with SIGKILL, in the middle of whatever it does, and returns once it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self._kept.close()

    def close(self) -> None:
        """Lets it finish what it sends, and returns once it has ended."""
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_line(log: IO[bytes]) -> str:
    """The last thing that was written to a process' log, without moving the place that it writes at."""
    text = os.pread(log.fileno(), 64 * 1024, max(0, os.fstat(log.fileno()).st_size - 64 * 1024))
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
