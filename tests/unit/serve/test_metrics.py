"""docs/reference/metrics.md is the exporter's, and what alerts and the dashboard ask for is there to be asked for."""

from __future__ import annotations

import json
import re
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.snapshot import gate_of, snapshot
from worker.core.counters import BOUNDS_SECONDS
from worker.serve.metrics import Families, families, families_without_redis

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from worker.serve.snapshots import Snapshot

ROOT = Path(__file__).parents[3]
DOCUMENTED = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"

HELD = snapshot(gate_of("held", reason="credentials", wait_ms=1500, attempts=3))


def written(found: Iterable[Metric]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(found))
    return generate_latest(registry).decode()


def samples(of: Snapshot, full_seconds: float = inf) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample as Prometheus reads it, by name and the values of its labels."""
    parsed = text_string_to_metric_families(written(families(of, full_seconds)))
    every = [each for family in parsed for each in family.samples]
    return {(each.name, tuple(value for _, value in sorted(each.labels.items()))): each.value for each in every}


def exported() -> set[str]:
    """The names that can be asked for."""
    return {name for name, _ in samples(HELD)}


def test_the_table_is_the_exporters() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", DOCUMENTED, re.MULTILINE)
    expected = []
    for family in families(HELD, inf):
        labels = sorted({label for each in family.samples for label in each.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        told = ", ".join(f"`{label}`" for label in labels) or "–"  # noqa: RUF001 - as the table shows it
        expected.append((name, family.type, told, family.documentation.removesuffix(".")))
    assert rows == expected


def test_no_name_is_documented_or_asked_for_that_is_not_there() -> None:
    for path in (ROOT / "docs" / "reference" / "metrics.md", ALERTS, ALERTS.with_name("alerts_test.yml"), DASHBOARD):
        named = set(re.findall(r"contact_sync_[a-z_]+", path.read_text(encoding="utf-8")))
        assert len(named) > 10
        assert named - {"contact_sync_change_confirmation_seconds"} <= exported(), path


def test_the_dashboard_shows_every_metric_that_moves() -> None:
    asked = json.dumps([panel["targets"] for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]])
    left = {name for name in exported() if name not in asked and not name.endswith(("_sum", "_count", "_created"))}
    assert left == {
        "contact_sync_build_info",
        "contact_sync_changes_forgotten_total",
        "contact_sync_changes_suppressed_total",
        "contact_sync_endpoint_deleted_total",
        "contact_sync_endpoint_inserted_total",
        "contact_sync_gate_failed_attempts",
        "contact_sync_gate_wait_seconds",
        "contact_sync_redis_lost_changes",
        "contact_sync_redis_up",
        "contact_sync_requests_retried_total",
    }


def test_counters_are_the_totals() -> None:
    found = samples(snapshot())
    totals = snapshot().status.totals
    assert found["contact_sync_changes_accepted_total", ()] == totals["events"]
    assert found["contact_sync_changes_confirmed_total", ("upsert",)] == totals["upserts_confirmed"]
    assert found["contact_sync_changes_confirmed_total", ("delete",)] == totals["deletes_confirmed"]
    assert found["contact_sync_request_records_total", ()] == 321


@pytest.mark.parametrize(
    ("name", "total", "parts"),
    [
        ("contact_sync_requests_total", "requests", {"confirmed": 90, "retry": 7}),
        ("contact_sync_changes_dead_total", "dead_lettered", {"refused": 4}),
    ],
)
def test_what_was_counted_before_it_was_told_apart_is_unknown(name: str, total: str, parts: dict[str, int]) -> None:
    of = {labels[0]: value for (found, labels), value in samples(snapshot()).items() if found == name}
    assert of == {**parts, "unknown": snapshot().status.totals[total] - sum(parts.values())}


def test_the_time_to_confirmation_is_a_histogram() -> None:
    name = "contact_sync_change_confirmation_seconds"
    found = {labels: value for (each, labels), value in samples(snapshot()).items() if each == f"{name}_bucket"}
    assert len(found) == 2 * (len(BOUNDS_SECONDS) + 1)
    assert (found["0.25", "upsert"], found["0.5", "upsert"], found["+Inf", "upsert"]) == (0, 1, 1)
    assert samples(snapshot())[f"{name}_count", ("upsert",)] == 1
    assert samples(snapshot())[f"{name}_sum", ("upsert",)] == 0.3
    assert samples(snapshot())[f"{name}_count", ("delete",)] == 0


def test_the_gate_tells_its_state_and_why_it_is_held() -> None:
    found = samples(HELD)
    states = {labels[0]: value for (name, labels), value in found.items() if name == "contact_sync_gate_state"}
    assert states == {"ok": 0, "backing_off": 0, "held": 1}
    assert found["contact_sync_gate_held", ("credentials",)] == 1
    assert found["contact_sync_gate_wait_seconds", ()] == 1.5
    assert not [name for name, _ in samples(snapshot()) if name == "contact_sync_gate_held"]


def test_gauges_are_those_of_the_snapshot() -> None:
    found = {name: value for (name, labels), value in samples(snapshot(), 60.0).items() if not labels}
    assert found["contact_sync_oldest_change_age_seconds"] == 2.5
    assert found["contact_sync_backlog_entries"] == 11
    assert found["contact_sync_pending_pairs"] == 12
    assert found["contact_sync_leases_held"] == 1
    assert found["contact_sync_ticker_alive"] == 1
    assert found["contact_sync_redis_memory_used_bytes"] == 1000
    assert found["contact_sync_redis_memory_max_bytes"] == 4000
    assert found["contact_sync_redis_memory_full_seconds"] == 60
    assert samples(snapshot(oldest_ms=None))["contact_sync_oldest_change_age_seconds", ()] == 0


def test_each_lane_tells_what_waits_in_it() -> None:
    found = samples(snapshot())
    for name, live, bulk in (("backlog_entries", 4, 7), ("pending_pairs", 5, 8), ("oldest_change_age_seconds", 2.5, 9)):
        of = {labels[0]: value for (each, labels), value in found.items() if each == f"contact_sync_lane_{name}"}
        assert of == {"live": live, "bulk": bulk}


def test_without_redis_only_that_is_told() -> None:
    told = [line for line in written(families_without_redis(up=False)).splitlines() if not line.startswith("#")]
    assert told[0] == "contact_sync_redis_up 0.0"
    assert len(told) == 2
