"""How `check` judges a server: its version, its eviction policy, and what a crash of it loses."""

from __future__ import annotations

import pytest

from worker.admin.check_redis import check_persistence, check_server


@pytest.mark.parametrize(
    ("version", "severity"), [("6.0.16", "wrong"), ("6.2.0", "ok"), ("7.4.1", "ok"), ("10.0", "ok")]
)
def test_a_redis_older_than_6_2_is_wrong(version: str, severity: str) -> None:
    assert next(iter(check_server({"redis_version": version}, "redis://x"))).severity == severity


@pytest.mark.parametrize(("policy", "severity"), [("noeviction", "ok"), ("allkeys-lru", "wrong")])
def test_an_eviction_policy_that_drops_changes_is_wrong(policy: str, severity: str) -> None:
    _, eviction = check_server({"redis_version": "7.4", "maxmemory_policy": policy}, "redis://x")
    assert eviction.severity == severity


@pytest.mark.parametrize(
    ("aof", "appendfsync", "save", "severity", "risk"),
    [
        (1, "always", "", "ok", "loses nothing"),
        (1, "everysec", "", "ok", "may lose the last"),
        (1, "no", "", "warn", "may lose"),
        (1, None, None, "warn", "does not tell"),
        (0, "everysec", "3600 1", "warn", "since the last one"),
        (0, "everysec", "", "warn", "loses everything"),
        (0, None, None, "warn", "does not tell"),
    ],
)
def test_persistence_is_told_with_what_it_risks(
    aof: int, appendfsync: str | None, save: str | None, severity: str, risk: str
) -> None:
    found = check_persistence({"aof_enabled": aof}, appendfsync, save)
    assert found.severity == severity
    assert risk in found.message
