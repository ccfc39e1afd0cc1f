"""Whatever keeps deliveries from going on is in `status` and `health` by name, with what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess, wait_until_delivered
from worker.core.dead_letter import DEAD_CAP
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect

if TYPE_CHECKING:
    from pathlib import Path


def waits_for_an_hour(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", entry=f"{fleet.now_ms() - 3_600_000}-0")


def obstacles(fleet: Fleet, **overrides: Any) -> dict[str, dict[str, str]]:
    return {each["name"]: each for each in told(fleet, "status", **overrides)["obstacles"]}


def test_nothing_is_in_the_way_of_an_idle_fleet(fleet: Fleet) -> None:
    assert told(fleet, "status")["obstacles"] == []
    assert "in the way" not in run(fleet, "status").stdout


def test_that_no_worker_is_awake_is_named_with_what_to_do(fleet: Fleet) -> None:
    waits_for_an_hour(fleet)
    found = obstacles(fleet)["no_worker"]
    assert (found["message"], found["todo"]) == ("no worker is awake", "contact-sync worker")
    assert "none is awake: contact-sync worker" in run(fleet, "status").stdout
    ran = run(fleet, "health")
    assert ran.exit_code == 1
    assert "no worker is awake" in ran.stdout


def test_a_pause_and_a_held_endpoint_are_named(fleet: Fleet) -> None:
    waits_for_an_hour(fleet)
    fleet.first.gate.report(0, "hold", delay_seconds=60.0, reason="credentials", error="HTTP 401")
    found = obstacles(fleet)["endpoint_held"]
    assert "credentials" in found["message"]
    assert found["todo"] == "contact-sync check"
    run(fleet, "pause")
    named = obstacles(fleet)
    assert named["paused"]["todo"] == "contact-sync resume"
    assert "endpoint_held" not in named  # nothing is to be done about it before the pause ends


PARTITION_KEYS: list[str] = [
    *("events", "bulk", "pending", "late", "dead", "dead_pairs", "ledger_new", "ledger_old", "partition", "totals"),
    *("parked", "lease"),
]


@pytest.mark.parametrize("name", PARTITION_KEYS)
def test_a_foreign_key_in_a_partition_is_named_and_no_reason_to_restart_while_others_go_on(
    fleet: Fleet, name: str
) -> None:
    p = fleet.partition("1")
    key: str = getattr(fleet.keys, name)(p)
    if name != "events":
        waits_for_an_hour(fleet)
    fleet.client.set(key, "x") if name != "lease" else fleet.client.rpush(key, "x")
    fleet.flush(0.5)
    assert key in obstacles(fleet)["wrong_type_partitions"]["message"]
    assert key in run(fleet, "status").stdout
    if name != "events":
        found = told(fleet, "health")
        assert (found["healthy"], found["reason"]) == (True, "wrong_type_partitions")
        assert key in found["message"]


@pytest.mark.parametrize("name", ["reconcile", "reconcile_history", "reconcile_lease", "audit", "suppressed"])
def test_a_foreign_key_of_a_command_is_named_and_no_reason_to_restart(fleet: Fleet, name: str) -> None:
    key: str = getattr(fleet.keys, name)
    (fleet.client.set if name != "reconcile_lease" else fleet.client.rpush)(key, "x")
    assert key in obstacles(fleet)["wrong_type_keys"]["message"]
    assert key in run(fleet, "check").stdout
    assert told(fleet, "health")["healthy"]
    if name.startswith("reconcile"):
        for line in ("reconcile run -", "reconcile history"):
            ran = run(fleet, *line.split(), given="owner,contact\n1,2\n")
            assert (ran.exit_code, ran.stderr.count("\n")) == (1, 1)
            assert f"the key {key} has the wrong type: something else wrote it" in ran.stderr


@pytest.mark.parametrize("name", ["gate", "ticker", "inbox", "workers"])
def test_a_foreign_key_of_the_fleet_is_named(fleet: Fleet, name: str) -> None:
    waits_for_an_hour(fleet)
    key: str = getattr(fleet.keys, name)
    (fleet.client.set if name != "ticker" else fleet.client.rpush)(key, "x")
    assert key in obstacles(fleet)["wrong_type_keys"]["message"]
    assert key in run(fleet, "health").stdout
    if name in {"gate", "ticker"}:
        found = told(fleet, "health")
        assert (found["healthy"], found["reason"]) == (False, "wrong_type_keys")


def test_check_names_every_foreign_key_at_once(fleet: Fleet) -> None:
    fleet.client.set(fleet.keys.inbox, "x")
    fleet.client.set(fleet.keys.events(3), "x")
    fleet.client.set(fleet.keys.audit, "x")
    wrong = [each["message"] for each in told(fleet, "check")["checks"] if each["name"] == "streams"]
    for named in (fleet.keys.inbox, "in partitions 3", fleet.keys.audit):
        assert [named in each for each in wrong].count(True) == 1, wrong


def test_a_partition_with_a_foreign_key_hides_no_other_that_stands_still(fleet: Fleet) -> None:
    waits_for_an_hour(fleet)
    fleet.client.set(fleet.keys.pending((fleet.partition("1") + 1) % PARTITIONS), "x")
    ran = run(fleet, "health")
    assert ran.exit_code == 1
    assert "no worker is awake" in ran.stdout


def test_full_dead_letters_that_hold_up_a_log_are_named(fleet: Fleet) -> None:
    p = fleet.partition("1")
    fleet.client.hset(fleet.keys.dead(p), mapping={f"{p}-old{i}": b"{}" for i in range(DEAD_CAP)})
    fleet.append_raw(p, {"nonsense": "1"}, entry=f"{fleet.now_ms() - 3_600_000}-0")
    fleet.flush(0.5)
    found = obstacles(fleet)["dead_letters_full"]
    assert f"partitions {p}" in found["message"]
    assert found["todo"] == "contact-sync dead-letters redrive, or purge"
    health = told(fleet, "health")
    assert (health["healthy"], health["reason"]) == (True, "dead_letters_full")


def test_a_repartition_that_was_cut_off_is_named(fleet: Fleet) -> None:
    fleet.flush()
    fleet.client.hset(fleet.keys.config, "repartitioning", "16")
    for command in ("status", "health"):
        ran = run(fleet, command)
        assert ran.exit_code != 0
        assert "16" in ran.output
        assert "contact-sync repartition" in ran.output


def test_partitions_that_are_closed_are_named_as_what_they_are(fleet: Fleet) -> None:
    waits_for_an_hour(fleet)
    p = (fleet.partition("1") + 1) % PARTITIONS
    fleet.client.set(fleet.keys.events(p), "closed: the number of partitions became 16")
    found = obstacles(fleet)
    assert f"partitions {p}" in found["closed_partitions"]["message"]
    assert "contact-sync repartition" in found["closed_partitions"]["todo"]
    assert "wrong_type_partitions" not in found


@pytest.mark.timeout(120)
def test_a_broker_that_takes_no_hints_is_named_by_those_who_do_without(process_fleet: Fleet, tmp_path: Path) -> None:
    with EmbeddedRedis() as broker, connect(broker.url) as client:
        process_fleet.change(broker_url=broker.url)
        with WorkerProcess(process_fleet.environment(), tmp_path) as worker:
            worker.wait_until_ready()
            client.acl_setuser("default", enabled=True, nopass=True, keys="*", channels="*", categories=["+@all"])
            client.acl_setuser("default", enabled=True, commands=["-lpush"])
            process_fleet.append("1", "2", "upsert", T)
            wait_until_delivered(process_fleet)
            wait_until(lambda: "broker_refuses" in obstacles(process_fleet), seconds=30, what="it is named")
