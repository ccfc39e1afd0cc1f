"""`contact-sync endpoint` as people run it: in a process of its own, ended by a signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.sync_request import client_of, key, sync, upsert
from tests.support.waiting import wait_until
from worker.standin.client import StandInClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = (sys.executable, "-m", "worker.cli.endpoint")
KEY_ID, KEY_SECRET = "CONTACT_SYNC_SERVER_KEY_ID", "CONTACT_SYNC_SERVER_KEY_SECRET"


@pytest.fixture(autouse=True)
def _no_dotenv_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))


@contextmanager
def endpoint(*options: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command on a free port: its URL, and the process."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *options], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("stand-in endpoint on http://127.0.0.1:")
            assert line.endswith(" (Ctrl-C ends it)\n")
            yield line.split()[3], process
        finally:
            process.kill()


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *options]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


def status_with(url: str, given: str) -> int:
    with client_of(url, key(given)) as client:
        return sync(client, upsert("1", "2")).status_code


def test_it_serves_until_ctrl_c_whatever_its_clients_wait_for() -> None:
    with endpoint() as (url, process), StandInClient(url) as control, client_of(url) as client:
        assert sync(client, upsert("1", "2")).status_code == 200
        assert control.contacts() == {("1", "2")}
        control.faults({"kind": "hang"})
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as waiting:
            waiting.sendall(b"POST /v1/server/contact/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_sigterm_ends_it_too() -> None:
    with endpoint() as (_, process):
        process.terminate()
        assert process.wait(timeout=10) == -signal.SIGTERM


def test_the_key_comes_from_the_environment() -> None:
    with endpoint(**{KEY_ID: "me", KEY_SECRET: "pa:ss"}) as (url, _):
        assert status_with(url, "me:pa:ss") == 200
        assert status_with(url, "stand-in:stand-in") == 401


def test_the_key_comes_from_a_dotenv_file_as_the_workers_key_does(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{KEY_ID}=me\n{KEY_SECRET}=a$b\n")
    with endpoint() as (url, _):
        assert status_with(url, "me:a$b") == 200


def test_options_win_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    options = ("--key-id", "me", "--key-secret-file", str(tmp_path / "secret"))
    with endpoint(*options, **{KEY_ID: "other", KEY_SECRET: "other"}) as (url, _):
        assert status_with(url, "me:from-file") == 200


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({KEY_SECRET: "hush", f"{KEY_SECRET}_FILE": "secret"}, f"{KEY_SECRET} and {KEY_SECRET}_FILE: only one"),
        ({f"{KEY_SECRET}_FILE": "missing"}, f"{KEY_SECRET}_FILE: missing cannot be read: No such file"),
        ({f"{KEY_SECRET}_FILE": "long"}, f"{KEY_SECRET}_FILE: long is longer than 65536 bytes"),
        ({KEY_ID: "a:b"}, f"{KEY_ID}: must not contain a colon"),
    ],
)
def test_a_key_that_does_not_fit_is_wrong_usage_and_never_shown(
    tmp_path: Path, environment: dict[str, str], reason: str
) -> None:
    (tmp_path / "long").write_text("é" * 40_000, encoding="utf-8")
    ended = run("--port", "0", **environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"contact-sync: {reason}")
    assert ended.stderr.count("\n") == 1
    assert "hush" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("key_id", "reason"),
    [
        ("a:b", "must not contain a colon"),
        ("\udcff", "must be one line of printable ASCII characters"),
        ("a b", "must be one line of printable ASCII characters"),
    ],
)
def test_an_id_as_an_option_that_does_not_fit_is_named_by_the_option(key_id: str, reason: str) -> None:
    ended = run("--port", "0", "--key-id", key_id)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert re.match(rf"contact-sync: --key-id:? {reason}", ended.stderr)


def test_a_port_in_use_is_one_line_and_exit_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--port", str(port))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"contact-sync: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_quiet_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([*COMMAND, "--quiet", "--port", str(port)], stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: accepts(port), seconds=20, what="it serves")
        finally:
            process.terminate()
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_help_shows_an_example() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    assert "contact-sync endpoint --port 8080" in ended.stdout
