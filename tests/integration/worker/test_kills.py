"""Whole worker processes that are killed, and what they do while Redis or the endpoint is away."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from tests.support.fleet import Fleet
from tests.support.redis_proxy import RedisProxy
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, PROCESS, THREADS, WorkerProcess, wait_until_delivered
from worker.local.data_dir import free_port
from worker.local.redis import EmbeddedRedis
from worker.process.watchdog import EXIT_STALLED
from worker.standin.server import StandInThread

if TYPE_CHECKING:
    from pathlib import Path

    from worker.standin.client import StandInClient

# Processes start slowly: a whole scenario may take its time.
pytestmark = pytest.mark.timeout(120)


# Kills


def test_a_worker_that_is_killed_in_mid_request_is_replaced_by_another_after_its_lease(
    process_fleet: Fleet, tmp_path: Path
) -> None:
    process_fleet.change(request_timeout_seconds=5.0, lease_seconds=6.0)
    process_fleet.stand_in.faults({"kind": "hang", "times": 1})
    with WorkerProcess(process_fleet.environment(), tmp_path) as doomed:
        doomed.wait_until_ready()
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: process_fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
        with WorkerProcess(process_fleet.environment(), tmp_path) as other:
            other.wait_until_ready()
            doomed.kill()
            begun = time.monotonic()
            wait_until(process_fleet.stand_in.contacts, seconds=20, what="the other worker delivers it")
            assert time.monotonic() - begun < 6.0 + 2.0
            wait_until_delivered(process_fleet)
            assert other.end() == 0
    assert process_fleet.stand_in.contacts() == {("1", "2")}


def test_a_child_that_is_killed_in_mid_request_costs_a_lease_and_no_change(
    process_fleet: Fleet, tmp_path: Path
) -> None:
    process_fleet.stand_in.faults({"kind": "hang", "times": 1})
    with WorkerProcess(process_fleet.environment(), tmp_path, PREFORK) as worker:
        worker.wait_until_ready()
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: process_fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
        for child in worker.children():
            os.kill(child, signal.SIGKILL)
        process_fleet.append("1", "2", "delete")
        wait_until_delivered(process_fleet)
        assert worker.process.poll() is None
    assert process_fleet.stand_in.contacts() == set()


def test_workers_that_are_killed_again_and_again_deliver_every_change(process_fleet: Fleet, tmp_path: Path) -> None:
    process_fleet.change(batch_size=20)
    process_fleet.stand_in.settings(latency_seconds=0.05)
    pairs = [(f"owner{i % 30}", str(i)) for i in range(3_000)]
    process_fleet.append_many((owner, contact, "upsert", None) for owner, contact in pairs)
    for kill in range(2):
        with WorkerProcess(process_fleet.environment(), tmp_path, THREADS if kill else PREFORK) as worker:
            worker.wait_until_ready()
            seen = process_fleet.stand_in.counts()["contacts"]
            wait_until(lambda: process_fleet.stand_in.counts()["contacts"] > seen + 100, seconds=20, what="it works")  # noqa: B023 - waited for in this very turn
            worker.kill()
    process_fleet.stand_in.settings(latency_seconds=0.0)
    with WorkerProcess(process_fleet.environment(), tmp_path) as worker:
        wait_until_delivered(process_fleet)
        assert worker.end() == 0
    assert process_fleet.stand_in.contacts() == set(pairs)
    totals = process_fleet.totals()
    assert totals["events"] == 3_000 == totals["records_confirmed"] + totals.get("coalesced", 0)


# What is away


def test_a_worker_waits_for_a_redis_that_is_away_at_its_start_and_says_so_once(
    process_fleet: Fleet, tmp_path: Path, redis_server: EmbeddedRedis
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    process_fleet.append("1", "2", "upsert")
    with WorkerProcess(process_fleet.environment(redis_url=url, broker_url=None), tmp_path) as worker:
        wait_until(lambda: "redis_away" in worker.said(), seconds=20, what="the worker says what it waits for")
        with RedisProxy(redis_server.url, port):
            wait_until_delivered(process_fleet)
            assert worker.said().count("redis_away") == 1
            assert "redis_back" in worker.said()
            assert worker.end() == 0


def test_a_worker_delivers_on_after_a_crash_and_restart_of_redis(
    tmp_path: Path, namespace: str, stand_in: StandInClient
) -> None:
    with (
        EmbeddedRedis(tmp_path / "data", config={"appendfsync": "always"}) as server,
        Fleet(server.url, namespace, stand_in, **PROCESS) as fleet,
        WorkerProcess(fleet.environment(), tmp_path / "log") as worker,
    ):
        worker.wait_until_ready()
        fleet.append("1", "1", "upsert")
        wait_until_delivered(fleet)
        server.restart(kill=True)
        fleet.client.connection_pool.disconnect()
        fleet.append("1", "2", "upsert")
        wait_until(lambda: len(stand_in.contacts()) == 2, seconds=40, what="it is delivered")
        assert worker.end() == 0


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_worker_lives_through_a_redis_that_takes_no_writes(
    tmp_path: Path, namespace: str, stand_in: StandInClient, options: tuple[str, ...], fault: str
) -> None:
    """As after a failover, or at its memory limit; broker and log are the same server, so that both refuse."""
    with (
        EmbeddedRedis() as server,
        Fleet(server.url, namespace, stand_in, **PROCESS) as fleet,
        WorkerProcess(fleet.environment(), tmp_path, options) as worker,
    ):
        worker.wait_until_ready()
        fleet.append("1", "1", "upsert")
        wait_until_delivered(fleet)
        stand_in.settings(latency_seconds=0.5)
        fleet.append("1", "1", "delete")
        fleet.append("1", "2", "upsert")
        if fault == "read-only":
            fleet.client.replicaof("127.0.0.1", "1")  # nobody is there to copy from: it keeps what it has
        else:
            fleet.client.config_set("maxmemory", 1)
        met = "broker_away" if fault == "full" else "redis_away"  # a full one still lets a script take away
        wait_until(lambda: met in worker.said(), seconds=20, what="the worker has met it")
        wait_until(lambda: not stand_in.counts()["in_flight"], what="what was out is answered")
        fleet.client.config_set("maxmemory", 0)
        fleet.client.replicaof("NO", "ONE")
        fleet.append("1", "3", "upsert")
        wait_until(lambda: stand_in.contacts() == {("1", "2"), ("1", "3")}, seconds=40, what="all is delivered")
        wait_until_delivered(fleet)
        assert worker.end() == 0, worker.said()


def test_a_worker_delivers_once_an_endpoint_that_refused_connections_is_there(
    process_fleet: Fleet, tmp_path: Path
) -> None:
    port = free_port()
    with WorkerProcess(process_fleet.environment(endpoint_url=f"http://127.0.0.1:{port}"), tmp_path) as worker:
        worker.wait_until_ready()
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: process_fleet.first.gate.snapshot().attempts >= 2, what="two attempts failed")
        with StandInThread(port=port) as endpoint:
            wait_until_delivered(process_fleet)
            assert endpoint.contacts() == {("1", "2")}
        assert worker.end() == 0


def test_a_worker_that_consumes_no_more_ends_with_a_status_so_that_it_is_started_anew(
    process_fleet: Fleet, tmp_path: Path
) -> None:
    settings = process_fleet.settings()
    with (
        WorkerProcess(process_fleet.environment(), tmp_path) as worker,
        Celery("control", broker=settings.celery_broker_url) as app,
    ):
        worker.wait_until_ready()
        app.control.cancel_consumer(settings.namespace)
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: worker.process.poll() is not None, seconds=60, what="the worker has ended")
        assert (worker.exit_status(), "consumer_stalled" in worker.said()) == (EXIT_STALLED, True)
