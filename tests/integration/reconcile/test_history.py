"""With a real worker: how far the endpoint had drifted is told by its own counts, and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.commands import run, told
from tests.support.fleet import T
from tests.support.worker_process import WorkerProcess, wait_until_delivered
from worker.reconcile.history import KEPT, past_runs, record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet


def test_the_drift_is_what_the_endpoint_did_not_have_or_still_had(process_fleet: Fleet, tmp_path: Path) -> None:
    fleet = process_fleet
    fleet.append_many([("1", str(n), "upsert", T) for n in range(20)])
    source = tmp_path / "contacts.csv"
    rows = [f"1,{n},upsert" for n in range(25)] + ["1,0,delete", "1,never,delete"]
    source.write_text("\n".join(["owner,contact,op", *rows, ""]))
    with WorkerProcess(fleet.environment(), tmp_path / "worker"):
        wait_until_delivered(fleet)
        done = told(fleet, "reconcile", str(source), "--wait", "30")
    assert done["drift"] == {"inserted": 5, "deleted": 1, "others": 0, "delivered": True}
    assert fleet.stand_in.contacts() == {("1", str(n)) for n in range(1, 25)}
    (kept,) = told(fleet, "reconcile", "history")
    assert (kept["drift"], kept["sent"]) == (done["drift"], 26)
    assert "5 were missing, 1 too many" in run(fleet, "reconcile", "history").stdout


def test_the_last_runs_are_kept_and_no_more(fleet: Fleet) -> None:
    for number in range(KEPT + 5):
        record(fleet.namespace, {"number": number})
    assert [each["number"] for each in past_runs(fleet.namespace)] == list(range(KEPT + 4, 4, -1))
