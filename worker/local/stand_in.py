"""Runs a stand-in endpoint in a process that ends with this one (:mod:`worker.local.process`)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Final, Self

from worker.local.process import ProcessStartError, SupervisedProcess
from worker.local.worker import last_line
from worker.standin.client import StandInClient
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from types import TracebackType

START_SECONDS: Final = 30.0
"""Longest wait for its URL. It takes half a second on an idle machine."""

GRACE_SECONDS: Final = 2.0
"""Time that it gets to end. It stores nothing, so a kill loses nothing."""


class SupervisedStandIn:
    """One stand-in endpoint on a free port of 127.0.0.1, as a context manager. It accepts the default key.

    Attributes:
        url: its base URL, for CONTACT_SYNC_ENDPOINT_URL.
        client: the client that controls it.
    """

    key_id: Final = DEFAULT_KEY
    key_secret: Final = DEFAULT_KEY

    def __enter__(self) -> Self:
        """Starts it, and returns when clients can connect.

        Raises:
            ProcessStartError: it does not start.
        """
        with tempfile.TemporaryFile() as log:
            # -P: modules in the current directory are never imported.
            command = [sys.executable, "-P", "-m", "worker.local.stand_in"]
            process = SupervisedProcess(command, grace_seconds=GRACE_SECONDS, stdout=subprocess.PIPE, stderr=log)
            try:
                self.url = _first_line(process, log)
            except BaseException:  # also Ctrl-C: the caller never gets this object, so nobody else closes it
                process.close()
                raise
        self._process = process
        self.client = StandInClient(self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()
        self._process.close()


def _first_line(process: SupervisedProcess, log: IO[bytes]) -> str:
    """Reads its URL, the only line that it writes to standard output."""
    assert process.stdout is not None  # noqa: S101 - it was requested as a pipe; this tells mypy
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = os.read(process.stdout.fileno(), 1024).decode().strip() if readable else ""
    if not line:
        raise ProcessStartError(f"the stand-in endpoint did not start: {last_line(log)}")
    return line


def main() -> None:
    """Serves a stand-in endpoint until SIGTERM. It writes one line to standard output: its URL."""
    from worker.standin.server import serve  # noqa: PLC0415 - the starting process needs no web server in memory

    serve(port=0, announce=lambda url: print(url, flush=True))  # noqa: T201 - the owner waits for this line


if __name__ == "__main__":
    main()
