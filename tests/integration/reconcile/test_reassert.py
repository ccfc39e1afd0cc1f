"""`reconcile --reassert`: with a real worker, what clients removed in the app comes back, and is counted."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import ROOT
from tests.support.commands import run, running, told
from tests.support.fleet import Fleet, T
from tests.support.sync_request import client_of, delete, sync
from tests.support.worker_process import WorkerProcess, wait_until_delivered
from worker.reconcile.history import past_runs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.waiting import WaitUntil


def confirmed(fleet: Fleet, contacts: int = 60) -> None:
    fleet.append_many([("1", str(n), "upsert", T) for n in range(contacts)])
    fleet.append("1", "gone", "upsert", T)
    fleet.append("1", "gone", "delete", T + 1)
    fleet.deliver()


def remove_in_the_app(fleet: Fleet, *contacts: str) -> None:
    """As a client does: the platform has these no more, and nobody tells us."""
    with client_of(fleet.stand_in.url) as client:
        assert sync(client, *(delete("1", each) for each in contacts)).status_code == 200


def test_each_run_says_another_share_again_and_all_have_their_turn(process_fleet: Fleet, tmp_path: Path) -> None:
    fleet = process_fleet
    confirmed(fleet)
    everything = {("1", str(n)) for n in range(60)}
    remove_in_the_app(fleet, "3", "4", "5")
    with WorkerProcess(fleet.environment(), tmp_path):
        found = [told(fleet, "reconcile", "--reassert", "25%") for _ in range(4)]
        wait_until_delivered(fleet)
    assert [each["mode"] for each in found] == ["reassert"] * 4
    assert sum(each["reasserted"] for each in found) == 60
    assert all(5 <= each["reasserted"] <= 30 for each in found)
    assert all(each["missing"]["at_least"] == each["missing"]["at_most"] for each in found)
    assert sum(each["missing"]["at_least"] for each in found) == 3
    assert fleet.stand_in.contacts() == everything  # and nothing that was deleted
    runs = past_runs(fleet.namespace)
    assert [each["reassert"]["begin"] for each in runs[:-1]] == [each["reassert"]["end"] for each in runs[1:]]
    assert "the ledger" in run(fleet, "reconcile", "history").stdout


def test_it_takes_the_bulk_lane_and_a_dry_run_sends_nothing(fleet: Fleet, tmp_path: Path) -> None:
    confirmed(fleet)
    diff = tmp_path / "diff.jsonl"
    done = told(fleet, "reconcile", "--reassert", "100", "--dry-run", "--diff", str(diff))
    assert (done["reasserted"], fleet.backlog(), past_runs(fleet.namespace)) == (60, 0, [])
    assert len(diff.read_text().splitlines()) == 60
    ran = run(fleet, "reconcile", "--reassert", "100%", "--wait", "0")
    assert ran.exit_code == 0, ran.output
    told_last = "\n".join(ran.stdout.splitlines()[-2:])
    assert told_last.startswith(
        "reasserted              60  of 60 in this run's share\nmissing            0 to 60  of 60"
    )
    assert f"```text\n{told_last}\n```" in (ROOT / "docs" / "how-to" / "reconcile.md").read_text(encoding="utf-8")
    p = fleet.partition("1")
    assert fleet.client.xlen(fleet.keys.bulk(p)) == 60
    assert fleet.client.xlen(fleet.keys.events(p)) == 0


def test_a_delete_that_comes_late_still_wins(fleet: Fleet) -> None:
    confirmed(fleet)
    fleet.append("1", "3", "delete", T + 1)  # from a spool, say
    run(fleet, "reconcile", "--reassert", "100%", "--wait", "0")
    fleet.append("1", "4", "delete", T + 1)
    fleet.deliver()
    assert {("1", "3"), ("1", "4")}.isdisjoint(fleet.stand_in.contacts())


def test_it_goes_with_a_source_and_for_one_owner(fleet: Fleet, tmp_path: Path) -> None:
    confirmed(fleet, 4)
    fleet.append("2", "1", "upsert", T)
    fleet.deliver()
    done = told(fleet, "reconcile", "--reassert", "100%", "--owner", "2", "--wait", "0")
    assert done["reasserted"] == 1
    source = tmp_path / "contacts.csv"
    source.write_text("owner,contact\n1,0\n1,new\n")
    done = told(fleet, "reconcile", str(source), "--reassert", "100%", "--wait", "0")
    assert (done["rows"], done["sent"], done["reasserted"]) == (2, 2, 5)


def test_again_and_again_each_run_takes_the_next_share(fleet: Fleet, wait_until: WaitUntil) -> None:
    confirmed(fleet)
    line = ("reconcile", "--reassert", "50%", "--every", "1s", "--wait", "0")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with running(fleet.environment(), *line, **quiet):
        wait_until(lambda: len(past_runs(fleet.namespace)) >= 2, seconds=40, what="it was run twice")
    second, first = past_runs(fleet.namespace)[-2:]
    assert second["reassert"]["begin"] == first["reassert"]["end"]
    assert first["reasserted"] + second["reasserted"] == 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "SOURCE is missing"),
        (("--reassert", "0"), "must be a share from 0.001% to 100%, such as 10%"),
        (("--reassert", "101%"), "must be a share"),
        (("--reassert", "nan"), "must be a share"),
        (("--reassert", "ten"), "must be a share"),
        (("--reassert", "10%", "--query", "select 1"), "without SOURCE, only --reassert is done"),
        (("--reassert", "10%", "--resume"), "without SOURCE, only --reassert is done"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[str, ...], said: str, fleet: Fleet) -> None:
    ran = run(fleet, "reconcile", "run", *arguments)
    assert ran.exit_code == 2
    assert said in ran.stderr
