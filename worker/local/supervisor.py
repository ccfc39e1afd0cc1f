"""Runs one command and ends it when its parent is gone.

This is a separate script, started by :mod:`worker.local.process`, because only another process can clean up after one
that was killed with SIGKILL. It imports only a little of the standard library, so it starts in a few hundredths of a
second.

    supervisor.py --parent PID --grace-seconds S [--remove DIR]... -- COMMAND [ARGUMENT]...

Standard input is a socket; the parent holds the other end. The supervisor writes one line on it: the command's process
id, or why the command cannot run. It reads only to notice the end: the kernel closes the parent's end, however the
parent ends. Then the command gets SIGTERM, its whole process group gets SIGKILL after the grace time, and the
directories are removed. The exit status is the command's, or 128 plus the signal's number, as a shell reports it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable  # noqa: TC003 - loaded at start anyway, and `typing` is not
from contextlib import suppress

CHANNEL = 0
"""File descriptor of the socket shared with the parent: standard input."""

PARENT_CHECK_SECONDS = 0.5
"""How often to check that the parent still runs: after its death, a fork of it may hold the channel open."""

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: sets the signal that the kernel sends to a process whose parent has died."""

COMMAND_NOT_RUN = 127
"""Exit status if the command cannot be run, as in a shell."""


def main(arguments: list[str]) -> int:
    """Runs one command until it ends, the parent ends, or SIGTERM arrives.

    Args:
        arguments: the command line, as described in the module's docstring.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="supervisor", allow_abbrev=False)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--grace-seconds", type=float, required=True)
    parser.add_argument("--remove", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)

    wakeup = wake_on_signals()
    try:
        child = start(options.command)
    except OSError as error:
        tell_parent(f"cannot run {options.command[0]}: {error.strerror}")
        remove(options.remove)
        return COMMAND_NOT_RUN
    tell_parent(str(child.pid))
    wait_for_an_end(child, options.parent, wakeup)
    end(child, options.grace_seconds, wakeup)
    remove(options.remove)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def wake_on_signals() -> int:
    """Turns signals into readable bytes, so that one ``select`` waits for everything.

    Returns:
        The file descriptor that yields one byte for each signal: its number.
    """
    # Handlers that do nothing instead of SIG_IGN: the command would inherit SIG_IGN through exec and ignore
    # Ctrl-C too. The parent decides what Ctrl-C or a closed terminal means.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Starts the command as the leader of its own session and process group.

    Raises:
        OSError: the command cannot be run.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - unsafe beside threads; the supervisor has none
    )


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Returns a function that makes the kernel kill the command if the supervisor dies; None if the kernel cannot.

    Only Linux can. On macOS, a supervisor that is itself killed with SIGKILL leaves its command behind.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, so that the child makes just one system call

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the supervisor died between fork and prctl: no signal will come
            os._exit(COMMAND_NOT_RUN)

    return in_child


def tell_parent(line: str) -> None:
    """Writes the command's process id on the channel, or why the command cannot run."""
    # It is not an error if the parent is gone already: the next read of the channel notices it and everything ends.
    with suppress(OSError):
        os.write(CHANNEL, f"{line}\n".encode())


def wait_for_an_end(child: subprocess.Popen[bytes], parent: int, wakeup: int) -> None:
    """Returns when the command has ended, the parent is gone, or SIGTERM has arrived."""
    while child.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([CHANNEL, wakeup], [], [], PARENT_CHECK_SECONDS)
        if CHANNEL in readable and not read(CHANNEL):
            return
        if wakeup in readable and signal.SIGTERM in read(wakeup):
            return


def read(descriptor: int) -> bytes:
    """Reads what is available; returns nothing if the other end is closed or reset."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def end(child: subprocess.Popen[bytes], grace_seconds: float, wakeup: int) -> None:
    """Ends the command: SIGTERM to the command, then SIGKILL to what is left of its process group.

    Only the leader gets SIGTERM, because it ends its children in its own order: a Celery worker with child processes
    lets them finish their tasks, but a SIGTERM to them would kill them in the middle of a task.
    """
    deadline = time.monotonic() + grace_seconds
    child.send_signal(signal.SIGTERM)  # has no effect if the command has ended
    while child.poll() is None and (remaining := deadline - time.monotonic()) > 0:
        select.select([wakeup], [], [], remaining)
        read(wakeup)
    with suppress(ProcessLookupError, PermissionError):  # no process is left; macOS raises PermissionError for a zombie
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def remove(directories: list[str]) -> None:
    """Removes directories with their content; it is not an error if one is gone already."""
    import shutil  # noqa: PLC0415 - it imports every compression module: not before the command runs

    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
