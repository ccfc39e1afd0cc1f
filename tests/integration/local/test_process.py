"""Processes that must not outlive their owner, with real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import runs
from worker.local.process import ProcessStartError, SupervisedProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.waiting import WaitUntil

FOREVER = "import signal\nwhile True: signal.pause()\n"

FINISHES_ON_SIGTERM = """
import os, signal, sys
# Not by print: a signal may come while the first line is written, and a buffer is not entered twice.
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"finished\\n"), sys.exit(0)))
os.write(1, b"started\\n")
while True: signal.pause()
"""

IGNORES_SIGTERM = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started", flush=True)
while True: signal.pause()
"""

WITH_A_CHILD = """
import os, signal
os.fork()
os.write(1, b"%d\\n" % os.getpid())  # in one piece, which print is not where Python runs unbuffered
while True: signal.pause()
"""

WAITS_FOR_ITS_CHILD_ON_SIGTERM = """
import os, signal, sys
reader, writer = os.pipe()
child = os.fork()
if not child:
    os.read(reader, 1)
    print("the child finished", flush=True)
    os._exit(0)
def stop(*_):
    os.write(writer, b"x")
    os.waitpid(child, 0)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("started", flush=True)
while True: signal.pause()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def next_line(process: SupervisedProcess) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@pytest.fixture
def doomed(tmp_path: Path) -> Path:
    """A directory with something in it, to be removed."""
    directory = tmp_path / "doomed"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "file").touch()
    return directory


def test_the_command_runs_with_the_environment_it_was_given() -> None:
    code = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}), os.environ['COLOUR'])"
    with SupervisedProcess(python(code), env={"COLOUR": "blue"}, stdout=subprocess.PIPE) as process:
        assert next_line(process) == "['COLOUR'] blue"


def test_its_process_id_is_known_and_it_leads_a_session_of_its_own() -> None:
    with SupervisedProcess(python("import os; print(os.getpid(), os.getsid(0))"), stdout=subprocess.PIPE) as process:
        assert next_line(process) == f"{process.pid} {process.pid}"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)", 130),
    ],
)
def test_an_end_of_its_own_is_reported_as_a_shell_does(code: str, status: int) -> None:
    with SupervisedProcess(python(code)) as process:
        assert process.wait(30) == status


def test_ctrl_c_means_to_it_what_it_means_to_any_program() -> None:
    with SupervisedProcess(
        python("import signal; print(signal.getsignal(2) is signal.default_int_handler)"), stdout=-1
    ) as process:
        assert next_line(process) == "True"


def test_closing_lets_it_finish_what_it_does() -> None:
    with SupervisedProcess(python(FINISHES_ON_SIGTERM), stdout=subprocess.PIPE) as process:
        assert next_line(process) == "started"
        assert process.stdout is not None
        stdout = os.dup(process.stdout.fileno())  # closing closes the first
    with os.fdopen(stdout) as rest:
        assert rest.read() == "finished\n"
    assert process.poll() == 0


def test_one_that_will_not_end_is_killed_after_the_grace_time() -> None:
    with SupervisedProcess(python(IGNORES_SIGTERM), grace_seconds=0.1, stdout=subprocess.PIPE) as process:
        assert next_line(process) == "started"
    assert process.poll() == 137
    assert not runs(process.pid)


def test_children_that_it_leaves_behind_are_killed(wait_until: WaitUntil) -> None:
    with SupervisedProcess(python(WITH_A_CHILD), stdout=subprocess.PIPE) as process:
        both = {int(next_line(process)), int(next_line(process))}
        assert process.pid in both
        assert all(map(runs, both))
    wait_until(lambda: not any(map(runs, both)), what="the command and its child are gone")


def test_children_are_left_to_the_command_to_end(tmp_path: Path, wait_until: WaitUntil) -> None:
    output = tmp_path / "output"
    with (
        output.open("wb") as stdout,
        SupervisedProcess(python(WAITS_FOR_ITS_CHILD_ON_SIGTERM), stdout=stdout) as process,
    ):
        wait_until(lambda: b"started" in output.read_bytes(), what="the command started")
        assert process.poll() is None
    assert output.read_text(encoding="utf-8") == "started\nthe child finished\n"


def test_its_directories_are_removed_when_it_is_closed(doomed: Path) -> None:
    with SupervisedProcess(python(FOREVER), remove=[doomed]):
        assert doomed.exists()
    assert not doomed.exists()


def test_its_directories_are_removed_when_it_ends_by_itself(doomed: Path) -> None:
    with SupervisedProcess(python("pass"), remove=[doomed]) as process:
        process.wait(30)
        assert not doomed.exists()


def test_closing_twice_is_as_closing_once() -> None:
    process = SupervisedProcess(python(FOREVER))
    process.close()
    process.close()
    assert process.poll() == 128 + signal.SIGTERM


def test_a_command_that_cannot_be_run_is_one_clear_line(tmp_path: Path, doomed: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(ProcessStartError) as raised:
        SupervisedProcess([missing], remove=[doomed])
    assert str(raised.value) == f"cannot run {missing}: No such file or directory"
    assert not doomed.exists()


def test_a_file_of_the_current_directory_cannot_pass_for_a_module_of_the_supervisors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('not the real one')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with SupervisedProcess(["/bin/sh", "-c", "exit 5"]) as process:
        assert process.wait(30) == 5
