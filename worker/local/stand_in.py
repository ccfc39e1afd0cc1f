"""A stand-in endpoint in a process of its own that does not outlive us (:mod:`worker.local.process`)."""

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
"""Longest to wait for its URL; it takes half a second on an idle machine."""

GRACE_SECONDS: Final = 2.0
"""How long it may take to end: it keeps nothing, so nothing is lost with it."""


class SupervisedStandIn:
    """One stand-in endpoint on a free port of 127.0.0.1, as a context manager; it accepts the default key.

    Attributes:
        url: its base URL, for CONTACT_SYNC_ENDPOINT_URL.
        client: what controls it.
    """

    key_id: Final = DEFAULT_KEY
    key_secret: Final = DEFAULT_KEY

    def __enter__(self) -> Self:
        """Starts it, and returns when clients may connect.

        Raises:
            NotKeptError: it does not start.
        """
        with tempfile.TemporaryFile() as log:
            # -P: what lies in the current directory is never imported.
            command = [sys.executable, "-P", "-m", "worker.local.stand_in"]
            kept = SupervisedProcess(command, grace_seconds=GRACE_SECONDS, stdout=subprocess.PIPE, stderr=log)
            try:
                self.url = _first_line(kept, log)
            except BaseException:  # Ctrl-C too: nobody will hold it, so nobody else will close it
                kept.close()
                raise
        self._kept = kept
        self.client = StandInClient(self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()
        self._kept.close()


def _first_line(kept: SupervisedProcess, log: IO[bytes]) -> str:
    """Its URL, which is all it ever says on standard output."""
    assert kept.stdout is not None  # noqa: S101 - it was asked for as a pipe; this tells mypy so
    readable, _, _ = select.select([kept.stdout], [], [], START_SECONDS)
    line = os.read(kept.stdout.fileno(), 1024).decode().strip() if readable else ""
    if not line:
        raise ProcessStartError(f"the stand-in endpoint did not start: {last_line(log)}")
    return line


def main() -> None:
    """Serves one until SIGTERM; its first and only line on standard output is its URL."""
    from worker.standin.server import serve  # noqa: PLC0415 - whoever only starts one needs no web server in memory

    serve(port=0, announce=lambda url: print(url, flush=True))  # noqa: T201 - this line is what the owner waits for


if __name__ == "__main__":
    main()
