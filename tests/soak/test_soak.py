"""Some minutes of the soak in every run: enough for most kinds of faults to strike once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.nemesis import PREVIOUS
from tests.soak.report import write_report
from tests.soak.soak import Options, run
from tests.soak.verdict import verdict_of
from tests.support.previous import previous_commit

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = Options(seconds=35.0, seed=441, workers=3, rate=300.0)

LOSSES = Options(  # one step, in which both strike
    seconds=5.0,
    seed=45,
    workers=2,
    rate=200.0,
    only=("an owner erased", "master dies while its replicas are behind"),
    on="cluster",
)

UPGRADES = Options(seconds=25.0, seed=1, workers=2, rate=200.0, only=(*PREVIOUS, "worker killed"))


class Quiet:
    def at(self, fraction: float, what: str) -> None:
        """Nobody watches."""


@pytest.mark.timeout(600)  # the strikes take half a minute, and what follows takes what it takes
def test_a_system_that_faults_strike_loses_nothing_and_ends_as_the_contract_says(tmp_path: Path) -> None:
    ran = run(OPTIONS, tmp_path, Quiet())
    verdict = verdict_of(ran)
    report = write_report(tmp_path / "report", ran, verdict)
    assert [str(each.says) for each in verdict.wrong] == [], report.read_text("utf-8")
    # It proves nothing unless there was something to prove.
    assert verdict.counts["accepted"] > 1_500
    assert verdict.counts["applied"] > 700
    assert verdict.counts["dead letters"] > 5
    assert len(verdict.recoveries) > 7
    assert verdict.counts["refused to producers"] + verdict.counts["uncertain to producers"] > 0


@pytest.mark.timeout(300)
def test_what_a_failover_of_a_cluster_loses_is_reported_and_nothing_else_is_lost(tmp_path: Path) -> None:
    ran = run(LOSSES, tmp_path, Quiet())
    verdict = verdict_of(ran)
    report = write_report(tmp_path / "report", ran, verdict)
    assert [str(each.says) for each in verdict.wrong] == [], report.read_text("utf-8")
    assert verdict.counts["changes lost by failovers"] == verdict.counts["of these noticed"] > 0
    assert verdict.counts["people erased"] > 0
    assert verdict.counts["applied"] > 300


@pytest.mark.timeout(400)
def test_the_previous_release_works_beside_this_one_until_it_is_barred(tmp_path: Path) -> None:
    if previous_commit() is None:
        pytest.skip("the project's history is not here, so neither is its previous release")
    ran = run(UPGRADES, tmp_path, Quiet())
    verdict = verdict_of(ran)
    report = write_report(tmp_path / "report", ran, verdict)
    assert [str(each.says) for each in verdict.wrong] == [], report.read_text("utf-8")
    assert set(PREVIOUS) <= verdict.recoveries.keys()
    assert verdict.counts["accepted"] > 1_500
    assert verdict.counts["applied"] > 700
    assert ran.upgraded
