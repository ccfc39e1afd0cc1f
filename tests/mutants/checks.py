"""The checks that are to see a planted bug: tests of one kind or another, and the simulation."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutants.tree import Tree

_GRACE_SECONDS: Final = 30.0
"""How long a check that is interrupted may take to end what it started."""

_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*)?(?: - .*)?$", re.MULTILINE)


class CheckFailed(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """A check is neither green nor red: it could not be run."""


class Seen(NamedTuple):
    """What a check says.

    Attributes:
        by: the test that is red, or the invariant that the simulation found broken; empty where all is green.
        seeds: after how many worlds the simulation found it, None where it did not or was not asked.
        seconds: how long that took.
    """

    by: str
    seeds: int | None
    seconds: float


def run_tests(tree: Tree, tests: Sequence[str], seconds: float) -> Seen:
    """Runs tests of the copy until one is red.

    Raises:
        CheckFailed: they could not be run, or took longer than that.
    """
    began = time.monotonic()
    red, _ = run_timed(tree, ("-q", *tests), seconds)
    return Seen(red, None, time.monotonic() - began)


def run_timed(tree: Tree, tests: Sequence[str], seconds: float) -> tuple[str, str]:
    """Runs tests of the copy until one is red; returns that one, empty if none is, and all that pytest says.

    Raises:
        CheckFailed: they could not be run, or took longer than that.
    """
    # A test that hangs is red, and by a signal it is so in its own name.
    hangs = ["--timeout", "60", "--timeout-method", "signal"]
    options = ["-x", "-p", "no:cacheprovider", "--no-header", "--tb=no", "--durations=0", "--durations-min=0", *hangs]
    status, out, err = _run(tree, ["-m", "pytest", *options, *tests], seconds)
    if status not in {0, 1}:
        raise CheckFailed(f"pytest ended with status {status}: {(out + err)[-1500:]}")
    failed = _FAILED.search(out)
    if status == 1 and failed is None:
        raise CheckFailed(f"pytest names no test that failed: {out[-1500:]}")
    return (failed[1] if failed and status else ""), out


def run_simulation(tree: Tree, seeds: int, seconds: float) -> Seen:
    """Lives worlds of the copy until one breaks an invariant.

    Raises:
        CheckFailed: they could not be lived, or it took longer than that.
    """
    began = time.monotonic()
    command = ["-m", "tests.simulation.run", "--seeds", str(seeds), "--jobs", "1", "--json", "--shrink-seconds", "0"]
    status, out, err = _run(tree, command, seconds)
    try:
        failing = json.loads(out)["failing"]
    except ValueError:
        raise CheckFailed(f"the simulation ended with status {status}: {err[-1500:]}") from None
    took = time.monotonic() - began
    if not failing:
        return Seen("", None, took)
    # A chunk of seeds is lived whole: the first that fails counts.
    says = failing[0]["violations"][0]
    return Seen(f"simulation: {says[:160]}", failing[0]["seed"] + 1, took)


def _run(tree: Tree, arguments: Sequence[str], seconds: float) -> tuple[int, str, str]:
    process = subprocess.Popen(
        [str(tree.python), *arguments],
        cwd=tree.root,
        env=tree.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is ours: a check is told to end once, and then waited for
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"it took longer than {seconds:.0f} s: {' '.join(arguments[1:])}") from None
    finally:
        _end(process)
    return process.returncode, out, err


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a check that still runs, first as Ctrl-C does, so that it ends what it has started."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
