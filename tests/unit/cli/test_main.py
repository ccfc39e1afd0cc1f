"""The command `contact-sync` itself: what it lists, what it loads, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from worker.cli.main import COMMANDS, main

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("celery", "kombu", "httpx", "uvicorn", "starlette", "structlog", "rich")

SUBCOMMANDS = ("list", "show", "redrive", "purge")


@pytest.mark.parametrize("args", [["--help"], ["status"], ["dead-letters", "list"], ["explain", "1", "2"]])
def test_it_starts_without_loading_what_the_command_does_not_need(args: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from worker.cli.main import main\n"
        "try:\n"
        f"    main({args!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"CONTACT_SYNC_REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stderr.splitlines()[-1] == "[]"


def test_help_lists_every_command_of_the_contract() -> None:
    listed = CliRunner().invoke(main, ["--help"]).stdout
    for name in ("worker", "demo", "up", "endpoint", "emit", "status", "drain", "explain", "dead-letters", "check"):
        assert f"\n  {name} " in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    assert f"Example:\n    contact-sync {name}" in shown.stdout or f"| contact-sync {name}" in shown.stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_command_about_dead_letters_has_help_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(main, ["dead-letters", name, "--help"])
    assert shown.exit_code == 0
    assert f"Example:\n    contact-sync dead-letters {name}" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_names_modules_that_hold_the_commands(name: str) -> None:
    place = COMMANDS[name]
    assert isinstance(getattr(import_module(place.module), place.name), click.Command)


@pytest.mark.parametrize(
    "args",
    [
        ["no-such-command"],
        ["status", "--no-such-option"],
        ["explain", "1"],
        ["explain", "1", "a\x07"],
        ["explain", "", "2"],
        ["drain", "--timeout", "-1"],
        ["dead-letters", "show", "17"],
        ["emit", "/no/such/file"],
        ["dead-letters", "purge"],
    ],
)
def test_wrong_usage_is_exit_status_2(args: list[str]) -> None:
    ran = CliRunner().invoke(main, args)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", ["status", "drain", "check", "worker", "emit"])
def test_a_setting_that_does_not_fit_is_one_line_and_exit_status_2(name: str) -> None:
    ran = CliRunner().invoke(main, [name], env={"CONTACT_SYNC_PARTITIONS": "many"})
    assert ran.exit_code == 2
    assert ran.stderr == "contact-sync: CONTACT_SYNC_PARTITIONS must be a whole number from 1 to 16384, not 'many'\n"


@pytest.mark.parametrize("args", [["status"], ["drain"], ["explain", "1", "2"], ["dead-letters", "list"]])
def test_a_redis_that_is_away_is_one_line_without_its_password_and_exit_status_1(args: list[str]) -> None:
    ran = CliRunner().invoke(main, args, env={"CONTACT_SYNC_REDIS_URL": "redis://me:pass-word@127.0.0.1:1/0?db=1"})
    assert ran.exit_code == 1
    assert ran.stderr.startswith("contact-sync: Redis at redis://127.0.0.1:1/0 (CONTACT_SYNC_REDIS_URL): ")
    assert ran.stderr.count("\n") == 1
    assert "pass-word" not in ran.stderr


def test_a_worker_without_credentials_is_one_line_and_exit_status_2() -> None:
    ran = CliRunner().invoke(main, ["worker"])
    assert ran.exit_code == 2
    assert ran.stderr.startswith("contact-sync: CONTACT_SYNC_SERVER_KEY_ID is required")
