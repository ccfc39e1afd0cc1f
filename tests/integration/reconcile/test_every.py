"""Reconciling again and again: one at a time in the fleet, and in time, whoever is killed."""

from __future__ import annotations

import subprocess
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import run, running
from worker.reconcile.history import past_runs
from worker.reconcile.lock import ReconcileLock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet
    from tests.support.waiting import WaitUntil

QUIET: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


def test_of_two_that_are_due_one_runs_and_the_other_goes_on_when_it_is_killed(
    fleet: Fleet, tmp_path: Path, wait_until: WaitUntil
) -> None:
    source = tmp_path / "contacts.csv"
    source.write_text("owner,contact\n1,2\n")
    line = ("reconcile", str(source), "--every", "2s")

    def runs() -> int:
        return len(past_runs(fleet.namespace))

    with running(fleet.environment(), *line, **QUIET) as one, running(fleet.environment(), *line, **QUIET):
        wait_until(lambda: runs() >= 3, seconds=40, what="it was run three times")
        began = sorted(each["as_of"] for each in past_runs(fleet.namespace))
        assert all(later - earlier > 900 for earlier, later in pairwise(began))
        one.kill()
        one.wait(30)
        before = runs()
        wait_until(lambda: runs() > before + 1, seconds=60, what="the other goes on")


def test_a_turn_is_held_by_one_and_given_back(fleet: Fleet) -> None:
    with ReconcileLock(fleet.namespace) as one, ReconcileLock(fleet.namespace) as other:
        assert one.acquire()
        assert not other.acquire()
        one.release()
        assert other.acquire()
    assert not fleet.client.exists(fleet.keys.reconcile_lease)


@pytest.mark.parametrize("options", [("--every", "often"), ("--every", "1h", "--dry-run")])
def test_what_makes_no_sense_again_and_again_is_wrong_usage(fleet: Fleet, options: tuple[str, ...]) -> None:
    assert run(fleet, "reconcile", "file.csv", *options).exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--diff", "contacts.csv"), "--diff is SOURCE itself"),
        (("--diff", "out.jsonl", "--rejects", "out.jsonl"), "--diff and --rejects are the same file"),
        (("--rejects", "no/such/out.jsonl"), "no/such/out.jsonl cannot be written"),
    ],
)
def test_what_no_time_mends_ends_it(fleet: Fleet, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    (tmp_path / "contacts.csv").write_text("owner,contact\n1,2\n")
    line = ("reconcile", "contacts.csv", *options, "--every", "1h")
    with running(fleet.environment(), *line, cwd=tmp_path, **QUIET) as process:
        assert process.wait(20) == 2
        assert process.stderr is not None
        heard = process.stderr.read()
        assert (said in heard, heard.count("\n")) == (True, 1), heard


def test_a_source_that_is_absent_is_said_when_it_is_due_then_less_and_less_often_and_read_when_it_comes(
    fleet: Fleet, tmp_path: Path, wait_until: WaitUntil
) -> None:
    source = tmp_path / "contacts.csv"
    source.write_text("owner,contact\n1,2\n")
    line = ("reconcile", str(source), "--every", "4s")
    with running(fleet.environment(), *line, **QUIET):
        wait_until(lambda: len(past_runs(fleet.namespace)) == 1, seconds=30, what="it was run")
    source.unlink()
    turn = int(fleet.client.hget(fleet.keys.reconcile, f"every {source}"))
    with running(fleet.environment(), *line, **QUIET) as process:
        assert process.stderr is not None
        times = []
        for _ in range(3):
            assert "contacts.csv cannot be read: No such file" in process.stderr.readline()
            times.append(time.monotonic())
            assert fleet.now_ms() >= 1000 * (turn + 4)
        assert times[2] - times[1] > 1.5
        source.write_text("owner,contact\n1,2\n")
        wait_until(lambda: len(past_runs(fleet.namespace)) == 2, seconds=30, what="it was read when it came")
