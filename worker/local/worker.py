"""Runs a worker as users start one, in a process that ends with this one (:mod:`worker.local.process`)."""

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
"""The variables of our environment that a supervised worker gets. All others stay out, because Celery's variables, such
as CELERY_BROKER_URL, BROKER_URL or CONFIG_MODULE, decide where a worker connects just as CONTACT_SYNC_ variables do."""

MARGIN_SECONDS: Final = 10.0
"""Time that a worker gets to end before it is killed, on top of the timeout of its current request."""


def environment_of(settings: WorkerSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment for a process that must use exactly these settings.

    Args:
        settings: the settings; relative paths are made absolute.
        environ: our own environment, from which it gets only what every program needs.
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
    """One Celery worker that runs from construction until :meth:`close`, :meth:`kill`, its own end, or ours.

    Its current directory is new and empty, and is removed with it. So a `.env` file or a module called `worker` in our
    current directory cannot change what it does.

    Attributes:
        pid: process id of the worker.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        log: IO[bytes] | None = None,
        grace_seconds: float | None = None,
    ) -> None:
        """Starts it, and returns before it is ready.

        Args:
            settings: its settings.
            log: file that takes all its output; None passes its log on to our standard error.
            grace_seconds: time to finish its request after :meth:`close` or after we are gone; None gives it time
                for a whole request.

        Raises:
            ProcessStartError: it cannot be started.
        """
        directory = Path(tempfile.mkdtemp(prefix="contact-sync-worker-"))
        # -P: modules in the current directory are never imported, not even before Celery changes the directory.
        command = [sys.executable, "-P", "-m", "celery", "-A", "worker", "--workdir", str(directory), "worker"]
        # One thread takes hints; the requests under way have threads of their own, as many as the endpoint takes.
        options = ["-P", "threads", "-c", "1", "-n", f"{directory.name}@%h", "--loglevel", "WARNING"]
        self._process = SupervisedProcess(
            [*command, *options],
            env=environment_of(settings, os.environ),
            grace_seconds=settings.request_timeout_seconds + MARGIN_SECONDS if grace_seconds is None else grace_seconds,
            remove=[directory],
            stdout=subprocess.DEVNULL if log is None else log,  # Celery's banner
            stderr=log,
        )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Returns its exit status as a shell reports it; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Kills it with SIGKILL, and returns when it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.close()

    def close(self) -> None:
        """Lets it finish its current request, and returns when it has ended."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_line(log: IO[bytes]) -> str:
    """Returns the last line of a process's log, without moving the file's position."""
    text = os.pread(log.fileno(), 64 * 1024, max(0, os.fstat(log.fileno()).st_size - 64 * 1024))
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"
