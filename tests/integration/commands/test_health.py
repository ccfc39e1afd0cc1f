"""What `contact-sync health` finds healthy, what it does not, and how fast it is found."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, Fleet
from worker.admin.health import default_bound_seconds
from worker.config.settings import WorkerSettings
from worker.core.flow import Left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.waiting import WaitUntil

HEAVY = ("celery", "kombu", "httpx", "uvicorn", "starlette", "structlog", "rich")


def waits_since(fleet: Fleet, seconds: float, owner: str = "1") -> None:
    """Lets a change wait that Redis accepted so long ago."""
    fleet.append(owner, "2", "upsert", entry=f"{fleet.now_ms() - int(1000 * seconds)}-0")


def test_an_idle_fleet_is_healthy_and_the_look_records_nothing(fleet: Fleet) -> None:
    ran = run(fleet, "health")
    assert (ran.exit_code, ran.stdout) == (0, "healthy: nothing waits\n")
    assert fleet.client.keys(f"{fleet.keys.namespace}*") == []


def test_a_change_that_waits_less_than_the_bound_is_healthy(fleet: Fleet) -> None:
    waits_since(fleet, 20)
    assert run(fleet, "health", "--older-than", "60").stdout.startswith("healthy: the oldest change has waited for 2")


def test_a_change_that_waits_longer_while_nothing_moves_is_unhealthy(fleet: Fleet) -> None:
    waits_since(fleet, 61)
    ran = run(fleet, "health", "--older-than", "60")
    assert ran.exit_code == 1
    assert ran.stdout.startswith("unhealthy: the oldest change has waited for 1 min")
    assert ran.stdout.endswith("though the endpoint is ok; no worker is awake\n")
    assert ran.stdout.count("\n") == 1


def test_without_a_bound_given_it_follows_from_the_settings(fleet: Fleet) -> None:
    assert default_bound_seconds(WorkerSettings()) == 30
    assert told(fleet, "health", linger_seconds=120.0)["older_than_seconds"] > 120
    waits_since(fleet, 61)
    assert run(fleet, "health").exit_code == 1
    assert run(fleet, "health", linger_seconds=120.0).exit_code == 0


def test_json_tells_verdict_and_reason(fleet: Fleet) -> None:
    waits_since(fleet, 61)
    ran = run(fleet, "health", "--json")
    found = json.loads(ran.stdout)
    assert ran.exit_code == 1
    assert (found["healthy"], found["reason"], found["outside"]) == (False, "no_progress", False)
    assert 61 <= found["oldest_seconds"] < 90


# An old backlog that moves


def test_an_old_backlog_that_a_worker_holds_is_healthy(fleet: Fleet) -> None:
    waits_since(fleet, 3600)
    fleet.client.set(fleet.keys.lease(0), "1", px=60_000)
    found = told(fleet, "health")
    assert (found["reason"], found["message"].rpartition(", ")[2]) == ("progress", "but 1 partition is worked on")


def test_an_old_backlog_that_moves_is_healthy(fleet: Fleet) -> None:
    waits_since(fleet, 3600)
    with again_and_again(lambda: fleet.client.hincrby(fleet.keys.totals(0), "records_confirmed", 1)):
        found = told(fleet, "health")
    assert (found["reason"], found["message"].rpartition(", ")[2]) == ("progress", "but changes move")


def test_a_rate_at_which_requests_are_far_apart_is_healthy_as_long_as_workers_use_it(fleet: Fleet) -> None:
    fleet.change(rate=0.1)
    waits_since(fleet, 3600)
    assert run(fleet, "health").exit_code == 1  # nobody has sent anything for long
    worker = fleet.worker()
    place = worker.gate.ask(60.0)
    worker.gate.report(place.gate.generation, "confirmed", left=Left(place.token))
    found = told(fleet, "health")
    assert (found["reason"], found["outside"]) == ("progress", False)
    assert ", and 0.1 requests a second let the next one out in " in found["message"]


def test_what_producers_append_is_no_progress(fleet: Fleet) -> None:
    waits_since(fleet, 3600)
    with again_and_again(lambda: fleet.append("1", "3", "upsert")):
        assert run(fleet, "health").exit_code == 1


@contextmanager
def again_and_again(act: object) -> Iterator[None]:
    """Acts from another thread until the block ends."""
    assert callable(act)
    over = threading.Event()

    def go() -> None:
        while not over.wait(0.02):
            act()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# Reasons that lie outside


def test_a_held_endpoint_is_healthy_and_named(fleet: Fleet) -> None:
    waits_since(fleet, 3600)
    fleet.worker(server_key_secret="wrong", backoff_max_seconds=60.0).flusher.run(1.0)
    ran = run(fleet, "health")
    assert ran.exit_code == 0
    assert ran.stdout.startswith(
        "healthy, the reason is outside the workers: the endpoint is held (credentials), next try in "
    )
    assert told(fleet, "health")["reason"] == "endpoint_held"


def test_an_endpoint_that_is_backing_off_is_healthy_and_named(fleet: Fleet) -> None:
    waits_since(fleet, 3600)
    fleet.stand_in.faults({"kind": "status", "status": 503, "retry_after": "60"})
    fleet.worker(backoff_max_seconds=60.0).flusher.run(1.0)
    found = told(fleet, "health")
    assert (found["healthy"], found["reason"], found["outside"]) == (True, "endpoint_backing_off", True)


def test_an_endpoint_that_nobody_tries_again_is_unhealthy(fleet: Fleet) -> None:
    waits_since(fleet, 3600)
    fleet.worker(server_key_secret="wrong", backoff_max_seconds=60.0).flusher.run(1.0)
    fleet.client.hset(fleet.keys.gate, "not_before", fleet.now_ms() - 61_000)
    ran = run(fleet, "health", "--older-than", "60")
    assert ran.exit_code == 1
    assert "the endpoint is held (credentials), next try now, and nobody tries it" in ran.stdout
    assert run(fleet, "health", "--older-than", "90").exit_code == 0


def test_a_key_of_another_type_is_no_reason_to_restart_and_named(fleet: Fleet) -> None:
    fleet.client.set(fleet.keys.pending(fleet.partition("1")), "no hash")
    waits_since(fleet, 3600)
    found = told(fleet, "health")
    assert (found["healthy"], found["reason"]) == (True, "wrong_type_partitions")


def test_a_redis_that_is_away_is_no_reason_to_restart_and_named_without_its_password(fleet: Fleet) -> None:
    ran = run(fleet, "health", redis_url="redis://me:pass-word@127.0.0.1:1/0?db=1")
    assert ran.exit_code == 0
    assert ran.stdout.startswith("healthy, the reason is outside the workers: Redis at redis://127.0.0.1:1/0")
    assert ran.stdout.count("\n") == 1
    assert "pass-word" not in ran.output
    assert told(fleet, "health", redis_url="redis://127.0.0.1:1/0")["oldest_seconds"] is None


# Usage


@pytest.mark.parametrize("bound", ["0", "-1", "soon", "nan", "inf"])
def test_a_bound_that_is_none_is_exit_status_2(fleet: Fleet, bound: str) -> None:
    ran = run(fleet, "health", "--older-than", bound)
    assert (ran.exit_code, ran.stdout) == (2, "")


def test_another_number_of_partitions_than_recorded_is_exit_status_2(fleet: Fleet) -> None:
    fleet.flush()
    assert run(fleet, "health", partitions=PARTITIONS + 1).exit_code == 2


def test_it_loads_nothing_that_it_does_not_need_whatever_is_configured(fleet: Fleet, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from worker.cli.main import main\n"
        "main(['health'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=fleet.environment(broker_url="redis://127.0.0.1:6379/1", endpoint_url="http://[::1]:8080"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stderr.splitlines()[-1] == "[]"


def test_a_fleet_is_healthy_again_once_its_backlog_is_delivered(fleet: Fleet, wait_until: WaitUntil) -> None:
    waits_since(fleet, 3600)
    assert run(fleet, "health").exit_code == 1
    fleet.deliver()
    wait_until(lambda: told(fleet, "health")["reason"] == "idle", what="nothing waits")
