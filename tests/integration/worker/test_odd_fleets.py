"""Fleets that are put together wrongly, starved or of another time: every pair ends as the rules say."""

from __future__ import annotations

import random
import shutil
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import run, told
from tests.support.fleet import Fleet, T
from tests.support.waiting import wait_until
from tests.support.worker_process import PROCESS, WorkerProcess, wait_until_delivered
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from pathlib import Path

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(170)

Changes = list[tuple[str, str, str, int | None]]


def changes(count: int, seed: int, first_at: int = T) -> Changes:
    """Changes of few pairs, each with a time of its own, in an order that is not theirs."""
    chance = random.Random(seed)
    made: Changes = [
        (f"o{chance.randrange(30)}", str(chance.randrange(10)), chance.choice(["upsert", "delete"]), first_at + i)
        for i in range(count)
    ]
    chance.shuffle(made)
    return made


def ends(said: Changes) -> set[tuple[str, str]]:
    """The pairs that are there in the end: those whose latest change is an upsert."""
    last = {(owner, contact): op for owner, contact, op, at in sorted(said, key=lambda each: each[3] or 0)}
    return {pair for pair, op in last.items() if op == "upsert"}


def test_workers_with_other_settings_than_each_other_end_every_pair_right(process_fleet: Fleet, tmp_path: Path) -> None:
    fleet, said = process_fleet, changes(3_000, seed=1)
    one = fleet.environment(batch_size=1, ledger_seconds=1, late_seconds=0.0, linger_seconds=0.0)
    other = fleet.environment(batch_size=500, ledger_seconds=3600, late_seconds=1.0, linger_seconds=0.2)
    with ExitStack() as undo:
        for i, environment in enumerate((one, other)):
            undo.enter_context(WorkerProcess(environment, tmp_path / str(i))).wait_until_ready()
        for i in range(0, len(said), 500):
            fleet.append_many(said[i : i + 500])
            fleet.stand_in.faults({"kind": "hang", "times": 1}, {"kind": "status", "status": 503, "times": 2})
            time.sleep(0.3)
        wait_until_delivered(fleet, seconds=120)
    assert fleet.stand_in.contacts() == ends(said)
    assert (fleet.stand_in.counts()["pair_twice"], fleet.stand_in.counts()["upsert_after_delete"]) == (0, 0)


def test_workers_that_are_starved_longer_than_their_lease_end_every_pair_right(
    process_fleet: Fleet, tmp_path: Path
) -> None:
    fleet, said, chance = process_fleet, changes(4_000, seed=2), random.Random(2)
    fleet.change(batch_size=20)  # the lease is a second longer than the timeout, as short as it may be
    with ExitStack() as undo:
        workers = [
            undo.enter_context(WorkerProcess(fleet.environment(), tmp_path / str(i))).wait_until_ready()
            for i in range(2)
        ]
        fleet.stand_in.faults({"kind": "delay", "seconds": 0.1})
        for i in range(0, len(said), 500):
            fleet.append_many(said[i : i + 500])
            starved = workers[(i // 500) % 2]
            starved.signal_all(signal.SIGSTOP)
            time.sleep(chance.uniform(0.5, 3.0))  # the lease is 2 s
            starved.signal_all(signal.SIGCONT)
            time.sleep(chance.uniform(0.0, 0.3))
        fleet.stand_in.remove_faults()
        wait_until_delivered(fleet, seconds=120)
        assert any("lease_lost" in each.said() for each in workers)
    assert fleet.stand_in.contacts() == ends(said)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_an_hour_off_redis_ends_every_pair_right(
    process_fleet: Fleet, tmp_path: Path, hours: int
) -> None:
    fleet, said = process_fleet, changes(1_000, seed=3)
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "_time, _time_ns = time.time, time.time_ns\n"
        f"time.time = lambda: _time() + {hours * 3600}\n"
        f"time.time_ns = lambda: _time_ns() + {hours * 3600} * 10**9\n",
        encoding="utf-8",
    )
    environment: dict[str, Any] = fleet.environment() | {"PYTHONPATH": str(tmp_path)}
    with WorkerProcess(environment, tmp_path / "worker") as worker:
        worker.wait_until_ready()
        fleet.append_many(said[:500])
        soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
        fleet.stand_in.faults(
            {"kind": "hang", "times": 1}, {"kind": "status", "status": 503, "retry_after": soon, "times": 1}
        )
        fleet.append_many(said[500:])
        wait_until_delivered(fleet, seconds=60)
        worker.end()
    assert fleet.stand_in.contacts() == ends(said)
    assert told(fleet, "status")["oldest_seconds"] is None
    wait_until(lambda: not fleet.marks(), seconds=10, what="no late mark stays")


def test_workers_that_share_a_namespace_but_not_their_endpoint_are_named(process_fleet: Fleet, tmp_path: Path) -> None:
    def differ() -> str:
        return " ".join(
            each["message"] for each in told(process_fleet, "status")["obstacles"] if each["name"] == "mixed_settings"
        )

    elsewhere = process_fleet.environment(endpoint_url="http://127.0.0.1:1", readd="absorb")
    with WorkerProcess(process_fleet.environment(), tmp_path / "one") as one:
        one.wait_until_ready()
        assert not differ()
        with WorkerProcess(elsewhere, tmp_path / "two") as two:
            two.wait_until_ready()
            wait_until(differ, seconds=20, what="it is named")
            assert "CONTACT_SYNC_ENDPOINT_URL, CONTACT_SYNC_READD" in differ()
            assert "127.0.0.1:1" not in differ()
            two.end()
        wait_until(lambda: not differ(), seconds=20, what="the other has left")


def test_a_restored_backup_ends_right_if_it_is_paused_until_what_changed_since_is_said_again(
    tmp_path: Path, namespace: str, stand_in: StandInClient
) -> None:
    """As docs/how-to/backup.md says: all workers were stopped, so nobody remembers that Redis was newer."""
    data, backup, since = tmp_path / "data", tmp_path / "backup", [(str(i), "2", "delete", T + 5) for i in range(20)]
    with (
        EmbeddedRedis(data) as server,
        Fleet(server.url, namespace, stand_in, **PROCESS) as fleet,
        WorkerProcess(fleet.environment(), tmp_path / "before") as worker,
    ):
        worker.wait_until_ready()
        stand_in.faults({"kind": "status", "status": 503})
        fleet.append_many([(str(i), "2", "upsert", T) for i in range(20)])
        wait_until(fleet.pending, what="they wait for the endpoint")
        shutil.copytree(data, backup, ignore=shutil.ignore_patterns("*.sock"))
        stand_in.remove_faults()
        fleet.append_many(since)
        wait_until_delivered(fleet)
        assert worker.end() == 0
    assert stand_in.contacts() == set()
    backup.chmod(0o700)
    with EmbeddedRedis(backup) as server, Fleet(server.url, namespace, stand_in, **PROCESS) as fleet:
        assert run(fleet, "pause").exit_code == 0
        with WorkerProcess(fleet.environment(), tmp_path / "after") as worker:
            worker.wait_until_ready()
            fleet.append_many(since)
            assert run(fleet, "resume").exit_code == 0
            wait_until_delivered(fleet)
            assert worker.end() == 0
    assert stand_in.contacts() == set()


def test_a_database_is_a_broker_too(process_fleet: Fleet, tmp_path: Path) -> None:
    """kombu gives its engine every option of the transport, and those of a Redis are none of them."""
    fleet = process_fleet
    with WorkerProcess(fleet.environment(broker_url=f"sqla+sqlite:///{tmp_path}/hints.db"), tmp_path) as worker:
        worker.wait_until_ready()
        fleet.append_many([(str(n), "1", "upsert", None) for n in range(500)])
        wait_until_delivered(fleet)
        assert worker.end() == 0
        assert '"event": "broker_' not in worker.said()
