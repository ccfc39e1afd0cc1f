"""Runs one command and sees to it that the command does not outlive whoever asked for it.

A script of its own (see :mod:`worker.local.process` for the side that starts it), because only another
process can clean up after one that was killed with SIGKILL. It imports nothing but the standard
library, and little of that, so that it is up in a few hundredths of a second.

    keeper.py --parent PID --grace-seconds S [--remove DIR]... -- COMMAND [ARGUMENT]...

Standard input is a socket whose other end the parent holds. The keeper writes one line on it, the
command's process id or why there is none, and reads only to learn of its end: the kernel closes the
parent's end however the parent goes. Then the command gets SIGTERM, after the grace time its whole
process group SIGKILL, and the directories are removed. The exit status is the command's, or 128 plus
the signal's number, as a shell reports it.
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
"""How often to look whether the parent still is: a fork of it may hold the channel open after its death."""

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that the kernel sends a process whose parent died."""

COMMAND_NOT_RUN = 127
"""Exit status for a command that cannot be run, as a shell gives it."""


def main(arguments: list[str]) -> int:
    """Keeps one command until it ends, the parent goes, or SIGTERM asks.

    Args:
        arguments: the command line, as the module's docstring has it.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="keeper", allow_abbrev=False)
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
    """Makes signals readable, so that one ``select`` waits for everything.

    Returns:
        The file descriptor that yields one byte, its number, per signal.
    """
    # Handlers that do nothing, not SIG_IGN: being ignored is inherited through exec, so the command
    # would be deaf to Ctrl-C too. What Ctrl-C or a closed terminal mean is the parent's to decide.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Starts the command as the leader of its own session, and so of its own process group.

    Raises:
        OSError: the command cannot be run.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - unsafe beside threads; the keeper has none
    )


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Makes what asks the kernel to kill the command when the keeper dies, or None where it cannot.

    Only Linux can. Elsewhere (macOS) a keeper that is itself killed with SIGKILL leaves its command behind.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: the child then does one system call

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the keeper died between fork and prctl: no signal will come
            os._exit(COMMAND_NOT_RUN)

    return in_child


def tell_parent(line: str) -> None:
    """Writes the command's process id on the channel, or why there is none."""
    # A parent that is gone already is no error: the next read of the channel says so and everything ends.
    with suppress(OSError):
        os.write(CHANNEL, f"{line}\n".encode())


def wait_for_an_end(child: subprocess.Popen[bytes], parent: int, wakeup: int) -> None:
    """Returns when the command ended by itself, the parent is gone, or SIGTERM came."""
    while child.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([CHANNEL, wakeup], [], [], PARENT_CHECK_SECONDS)
        if CHANNEL in readable and not read(CHANNEL):
            return
        if wakeup in readable and signal.SIGTERM in read(wakeup):
            return


def read(descriptor: int) -> bytes:
    """Reads what is there; nothing, if the other end is closed or was torn down."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def end(child: subprocess.Popen[bytes], grace_seconds: float, wakeup: int) -> None:
    """Ends the command: SIGTERM to it, then SIGKILL to whatever is left of its process group.

    SIGTERM goes to the leader alone: it ends its children in its own order (a Celery worker that
    forks lets them finish their tasks, while SIGTERM would kill them in the middle).
    """
    deadline = time.monotonic() + grace_seconds
    child.send_signal(signal.SIGTERM)  # does nothing to a command that has ended
    while child.poll() is None and (remaining := deadline - time.monotonic()) > 0:
        select.select([wakeup], [], [], remaining)
        read(wakeup)
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says the latter of a zombie
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def remove(directories: list[str]) -> None:
    """Removes directories and all they hold; one that is gone already is as good."""
    import shutil  # noqa: PLC0415 - it brings in every compressor there is: not before the command runs

    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
