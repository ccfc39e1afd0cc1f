"""A system that is kept up on this machine: it delivers, goes on with its data, and ends without a trace."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import pytest
import redis

from producers import ContactProducer
from tests.support.processes import parent_of, runs
from worker.standin.client import StandInClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.waiting import WaitUntil

MAIN = "from worker.cli.main import main; main()"
UP = [sys.executable, "-P", "-c", "from worker.cli.up import up; up()"]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")


class Running(NamedTuple):
    """What an `up` that runs said of itself."""

    process: subprocess.Popen[str]
    redis_url: str
    endpoint_url: str
    shown: str


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where its temporary files go; with a short path, so that sockets fit in. A Redis may still write as it ends."""
    with tempfile.TemporaryDirectory(prefix="cs-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@contextmanager
def running(temporary: Path, *options: str, **variables: str) -> Iterator[Running]:
    """An `up` that has said what it runs."""
    environ = {**os.environ, "TMPDIR": str(temporary), **variables}
    with subprocess.Popen([*UP, *options], cwd=temporary, env=environ, stdout=-1, stderr=-1, text=True) as process:
        try:
            shown = read_announcement(process.stdout)
            redis_url, endpoint_url = re.findall(r"^(?:Redis|endpoint) +(\S+)", shown, re.MULTILINE)
            yield Running(process, redis_url, endpoint_url, shown)
        finally:
            process.kill()


def read_announcement(lines: IO[str] | None) -> str:
    assert lines is not None
    shown = ""
    for line in lines:
        shown += line
        if line.startswith("Ctrl-C"):
            break
    return shown


def descendants(pid: int) -> list[int]:
    """Every process below this one; Linux only."""
    others = [int(process.name) for process in Path("/proc").glob("[0-9]*")]
    children = [other for other in others if runs(other) and parent_of(other) == pid]
    return children + [further for child in children for further in descendants(child)]


def deliver(to: Running, contact: str, wait_until: WaitUntil) -> None:
    """Produces a change, and waits until the stand-in holds it."""
    with ContactProducer(to.redis_url) as contacts, StandInClient(to.endpoint_url) as stand_in:
        contacts.upsert("1", contact)
        wait_until(lambda: ("1", contact) in stand_in.contacts(), seconds=30, what="the change is delivered")


def events_of(url: str) -> int:
    """How many events were read since the data began."""
    with redis.Redis.from_url(url) as client:
        found = [client.hget(f"contact-sync:{{{partition}}}:totals", "events") for partition in range(64)]
    return sum(int(number) for number in found if isinstance(number, bytes))


def test_what_is_produced_to_it_is_delivered_and_it_goes_on_with_its_data(
    temporary: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    options = ("--stand-in", "--data", str(tmp_path / "data"))
    for contacts, before in ((["2", "3"], 0), (["4"], 2)):
        with running(temporary, *options) as up:
            assert f"CONTACT_SYNC_REDIS_URL='{up.redis_url}' contact-sync status" in up.shown
            assert events_of(up.redis_url) == before
            for contact in contacts:
                deliver(up, contact, wait_until)
            url, wanted = up.redis_url, before + len(contacts)
            wait_until(lambda: events_of(url) == wanted, what="all is settled")  # noqa: B023 - asked at once
            up.process.send_signal(signal.SIGINT)
            _, stderr = up.process.communicate(timeout=60)
        assert up.process.returncode == 130
        assert "Traceback" not in stderr
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("options", [(), ("--tcp",)])
def test_a_change_that_waited_is_delivered_after_a_restart_at_the_same_url(
    temporary: Path, wait_until: WaitUntil, options: tuple[str, ...]
) -> None:
    away = {"CONTACT_SYNC_ENDPOINT_URL": "http://127.0.0.1:1", "CONTACT_SYNC_BACKOFF_MAX_SECONDS": "0.5"}
    key = {"CONTACT_SYNC_SERVER_KEY_ID": "id", "CONTACT_SYNC_SERVER_KEY_SECRET": "secret"}
    options = ("--data", "data", *options)
    with running(temporary, *options, **away, **key) as first:
        with ContactProducer(first.redis_url) as contacts:
            contacts.upsert("1", "2")
        wait_until(lambda: events_of(first.redis_url) == 1, seconds=30, what="the worker has read the change")
        first.process.send_signal(signal.SIGINT)
        first.process.wait(60)
    with running(temporary, *options, "--stand-in") as second, StandInClient(second.endpoint_url) as stand_in:
        assert second.redis_url == first.redis_url
        wait_until(lambda: stand_in.contacts() == {("1", "2")}, seconds=30, what="what waited is delivered")


@pytest.mark.parametrize("own", [{"CONTACT_SYNC_NAMESPACE": "my-own", "CONTACT_SYNC_PARTITIONS": "8"}, {}])
def test_its_settings_for_a_shell_lead_every_command_to_what_it_started(
    temporary: Path, wait_until: WaitUntil, own: dict[str, str]
) -> None:
    other_key = {"CONTACT_SYNC_SERVER_KEY_ID_FILE": "other", "CONTACT_SYNC_SERVER_KEY_SECRET_FILE": "other"}
    other = {"CONTACT_SYNC_BROKER_URL": "redis://127.0.0.1:1", "CONTACT_SYNC_ENDPOINT_URL": "http://127.0.0.1:1"}
    other["CONTACT_SYNC_NAMESPACE"] = "other"
    with running(temporary, "--stand-in", **own) as up, StandInClient(up.endpoint_url) as stand_in:
        (line,) = re.findall(r"^settings: (\. .+)$", up.shown, re.MULTILINE)

        def in_shell(command: str) -> subprocess.CompletedProcess[str]:
            program = "contact_sync() { " + shlex.join([sys.executable, "-P", "-c", MAIN]) + ' "$@"; }'
            script = f"{program}\n{line}\n{command}"
            environ = {**os.environ, **other_key, **other}
            return subprocess.run(
                ["sh", "-c", script], env=environ, cwd="/", capture_output=True, text=True, timeout=60, check=False
            )

        file = Path(shlex.split(line)[1])
        assert file.stat().st_mode & 0o077 == 0
        checked = in_shell("contact_sync check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert f"{up.endpoint_url}" in checked.stdout
        emitted = in_shell("""echo '{"owner": "1", "contact": "2", "op": "upsert"}' | contact_sync emit""")
        assert emitted.returncode == 0, emitted.stderr
        wait_until(lambda: stand_in.contacts() == {("1", "2")}, seconds=30, what="the change is delivered")
        up.process.send_signal(signal.SIGINT)
        up.process.wait(60)
    assert not file.exists()


def test_a_path_too_long_for_a_socket_is_said_and_works_all_the_same(temporary: Path, wait_until: WaitUntil) -> None:
    with running(temporary, "--stand-in", "--data", "d" * 100) as up:
        deliver(up, "2", wait_until)
        up.process.send_signal(signal.SIGINT)
        _, stderr = up.process.communicate(timeout=60)
    assert stderr.startswith("contact-sync: the path of --data is too long")


def test_a_port_that_was_taken_meanwhile_is_one_line_with_what_to_do(temporary: Path) -> None:
    (temporary / "data").mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (temporary / "data" / "contact-sync.port").write_text(f"{other.getsockname()[1]}\n")
        run = subprocess.run(
            [*UP, "--stand-in", "--tcp", "--data", "data"],
            cwd=temporary,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 1
    assert re.fullmatch(r"contact-sync: .* on port \d+ .*; stop the program on that port, or remove .*\n", run.stderr)


def test_with_tcp_it_is_reached_at_a_port(temporary: Path, wait_until: WaitUntil) -> None:
    with running(temporary, "--stand-in", "--tcp") as up:
        assert up.redis_url.startswith("redis://127.0.0.1:")
        deliver(up, "2", wait_until)


@linux_only
def test_a_worker_that_ends_is_started_again(temporary: Path, wait_until: WaitUntil) -> None:
    short = {"CONTACT_SYNC_LEASE_SECONDS": "3", "CONTACT_SYNC_REQUEST_TIMEOUT_SECONDS": "1"}
    with running(temporary, "--stand-in", **short) as up:
        deliver(up, "2", wait_until)
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(up.process.pid)}
        # Its supervisor names the command too, but runs another program itself.
        (worker,) = [
            pid for pid, command in commands.items() if b"celery" in command and b"supervisor.py" not in command
        ]
        os.kill(worker, signal.SIGKILL)
        deliver(up, "3", wait_until)
        up.process.send_signal(signal.SIGTERM)
        _, stderr = up.process.communicate(timeout=60)
    assert "the worker ended with status 137; starting another" in stderr
    assert up.process.returncode == 143


@linux_only
def test_nothing_is_left_when_it_is_killed(temporary: Path, wait_until: WaitUntil) -> None:
    with running(temporary, "--stand-in") as up:
        started = descendants(up.process.pid)
        assert len(started) == 6  # three, each with its supervisor
        up.process.kill()
        wait_until(lambda: not any(map(runs, started)), seconds=30, what="all its processes are gone")
    wait_until(lambda: not list(temporary.iterdir()), what="all its directories are gone")


def test_without_a_server_key_it_says_so_before_anything_starts(temporary: Path) -> None:
    run = subprocess.run(UP, cwd=temporary, capture_output=True, text=True, timeout=60, check=False)
    assert re.fullmatch(r"contact-sync: CONTACT_SYNC_SERVER_KEY_ID is required: .*\n", run.stderr)
    assert (run.stdout, run.returncode) == ("", 2)


def test_data_that_is_in_use_is_refused_in_one_line(temporary: Path, tmp_path: Path) -> None:
    options = ["--stand-in", "--data", str(tmp_path / "data")]
    with running(temporary, *options):
        run = subprocess.run([*UP, *options], cwd=temporary, capture_output=True, text=True, timeout=60, check=False)
    assert run.stderr == f"contact-sync: data directory {tmp_path / 'data'}: another Redis that we started uses it\n"
    assert run.returncode == 1


def test_data_that_was_begun_with_another_number_of_partitions_is_refused_in_one_line(
    temporary: Path, tmp_path: Path
) -> None:
    options = ["--stand-in", "--data", str(tmp_path / "data")]
    with running(temporary, *options, CONTACT_SYNC_PARTITIONS="8") as up:
        up.process.send_signal(signal.SIGINT)
        up.process.wait(60)
    environ = {**os.environ, "CONTACT_SYNC_PARTITIONS": "9"}
    run = subprocess.run(
        [*UP, *options], cwd=temporary, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert re.fullmatch(r"contact-sync: CONTACT_SYNC_PARTITIONS is 9, but .* has 8 partitions: .*\n", run.stderr)
    assert run.returncode == 2
