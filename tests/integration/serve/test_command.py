"""`contact-sync serve` as people run it: in a process of its own, ended by a signal."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.commands import run, running
from tests.support.serving import OPERATOR, READER

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fleet import Fleet

ANYWHERE = ("--host", "0.0.0.0")  # noqa: S104 - to be refused, or with a token
AWAY = {"redis_url": "redis://127.0.0.1:1/0"}


@contextmanager
def served(fleet: Fleet, *options: str, **overrides: Any) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """The command on a free port: a client of it, and the process."""
    with running(fleet.environment(**overrides), "serve", "--port", "0", *options) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("contact-sync serves on http://"), line
        assert line.endswith(" (Ctrl-C ends it)\n")
        with httpx.Client(base_url=line.split()[3].replace("0.0.0.0", "127.0.0.1"), timeout=30) as client:  # noqa: S104
            yield client, process


def said_after(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.read()


def test_it_serves_until_ctrl_c(fleet: Fleet) -> None:
    with served(fleet) as (client, process):
        assert client.get("/readyz").status_code == 200
        assert "contact_sync_redis_up 1.0" in client.get("/metrics").text
        assert "<title>contact-sync</title>" in client.get("/").text
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert said_after(process).strip() == ""


def test_sigterm_ends_it_too_while_a_client_says_nothing(fleet: Fleet) -> None:
    with served(fleet) as (client, process):
        assert client.get("/healthz").status_code == 200
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as half:
            half.sendall(b"POST /api/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM
        assert "Traceback" not in said_after(process)


def test_a_redis_that_is_away_is_no_reason_not_to_serve(fleet: Fleet) -> None:
    with served(fleet, **AWAY) as (client, process):
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in said_after(process)


def test_beyond_this_machine_it_wants_a_token(fleet: Fleet) -> None:
    ran = run(fleet, "serve", *ANYWHERE)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert ran.stderr == (
        "contact-sync: 0.0.0.0 is reached from other machines: set CONTACT_SYNC_SERVE_TOKEN or "
        "CONTACT_SYNC_SERVE_READ_TOKEN (or ..._FILE) to serve there\n"
    )


@pytest.mark.parametrize("name", ["serve_token", "serve_read_token"])
def test_with_a_token_it_serves_other_machines(name: str, fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{OPERATOR}\n")
    with served(fleet, *ANYWHERE, **{f"{name}_file": tmp_path / "token"}) as (client, _):
        assert client.get("/api/status").status_code == 401
        assert client.get("/api/status", headers={"authorization": f"Bearer {OPERATOR}"}).status_code == 200


def test_a_pipe_is_no_token_file(fleet: Fleet, tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "token")
    ran = run(fleet, "serve", serve_token_file=str(path))
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1)
    assert f"CONTACT_SYNC_SERVE_TOKEN_FILE: {path} cannot be read: Is a pipe" in ran.stderr


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"serve_token": "hunter2"}, "CONTACT_SYNC_SERVE_TOKEN must be 16 to 256 printable ASCII characters"),
        ({"serve_token": "hunter2 hunter2 hunter2"}, "CONTACT_SYNC_SERVE_TOKEN must be 16 to 256"),
        ({"serve_token": "hunter2" * 100}, "CONTACT_SYNC_SERVE_TOKEN must be 16 to 256"),
        (
            {"serve_token": READER, "serve_read_token": READER},
            "CONTACT_SYNC_SERVE_TOKEN and CONTACT_SYNC_SERVE_READ_TO",
        ),
        (
            {"serve_token": READER, "serve_token_file": "x"},
            "CONTACT_SYNC_SERVE_TOKEN and CONTACT_SYNC_SERVE_TOKEN_FILE",
        ),
        ({"serve_read_token_file": "/no/such"}, "CONTACT_SYNC_SERVE_READ_TOKEN_FILE: /no/such cannot be read: No such"),
        ({"serve_token_file": "/dev/null"}, "CONTACT_SYNC_SERVE_TOKEN_FILE must be 16 to 256"),
        ({"serve_token_file": "/"}, "CONTACT_SYNC_SERVE_TOKEN_FILE: / cannot be read: Is a directory"),
    ],
)
def test_a_token_that_does_not_fit_is_one_line_and_never_shown(given: dict[str, str], line: str, fleet: Fleet) -> None:
    ran = run(fleet, "serve", **given)
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"contact-sync: {line}")
    assert "hunter2" not in ran.stderr
    assert READER not in ran.stderr


def test_a_port_in_use_is_one_line_and_exit_status_1(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run(fleet, "serve", "--port", str(port))
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == f"contact-sync: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
