"""The alert rules, by Prometheus' own tool: each fires when it should, and in a healthy fleet none does."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.alerts.prometheus import ROOT, RULES, program

TESTS = RULES.with_name("alerts_test.yml")


@pytest.mark.parametrize("args", [("check", "rules", RULES.name), ("test", "rules", TESTS.name)], ids=["check", "test"])
def test_promtool_is_content_with_them(args: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [program("promtool"), *args], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "SUCCESS" in ran.stdout


def test_each_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)", RULES.read_text(encoding="utf-8"), re.MULTILINE)
    tested = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?", TESTS.read_text(encoding="utf-8"))
    assert len(alerts) == len(set(alerts)) > 10
    assert {name for name, silent in tested if not silent} == set(alerts)
    assert {name for name, silent in tested if silent} == set(alerts)


def test_they_come_with_the_distribution_of_the_source() -> None:
    assert RULES.relative_to(ROOT).as_posix() in (ROOT / "docs" / "reference" / "metrics.md").read_text(
        encoding="utf-8"
    )
