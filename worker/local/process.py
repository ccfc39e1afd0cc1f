"""Starts processes that end when their owner ends, even if the owner is killed.

The demo, ``contact-sync up`` and the tests start a Redis, a worker and a stand-in endpoint. None of these may be left
running, not even after a SIGKILL of the owner. So each runs under a supervisor (:mod:`worker.local.supervisor`), which
notices that the owner is gone and ends it.
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

SUPERVISOR_START_SECONDS = 30.0
"""Longest wait for the supervisor to start the command. It takes 0.03 s on an idle machine."""

SUPERVISOR_MARGIN_SECONDS = 10.0
"""Time that the supervisor gets beyond the grace time, to kill the command and to remove directories."""


class ProcessStartError(RuntimeError):
    """The command could not be started. The message is one line that says why."""


class SupervisedProcess:
    """One command that runs from construction until :meth:`close`, until it ends, or until its owner ends.

    Its standard input is empty. It leads its own session, so Ctrl-C on the owner's terminal does not reach it: the
    owner decides when it ends.

    Attributes:
        pid: process id of the command itself.
        stdout: the command's standard output, if it was requested as ``subprocess.PIPE``; else None.
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
        """Starts the command and returns when it runs.

        Args:
            command: program and arguments. Every user of the machine can see them, so they must not hold secrets.
            env: its environment; None passes on the environment of this process.
            grace_seconds: time between SIGTERM and SIGKILL.
            remove: directories to remove, with their content, after the command has ended.
            hold: file descriptors that the supervisor keeps open until the command has ended, such as locks.
            stdout: where its standard output goes, as :class:`subprocess.Popen` takes it.
            stderr: where its standard error goes, likewise.

        Raises:
            ProcessStartError: the command cannot be run.
        """
        self._grace_seconds = grace_seconds
        self._remove = tuple(remove)
        self._channel, theirs = socket.socketpair()
        options = ["--parent", str(os.getpid()), "--grace-seconds", str(grace_seconds)]
        for directory in self._remove:
            options += ["--remove", str(directory)]
        with theirs:
            # By path, isolated and without site: nothing in the environment or the current directory can
            # change what the supervisor imports, and it starts in half the time.
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), *options, "--", *command],
                stdin=theirs.fileno(),
                stdout=stdout,
                stderr=stderr,
                env=env,
                pass_fds=tuple(hold),
                start_new_session=True,  # a signal to the owner's process group must not end the supervisor
            )
        self.stdout = self._supervisor.stdout
        self.stderr = self._supervisor.stderr
        self.pid = self._read_pid(command[0])

    def _read_pid(self, program: str) -> int:
        """Reads the supervisor's one line: the process id of the command, or why it cannot run."""
        self._channel.settimeout(SUPERVISOR_START_SECONDS)
        line = ""
        try:
            with suppress(OSError), self._channel.makefile("r") as lines:
                line = lines.readline().rstrip()
        finally:
            if not line.isdigit():  # also after Ctrl-C: the caller never gets this object, so nobody else closes it
                self.close()
        if not line.isdigit():
            raise ProcessStartError(line or f"cannot run {program}: its supervisor did not start")
        return int(line)

    def poll(self) -> int | None:
        """Returns the command's exit status as a shell reports it (128 plus a signal's number); None while it runs."""
        return self._supervisor.poll()

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Waits until the command has ended by itself and its directories are removed; returns its exit status.

        Raises:
            subprocess.TimeoutExpired: it did not end in this time.
        """
        return self._supervisor.wait(timeout_seconds)

    def close(self) -> None:
        """Ends the command and returns when it has ended. Further calls do nothing."""
        self._channel.close()
        try:
            self._supervisor.wait(self._grace_seconds + SUPERVISOR_MARGIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
        if self._supervisor.returncode == -signal.SIGKILL:  # it could not remove them itself
            for directory in self._remove:
                shutil.rmtree(directory, ignore_errors=True)
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def _kill(self) -> None:
        """Kills a supervisor that hangs, and the process group of its command."""
        self._supervisor.kill()
        # With a limit: an interrupt during an earlier wait can leave Popen's lock held forever.
        with suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(SUPERVISOR_MARGIN_SECONDS)
        with suppress(AttributeError, ProcessLookupError, PermissionError):  # no pid yet; no process left; a zombie
            os.killpg(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
