"""Runs the commands against a fleet's namespace: in this process, or in one of their own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from click.testing import CliRunner

from tests.support.fleet import T
from worker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from click.testing import Result

    from tests.support.fleet import Fleet

COMMAND = Path(sys.executable).parent / "contact-sync"

ENDS = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered")
"""Each accepted entry ends in exactly one of these counters, or waits."""


@contextmanager
def logging_as_it_was() -> Iterator[None]:
    """A command that sets up logging does it for its process, which here is that of all other tests too."""
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**configuration)


def run(fleet: Fleet, *args: str, given: str | None = None, **overrides: Any) -> Result:
    """A command in this process."""
    with logging_as_it_was():
        ran = CliRunner().invoke(main, args, input=given, env=fleet.environment(**overrides))
    assert isinstance(ran.exception, SystemExit | None), ran.exc_info
    return ran


def told(fleet: Fleet, *args: str, **overrides: Any) -> Any:
    """What a command tells in JSON."""
    return json.loads(run(fleet, *args, "--json", **overrides).stdout)


@contextmanager
def running(environ: Mapping[str, str], *args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which is gone afterwards."""
    process = subprocess.Popen(
        [COMMAND, *args],
        env={"PATH": os.environ["PATH"], **environ},
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def dead_letter(fleet: Fleet, op: str = "upsert", at: int | None = T, *, owner: str = "1") -> str:
    """Lets the endpoint refuse a change of the pair (owner, 9) for good; returns the letter's id."""
    fleet.stand_in.settings(poisoned=[[owner, "9"]])
    fleet.append(owner, "9", op, at)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[])
    return next(str(each["id"]) for each in reversed(fleet.dead_letters()) if each["owner"] == owner)
