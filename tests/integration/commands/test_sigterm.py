"""Every command ends soon after SIGTERM, also as process 1 of a container, to which the kernel passes few signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integration.commands.test_exit_statuses import CHANGE, TABLE, BlackHole, black_hole, leaves
from tests.support.commands import COMMAND
from tests.support.fleet import PARTITIONS, T
from tests.support.serving import OPEN, serve_settings
from worker.serve.server import serve
from worker.standin.server import serve as serve_stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fleet import Fleet
    from tests.support.waiting import WaitUntil

SOON_SECONDS = 8.0
"""Two seconds are promised; this machine may be four times slower."""

WAITING = [line for line, ends in TABLE.items() if isinstance(ends[130], BlackHole)]
"""Commands that end by themselves; here they wait for a Redis that never answers."""


class Lasting(NamedTuple):
    """A command that lasts.

    Attributes:
        line: how it is called.
        says: what it prints once it is at work.
        status: how it ends; None if as by a signal that it did not handle.
    """

    line: str
    says: str
    status: int | None = None


LASTING = [
    Lasting("demo", "emitted 0"),
    Lasting("up --data {tmp}/data", "Ctrl-C ends all of it"),
    Lasting("up --data {tmp}/data --stand-in", "Ctrl-C ends all of it"),
    Lasting("worker", " ready.", 0),
    Lasting("worker -P prefork -c 2", " ready.", 0),
    Lasting("endpoint --port 0", "Ctrl-C ends it"),
    Lasting("serve --port 0", "contact-sync serves on"),
    Lasting("relay sqlite:///{tmp}/app.db --create-tables", "relay_started"),
    Lasting("reconcile run {tmp}/none.csv --every 6h", "none.csv"),
    Lasting("status --watch", "waits"),
]

PROCESS_1 = [
    "unshare",
    *(() if os.geteuid() == 0 else ("--user", "--map-root-user")),
    "--pid",
    "--fork",
    "--kill-child",
]


@pytest.fixture(params=["process", "process 1"])
def before(request: pytest.FixtureRequest) -> list[str]:
    """What stands before the command."""
    if request.param == "process":
        return []
    if (
        shutil.which("unshare") is None
        or subprocess.run([*PROCESS_1, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("unshare is not here, or may not make namespaces")
    return PROCESS_1


@contextmanager
def started(fleet: Fleet, before: list[str], words: list[str], **overrides: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*before, COMMAND, *words],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "HOME": os.environ.get("HOME", "/"),
            **fleet.environment(**overrides),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # a namespace ends with its process 1


def end(process: subprocess.Popen[str], status: int | None = None) -> None:
    """Asks the command to end, and sees that it does, soon and for that reason."""
    inside = process.pid
    if process.args[0] == "unshare":  # type: ignore[index] # a list, as it was given
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        inside = int(children[0])
    began = time.monotonic()
    os.kill(inside, signal.SIGTERM)
    ended = process.wait(60)
    took = time.monotonic() - began
    said = process.stdout.read() if process.stdout is not None else ""
    assert ended in ({128 + signal.SIGTERM, -signal.SIGTERM} if status is None else {status}), said
    assert "Traceback" not in said
    assert took < SOON_SECONDS
    print(f"{took:.2f} s")  # noqa: T201 - with -s they are there to be read


def test_every_command_is_here() -> None:
    lines = [*WAITING, *(each.line for each in LASTING), "emit"]
    every = sorted(leaves())
    assert {name for name in every if any(f"{line} ".startswith(f"{name} ") for line in lines)} == set(every)


@pytest.mark.parametrize("line", WAITING)
def test_a_command_that_waits_for_redis_ends(line: str, before: list[str], fleet: Fleet) -> None:
    with black_hole() as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        with started(fleet, before, line.split(), redis_url=url) as process, server.accept()[0]:
            assert process.stdin is not None
            process.stdin.write("owner,contact\n1,2\n")
            process.stdin.close()
            process.stdin = None
            end(process)


@pytest.mark.parametrize("lasting", LASTING, ids=lambda each: each.line.replace("{tmp}/", ""))
def test_a_command_that_lasts_ends(lasting: Lasting, before: list[str], tmp_path: Path, fleet: Fleet) -> None:
    fleet.change(broker_url=None)
    with started(fleet, before, lasting.line.format(tmp=tmp_path).split()) as process:
        assert process.stdout is not None
        heard = ""
        while lasting.says not in heard:
            line = process.stdout.readline()
            assert line, heard
            heard += line
        end(process, lasting.status)


@pytest.mark.parametrize("server", ["serve", "endpoint"])
def test_a_server_that_announces_itself_handles_signals(server: str, fleet: Fleet) -> None:
    handled = []

    def announce(_url: str) -> None:
        handled.append(signal.getsignal(signal.SIGTERM) is not before)
        signal.raise_signal(signal.SIGINT)

    serving: dict[str, Callable[[], None]] = {
        "serve": lambda: serve(serve_settings(fleet), OPEN, "127.0.0.1", 0, announce),
        "endpoint": lambda: serve_stand_in(port=0, announce=announce),
    }
    before = signal.getsignal(signal.SIGTERM)
    try:
        serving[server]()
    except KeyboardInterrupt:
        pytest.fail("Ctrl-C was raised where the server was announced")
    assert handled == [True]


def test_drain_that_waits_for_deliveries_ends(before: list[str], fleet: Fleet, wait_until: WaitUntil) -> None:
    fleet.append("1", "2", "upsert", T)
    fleet.client.config_resetstat()
    with started(fleet, before, ["drain"]) as process:

        def looks_again() -> bool:
            return bool(fleet.client.info("commandstats").get("cmdstat_xlen", {}).get("calls", 0) > 3 * PARTITIONS)

        wait_until(looks_again, what="it has looked several times")
        end(process)


def test_emit_that_waits_for_its_pipe_ends(before: list[str], fleet: Fleet, wait_until: WaitUntil) -> None:
    with started(fleet, before, ["emit"]) as process:
        assert process.stdin is not None
        process.stdin.write(CHANGE)
        process.stdin.flush()
        wait_until(lambda: fleet.backlog() == 1, what="the line is in the log")
        end(process)
