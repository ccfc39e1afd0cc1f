"""Reconciling again and again: one at a time in the fleet, and in time, whoever is killed."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run, running
from worker.reconcile.history import past_runs
from worker.reconcile.lock import ReconcileLock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet
    from tests.support.waiting import WaitUntil


def test_of_two_that_are_due_one_runs_and_the_other_goes_on_when_it_is_killed(
    fleet: Fleet, tmp_path: Path, wait_until: WaitUntil
) -> None:
    source = tmp_path / "contacts.csv"
    source.write_text("owner,contact\n1,2\n")
    line = ("reconcile", str(source), "--every", "2s")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}

    def runs() -> int:
        return len(past_runs(fleet.namespace))

    with running(fleet.environment(), *line, **quiet) as one, running(fleet.environment(), *line, **quiet):
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
