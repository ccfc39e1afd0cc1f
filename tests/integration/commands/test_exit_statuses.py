"""How every command ends: 0 done, 1 failed, 2 wrong usage or configuration, 130 Ctrl-C; one table of all of them."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import pytest

from tests.support.commands import COMMAND, dead_letter, run, running, told
from worker.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fleet import Fleet
    from tests.support.waiting import WaitUntil

ROOT = Path(__file__).parents[3]

AWAY = {"redis_url": "redis://127.0.0.1:1/0"}
UNFIT = {"partitions": "many"}
CHANGE = '{"owner": "1", "contact": "2", "op": "upsert"}\n'


class Case(NamedTuple):
    """What a command is given so that it ends with a status."""

    options: tuple[str, ...] = ()
    given: str | None = None
    overrides: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it


class BlackHole(NamedTuple):
    """It waits for a Redis that takes connections and never answers, until Ctrl-C."""


class Elsewhere(NamedTuple):
    """The test that shows this status, because it takes more than a line of a table."""

    path: str
    test: str


class Never(NamedTuple):
    """Why no such status is there to be shown."""

    why: str


End = Case | BlackHole | Elsewhere | Never

HERE = "tests/integration/commands"
DEMO, UP, HEALTH = (f"{HERE}/test_{name}.py" for name in ("demo", "up", "health"))
STAND_IN = "tests/integration/standin/test_command.py"
SERVE = "tests/integration/serve/test_command.py"
RELAY = "tests/outbox/test_commands_relay.py"
ITSELF = f"{HERE}/test_exit_statuses.py"
DEAD_LETTERS: dict[int, End] = {
    0: Case(),
    1: Case(overrides=AWAY),
    2: Case(overrides=UNFIT),
    130: BlackHole(),
}

# Each command, with how it comes to each status; what it takes beside that is its first entry.
TABLE: dict[str, dict[int, End]] = {
    "demo": {
        0: Elsewhere(DEMO, "test_every_pair_is_right_in_the_end"),
        1: Elsewhere(DEMO, "test_where_time_is_up_it_says_what_is_missing_and_fails"),
        2: Case(("--seconds", "2")),
        130: Elsewhere(DEMO, "test_nothing_is_left_when_a_signal_ends_it"),
    },
    "up": {
        0: Never("it runs until it is ended by a signal"),
        1: Elsewhere(UP, "test_data_that_is_in_use_is_refused_in_one_line"),
        2: Case(overrides=UNFIT),
        130: Elsewhere(UP, "test_what_is_produced_to_it_is_delivered_and_it_goes_on_with_its_data"),
    },
    "worker": {
        0: Elsewhere(ITSELF, "test_ctrl_c_lets_a_worker_end_its_work_and_then_with_status_0"),
        1: Never("a Redis that is away is waited for"),
        2: Case(overrides=UNFIT),
        130: Never("it is Celery's own, which takes Ctrl-C for the wish to end well"),
    },
    "endpoint": {
        0: Never("it serves until it is ended by a signal"),
        1: Elsewhere(STAND_IN, "test_a_port_in_use_is_one_line_and_exit_status_1"),
        2: Case(overrides={"server_key_secret_file": "/no/such/file", "server_key_secret": None}),
        130: Elsewhere(STAND_IN, "test_it_serves_until_ctrl_c_whatever_its_clients_wait_for"),
    },
    "serve": {
        0: Never("it serves until it is ended by a signal"),
        1: Elsewhere(SERVE, "test_a_port_in_use_is_one_line_and_exit_status_1"),
        2: Case(("--host", "0.0.0.0")),  # noqa: S104 - without a token, which is why it is refused
        130: Elsewhere(SERVE, "test_it_serves_until_ctrl_c"),
    },
    "emit": {
        0: Case(given=CHANGE),
        1: Case(given="no json\n"),
        2: Case(overrides=UNFIT),
        130: Elsewhere(ITSELF, "test_ctrl_c_ends_an_emission_that_waits_for_its_pipe"),
    },
    "reconcile history": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
    "reconcile run -": {
        0: Case(given="owner,contact\n1,2\n"),
        1: Case(given="owner,contact\n1,2"),
        2: Case(overrides=UNFIT),
        130: BlackHole(),
    },
    "relay": {
        0: Elsewhere(RELAY, "test_once_forwards_all_and_tells"),
        1: Elsewhere(RELAY, "test_redis_away_is_one_line_and_all_stays"),
        2: Case(("nothing",)),
        130: Elsewhere(RELAY, "test_it_goes_on_until_it_is_asked_to_end"),
    },
    "conform": {
        0: Elsewhere(f"{HERE}/test_conform.py", "test_what_our_own_producer_writes_conforms"),
        1: Case(overrides=AWAY),
        2: Case(("--last", "0")),
        130: BlackHole(),
    },
    "status": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
    "health": {
        0: Case(),
        1: Elsewhere(HEALTH, "test_a_change_that_waits_longer_while_nothing_moves_is_unhealthy"),
        2: Case(overrides=UNFIT),
        130: BlackHole(),
    },
    "drain": {
        0: Case(),
        1: Case(overrides=AWAY),
        2: Case(("--timeout", "-1")),
        130: BlackHole(),
    },
    "explain 1 2": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
    "dead-letters list": DEAD_LETTERS,
    "dead-letters show": DEAD_LETTERS,
    "dead-letters redrive": DEAD_LETTERS,
    "dead-letters purge --yes": DEAD_LETTERS,
    "forget 1 --yes": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
    "erase 1": {
        0: Elsewhere(
            f"{HERE}/test_erase.py",
            "test_a_user_is_erased_on_both_sides_and_the_receipt_says_so_without_the_id",
        ),
        1: Case(),
        2: Case(overrides=UNFIT),
        130: BlackHole(),
    },
    "pause": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
    "resume": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
    "repartition 4": {
        0: Elsewhere(f"{HERE}/test_repartition.py", "test_confirmed_outcomes_move_and_stay_remembered"),
        1: Case(),
        2: Case(overrides=UNFIT),
        130: BlackHole(),
    },
    "parked list": DEAD_LETTERS,
    "parked retry": DEAD_LETTERS,
    "parked bury": DEAD_LETTERS,
    "upgrade": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
    "check": {0: Case(), 1: Case(overrides=AWAY), 2: Case(overrides=UNFIT), 130: BlackHole()},
}


def cases(kind: type) -> list[Any]:
    return [
        pytest.param(line, status, end, id=f"{line}-{status}")
        for line, ends in TABLE.items()
        for status, end in ends.items()
        if isinstance(end, kind)
    ]


def leaves() -> Iterator[str]:
    """Every command, with those of a group by both names."""
    for name, place in COMMANDS.items():
        command = getattr(import_module(place.module), place.name)
        if isinstance(command, click.Group):
            yield from (f"{name} {each}" for each in command.commands)
        else:
            yield name


def test_the_table_is_of_every_command_and_every_status() -> None:
    every = sorted(leaves())
    assert sorted(next(name for name in every if f"{line} ".startswith(f"{name} ")) for line in TABLE) == every
    assert all(set(ends) == {0, 1, 2, 130} for ends in TABLE.values())


@pytest.mark.parametrize(("line", "status", "end"), cases(Elsewhere))
def test_what_is_shown_elsewhere_is_shown_there(line: str, status: int, end: Elsewhere) -> None:  # noqa: ARG001 - the case's name
    assert f"\ndef {end.test}(" in (ROOT / end.path).read_text(encoding="utf-8")


@pytest.mark.parametrize(("line", "status", "case"), cases(Case))
def test_a_command_ends_with_the_status_of_its_kind_and_one_line_where_it_fails(
    line: str, status: int, case: Case, fleet: Fleet
) -> None:
    ran = run(fleet, *line.split(), *case.options, given=case.given, **case.overrides)
    assert ran.exit_code == status
    assert "Traceback" not in ran.output
    assert "\x1b" not in ran.output
    if status and line != "check":  # which says its findings as data
        assert ran.stdout == ""
        assert ran.stderr.splitlines()[-1].startswith(("contact-sync: ", "Error: "))


@pytest.mark.parametrize("line", TABLE)
def test_an_option_that_does_not_exist_is_wrong_usage(line: str, fleet: Fleet) -> None:
    ran = run(fleet, *line.split(), "--no-such-option")
    assert ran.exit_code == 2
    assert ran.stdout == ""


# Ctrl-C


@contextmanager
def black_hole() -> Iterator[socket.socket]:
    """A server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


@pytest.mark.parametrize(("line", "status", "_end"), cases(BlackHole))
def test_ctrl_c_ends_a_command_that_waits_for_redis(line: str, status: int, _end: BlackHole, fleet: Fleet) -> None:
    with black_hole() as server:
        environ = fleet.environment(redis_url=f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        with (
            running(environ, *line.split(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process,
            server.accept()[0],
        ):
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == status
            assert process.stderr is not None
            assert process.stderr.read().strip() == ""


def test_ctrl_c_ends_an_emission_that_waits_for_its_pipe(fleet: Fleet, wait_until: WaitUntil) -> None:
    with running(fleet.environment(), "emit", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(CHANGE)
        process.stdin.flush()
        wait_until(lambda: fleet.backlog() == 1, what="the line is in the log")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="that a process sleeps is found in /proc")
def test_ctrl_c_at_the_question_removes_nothing(fleet: Fleet, wait_until: WaitUntil) -> None:
    dead_letter(fleet)
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0),
        os.fdopen(theirs, "rb") as terminal,
        running(fleet.environment(), "dead-letters", "purge", stdin=terminal) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.read(6) == "Remove"
        state = Path(f"/proc/{process.pid}/status")
        wait_until(lambda: "State:\tS" in state.read_text(encoding="ascii"), what="it waits for an answer")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()
    assert len(fleet.dead_letters()) == 1


def test_ctrl_c_lets_a_worker_end_its_work_and_then_with_status_0(fleet: Fleet, wait_until: WaitUntil) -> None:
    environ = fleet.environment(lease_seconds=5.0)
    with running(environ, "worker", "-c", "2", "-l", "ERROR", stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: told(fleet, "status")["worker_awake"], seconds=30, what="the worker is awake")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


# A reader that has gone, and colours


@pytest.mark.parametrize(
    "line", ["status", "status --watch", "explain 1 9", "dead-letters list", "dead-letters show", "check", "--help"]
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word(line: str, fleet: Fleet) -> None:
    dead_letter(fleet)
    assert said_to_nobody(fleet.environment(), *line.split()) == ""


def test_a_reader_that_has_gone_gets_no_traceback_from_an_emission_either(fleet: Fleet) -> None:
    said = said_to_nobody(fleet.environment(**AWAY), "emit", given=CHANGE)
    assert re.fullmatch(r"contact-sync: Redis at .*; changes accepted: 0\n", said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("line", ["status", "status --json", "explain 1 2", "check", "--help"])
def test_a_full_disk_is_one_line(line: str, fleet: Fleet) -> None:
    with Path("/dev/full").open("wb") as full, running(fleet.environment(), *line.split(), stdout=full) as process:
        _, said = process.communicate(timeout=30)
    assert said == "contact-sync: standard output cannot be written: No space left on device\n"
    assert process.returncode == 1


def test_a_closed_standard_output_is_written_to_no_more(fleet: Fleet) -> None:
    ran = subprocess.run(
        ["sh", "-c", '"$0" status >&-', COMMAND],
        env={"PATH": os.environ["PATH"], **fleet.environment()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_ids_of_any_script_are_told_on_any_terminal(encoding: str, fleet: Fleet) -> None:
    environ = {**fleet.environment(), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    environ["PYTHONCOERCECLOCALE"] = "0"  # the arguments come as bytes that no encoding fits
    with running(environ, "explain", "1", "名", stdout=subprocess.PIPE) as process:
        told, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (0, "")
    assert ("\\u540d" if encoding == "latin-1" else "名") in told  # what says that it is ASCII is UTF-8 to click


def said_to_nobody(environ: dict[str, str], *args: str, given: str = "") -> str:
    """What a command says on standard error whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with running(environ, *args, stdin=subprocess.PIPE, stdout=writer) as process:
        os.close(writer)
        _, said = process.communicate(given, timeout=30)
        assert process.returncode in {0, 1}
    return said


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
@pytest.mark.parametrize("line", ["status", "check"])
def test_a_terminal_gets_colours_unless_it_wants_none(
    line: str, variables: dict[str, str], fleet: Fleet, *, coloured: bool
) -> None:
    assert ("\x1b[" in shown_on_a_terminal({**fleet.environment(), **variables}, line)) is coloured


def shown_on_a_terminal(environ: dict[str, str], *args: str) -> str:
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        running({"TERM": "xterm", **environ}, *args, stdout=theirs) as process,
    ):
        os.close(theirs)
        seen = bytearray()
        with suppress(OSError):  # Linux' way of saying that nobody has the other end any more
            while part := terminal.read(4096):
                seen += part
        process.wait(30)
    return seen.decode()


def test_a_host_that_is_no_name_is_one_line(fleet: Fleet) -> None:
    with running(fleet.environment(), "endpoint", "--port", "0", "--host", b"\xff") as process:  # type: ignore[arg-type] # as a shell gives it
        assert process.stderr is not None
        said = process.stderr.read()
        assert (process.wait(30), said.count("\n")) == (1, 1), said


@pytest.mark.parametrize("line", ["endpoint", "serve"])
@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_host_is_not_every_address_but_wrong_usage(line: str, host: str, fleet: Fleet) -> None:
    with running(fleet.environment(), line, "--port", "0", "--host", host, "--quiet") as process:
        assert process.wait(30) == 2
        assert process.stderr is not None
        said = process.stderr.read()
        assert said == "contact-sync: --host is empty: name an address, such as 127.0.0.1, or 0.0.0.0 for all\n"


def test_an_output_that_is_open_for_reading_alone_is_one_line(fleet: Fleet) -> None:
    with (
        open(os.devnull, "rb") as nothing,  # noqa: PTH123 - a plain descriptor is the case
        running(fleet.environment(), "status", "--json", stdout=nothing) as process,
    ):
        assert process.stderr is not None
        said = process.stderr.read()
        assert (process.wait(30), "Traceback" in said, said.count("\n")) == (1, False, 1), said
