"""Processes that end when their owner does, however that happens.

The demo, ``contact-sync up`` and the tests start a Redis, a worker and a stand-in beside
themselves. None of these may be left running, not even after a SIGKILL of the owner, so each runs
under a keeper (:mod:`worker.local.supervisor`), which the owner's death tells to end it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUPERVISOR = Path(__file__).with_name("supervisor.py")

KEEPER_START_SECONDS = 30.0
"""Longest to wait for the keeper to have started the command; it takes 0.03 s on an idle machine."""

KEEPER_MARGIN_SECONDS = 10.0
"""What the keeper may take beyond the grace time, for the kill and the removal of directories."""


class ProcessStartError(RuntimeError):
    """The command could not be started; the message is one line that says why."""


class SupervisedProcess:
    """One command, running from construction until :meth:`close`, its own end, or the owner's.

    Its standard input is empty. It leads a session of its own, so Ctrl-C on the owner's terminal
    does not reach it: the owner decides when it ends.

    Attributes:
        pid: process id of the command itself.
        stdout: the command's standard output, if it was asked for as ``subprocess.PIPE``.
        stderr: the command's standard error, likewise.
    """

    def __init__(  # noqa: PLR0913 - what a process start takes; all but the command have defaults
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        grace_seconds: float = 10.0,
        remove: Sequence[Path] = (),
        hold: Sequence[int] = (),
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> None:
        """Starts the command and returns once it runs.

        Args:
            command: program and arguments; visible to every user of the machine, so no secrets.
            env: its environment; this process's own if None.
            grace_seconds: how long it may take to end after SIGTERM, before SIGKILL.
            remove: directories to remove, with all they hold, once it has ended.
            hold: file descriptors that the keeper keeps open until it has ended, for instance locks.
            stdout: where its standard output goes, as :class:`subprocess.Popen` takes it.
            stderr: where its standard error goes, likewise.

        Raises:
            NotKeptError: the command cannot be run.
        """
        self._grace_seconds = grace_seconds
        self._remove = tuple(remove)
        self._channel, theirs = socket.socketpair()
        options = ["--parent", str(os.getpid()), "--grace-seconds", str(grace_seconds)]
        for directory in self._remove:
            options += ["--remove", str(directory)]
        with theirs:
            # By path, isolated and without site: nothing in the environment or the current directory can
            # change what the keeper imports, and it starts in half the time.
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), *options, "--", *command],
                stdin=theirs.fileno(),
                stdout=stdout,
                stderr=stderr,
                env=env,
                pass_fds=tuple(hold),
                start_new_session=True,  # a signal to the owner's process group must not take the keeper with it
            )
        self.stdout = self._keeper.stdout
        self.stderr = self._keeper.stderr
        self.pid = self._read_pid(command[0])

    def _read_pid(self, program: str) -> int:
        """Reads the keeper's one line: the process id of the command, or why there is none."""
        self._channel.settimeout(KEEPER_START_SECONDS)
        line = ""
        try:
            with suppress(OSError), self._channel.makefile("r") as lines:
                line = lines.readline().rstrip()
        finally:
            if not line.isdigit():  # Ctrl-C too: nobody will hold this object, so nobody else will close it
                self.close()
        if not line.isdigit():
            raise ProcessStartError(line or f"cannot run {program}: its keeper did not start")
        return int(line)

    def poll(self) -> int | None:
        """Exit status of the command, as a shell has it (128 plus the signal's number); None while it runs."""
        return self._keeper.poll()

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Waits until the command ended by itself and its directories are removed.

        Raises:
            subprocess.TimeoutExpired: it has not ended in that time.
        """
        return self._keeper.wait(timeout_seconds)

    def close(self) -> None:
        """Ends the command and returns when it has ended; may be called again."""
        self._channel.close()
        try:
            self._keeper.wait(self._grace_seconds + KEEPER_MARGIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
        if self._keeper.returncode == -signal.SIGKILL:  # it did not come to this itself
            for directory in self._remove:
                shutil.rmtree(directory, ignore_errors=True)
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def _kill(self) -> None:
        """Ends a keeper that hangs, and the process group it keeps, at once."""
        self._keeper.kill()
        # With a limit: an interrupt in the middle of an earlier look at it can have left its lock held for ever.
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(KEEPER_MARGIN_SECONDS)
        with suppress(AttributeError, ProcessLookupError, PermissionError):  # no pid yet; nobody left; a zombie
            os.killpg(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
