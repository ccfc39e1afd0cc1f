"""Nothing is left of a supervised process if its owner, or its supervisor, is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import parent_of, runs
from worker.local.process import SupervisedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.waiting import WaitUntil

FOREVER = "import signal\nwhile True: signal.pause()\n"

OWNER = """
import os, signal, sys
from pathlib import Path
from worker.local.process import SupervisedProcess
# Not print: the signal may come while the line below is being printed, and a stream must not be entered twice.
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
process = SupervisedProcess([sys.executable, "-c", sys.argv[1]], remove=[Path(sys.argv[2])])
forked = os.fork() if "fork" in sys.argv else 0
if forked or "fork" not in sys.argv:
    os.write(1, f"{process.pid} {forked}\\n".encode())
while True: signal.sigtimedwait([], 0.1)  # a pause could miss the signal that comes just before it
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process whose parent was killed")


@contextmanager
def owner(directory: Path, *words: str, command: str = FOREVER) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that owns a supervised command, with the ids of the command and of its fork, if it forks."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, command, str(directory), *words],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a signal to its group does not reach the tests
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, [int(word) for word in process.stdout.readline().split()]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def doomed(tmp_path: Path) -> Path:
    """A directory with something in it, to be removed."""
    directory = tmp_path / "doomed"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "file").touch()
    return directory


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_when_the_owner_is_killed(number: signal.Signals, doomed: Path, wait_until: WaitUntil) -> None:
    with owner(doomed) as (process, (command, _)):
        assert runs(command)
        process.send_signal(number)
        wait_until(lambda: not runs(command), what="the command is gone")
        wait_until(lambda: not doomed.exists(), what="the directory is gone")


def test_nothing_is_left_when_the_owner_is_killed_and_its_forks_live_on(doomed: Path, wait_until: WaitUntil) -> None:
    with owner(doomed, "fork") as (process, (command, forked)):
        try:
            process.kill()
            wait_until(lambda: not runs(command), what="the command is gone")
            wait_until(lambda: not doomed.exists(), what="the directory is gone")
            assert runs(forked)
        finally:
            os.kill(forked, signal.SIGKILL)


def test_nothing_is_left_when_the_owners_whole_process_group_is_killed(doomed: Path, wait_until: WaitUntil) -> None:
    with owner(doomed) as (process, (command, _)):
        os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: not runs(command), what="the command is gone")
        wait_until(lambda: not doomed.exists(), what="the directory is gone")


def test_ctrl_c_on_the_owner_leaves_the_command_to_the_owner(doomed: Path) -> None:
    with owner(doomed) as (process, (command, _)):
        assert process.stdout is not None
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert runs(command)
        assert doomed.exists()


@linux_only
def test_the_command_goes_with_a_supervisor_that_is_killed(doomed: Path, wait_until: WaitUntil) -> None:
    with SupervisedProcess([sys.executable, "-c", FOREVER], remove=[doomed]) as process:
        os.kill(parent_of(process.pid), signal.SIGKILL)
        wait_until(lambda: not runs(process.pid), what="the command is gone")
    assert not doomed.exists()
