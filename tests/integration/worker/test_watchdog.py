"""A worker that stops consuming ends itself, also among healthy ones, and no other worker does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.redis_proxy import RedisProxy
from tests.support.waiting import wait_until
from tests.support.worker_process import (
    PREFORK,
    THREADS,
    WorkerProcess,
    broker_url,
    wait_until_delivered,
)
from worker.process.watchdog import EXIT_STALLED

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Iterator

    from tests.support.fleet import Fleet
    from worker.local.redis import EmbeddedRedis

# Processes start slowly, and patience takes its time.
pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[3]
IMPATIENT = (sys.executable, "-m", "celery", "-A", "tests.support.impatient", "worker", "-l", "INFO")

POOLS = pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])


class Swallowing(RedisProxy):
    """A way to Redis on which packets get lost without a trace, as behind a firewall that forgot its connections."""

    def __init__(self, redis_url: str, port: int = 0) -> None:
        super().__init__(redis_url, port)
        self.url = self.url.removesuffix("/0") + "/1"
        self.swallows_all = False
        self._swallowed: set[socket.socket] = set()

    def swallow_open_ones(self) -> None:
        """New connections work."""
        self._swallowed = set(self._open)

    def _requests(self, client: socket.socket, server: socket.socket, _loses: threading.Event) -> None:
        self._forward(client, server)

    def _replies(self, client: socket.socket, server: socket.socket, _loses: threading.Event) -> None:
        self._forward(server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if not self.swallows_all and source not in self._swallowed:
                    target.sendall(data)
            target.shutdown(1)


@pytest.fixture
def way(redis_server: EmbeddedRedis) -> Iterator[Swallowing]:
    """To the broker."""
    with Swallowing(redis_server.url) as proxy:
        yield proxy


def impatient(
    fleet: Fleet,
    directory: Path,
    options: tuple[str, ...] = THREADS,
    way: Swallowing | None = None,
    stalled_seconds: float = 3.0,
) -> WorkerProcess:
    environment = fleet.environment(**({} if way is None else {"broker_url": way.url}))
    environment |= {"PYTHONPATH": str(ROOT), "STALLED_SECONDS": str(stalled_seconds)}
    return WorkerProcess(environment, directory, options, IMPATIENT)


def wait_until_consuming(fleet: Fleet, worker: WorkerProcess, times: int = 1) -> None:
    """Returns when the worker has noted so often that it consumes."""
    left = 0
    sign = f":{worker.process.pid}:".encode()

    def noted() -> bool:
        nonlocal times, left
        assert worker.process.poll() is None, worker.said()
        before, left = left, fleet.client.pttl(fleet.keys.last_consumer)
        if left > before and sign in (fleet.client.get(fleet.keys.last_consumer) or b""):
            times -= 1
        return times <= 0

    wait_until(noted, seconds=90, what="it consumes")


def wait_until_ended(worker: WorkerProcess, seconds: float = 60) -> None:
    wait_until(lambda: worker.process.poll() is not None, seconds=seconds, what="the stalled one has ended")
    assert (worker.exit_status(), "consumer_stalled" in worker.said()) == (EXIT_STALLED, True)


# Stalled


@POOLS
def test_one_that_loses_its_way_to_the_broker_among_healthy_ones_ends(
    process_fleet: Fleet, tmp_path: Path, way: Swallowing, options: tuple[str, ...]
) -> None:
    with impatient(process_fleet, tmp_path) as healthy, impatient(process_fleet, tmp_path, options, way) as stalled:
        healthy.wait_until_ready()
        stalled.wait_until_ready()
        wait_until_consuming(process_fleet, stalled)
        way.swallows_all = True
        process_fleet.append("1", "2", "upsert")
        wait_until_ended(stalled)
        process_fleet.append("1", "3", "upsert")
        wait_until_delivered(process_fleet)
        wait_until_consuming(process_fleet, healthy)
        assert healthy.end() == 0
    assert process_fleet.stand_in.contacts() == {("1", "2"), ("1", "3")}


def test_one_whose_connections_died_while_new_ones_work_ends_if_celery_does_not_find_out(
    process_fleet: Fleet, tmp_path: Path, way: Swallowing
) -> None:
    with impatient(process_fleet, tmp_path) as healthy, impatient(process_fleet, tmp_path, way=way) as stalled:
        healthy.wait_until_ready()
        stalled.wait_until_ready()
        wait_until_consuming(process_fleet, stalled)
        way.swallow_open_ones()
        wait_until_ended(stalled)  # sooner than Celery asks after its connections here
        assert healthy.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_one_whose_only_child_hangs_ends_with_it(process_fleet: Fleet, tmp_path: Path) -> None:
    one = ("-P", "prefork", "-c", "1")
    with impatient(process_fleet, tmp_path) as healthy, impatient(process_fleet, tmp_path, one) as stalled:
        healthy.wait_until_ready()
        stalled.wait_until_ready()
        wait_until_consuming(process_fleet, stalled)
        (child,) = stalled.children()
        os.kill(child, signal.SIGSTOP)
        wait_until_ended(stalled)
        assert healthy.end() == 0


# Not stalled


def test_a_connection_that_died_is_found_by_celery_long_before_patience_ends(
    process_fleet: Fleet, tmp_path: Path, way: Swallowing
) -> None:
    with WorkerProcess(process_fleet.environment(broker_url=way.url), tmp_path) as worker:
        worker.wait_until_ready()
        wait_until_consuming(process_fleet, worker)
        way.swallow_open_ones()
        key = process_fleet.keys.last_consumer
        wait_until(lambda: not process_fleet.client.exists(key), seconds=60, what="it consumes nothing")
        wait_until_consuming(process_fleet, worker)
        assert "consumer_stalled" not in worker.said()
        assert worker.end() == 0


@POOLS
def test_an_idle_one_consumes_its_own_hints(
    process_fleet: Fleet, tmp_path: Path, redis_server: EmbeddedRedis, options: tuple[str, ...]
) -> None:
    with impatient(process_fleet, tmp_path, options) as worker:
        worker.wait_until_ready()
        wait_until_consuming(process_fleet, worker, times=15)
        assert worker.end() == 0
    with redis.Redis.from_url(broker_url(redis_server.url)) as broker:
        assert not list(broker.scan_iter(f"{process_fleet.keys.namespace}:watchdog:*"))  # it takes its own hints back


def test_one_that_is_busy_for_longer_than_its_patience_goes_on(process_fleet: Fleet, tmp_path: Path) -> None:
    process_fleet.change(request_timeout_seconds=6.0, lease_seconds=8.0)
    process_fleet.stand_in.faults({"kind": "delay", "seconds": 5.0, "times": 3})
    with impatient(process_fleet, tmp_path, ("-P", "threads", "-c", "1")) as worker:
        worker.wait_until_ready()
        for owner in range(3):
            process_fleet.append(str(owner), "2", "upsert")
            seen = owner + 1
            wait_until(lambda: process_fleet.stand_in.counts()["requests"] == seen, seconds=30, what="it is out")  # noqa: B023 - waited for in this very turn
        wait_until_delivered(process_fleet)
        assert "consumer_stalled" not in worker.said()
        assert worker.end() == 0


@pytest.mark.parametrize("fault", ["swallowed", "refused"])
def test_nobody_is_stalled_while_the_broker_is_away_for_all(
    process_fleet: Fleet, tmp_path: Path, redis_server: EmbeddedRedis, fault: str
) -> None:
    with contextlib.ExitStack() as ways:
        way = ways.enter_context(Swallowing(redis_server.url))
        # Shorter than the broker is away. It is back before kombu, after eight seconds, drops the connection that died:
        # one that is made while packets get lost is dropped much later.
        workers = [
            ways.enter_context(impatient(process_fleet, tmp_path, way=way, stalled_seconds=5.0)) for _ in range(2)
        ]
        for worker in workers:
            worker.wait_until_ready()
            wait_until_consuming(process_fleet, worker)
        if fault == "swallowed":
            way.swallows_all = True
        else:
            way.__exit__(None, None, None)
        for contact in range(3):  # by the ticker, which finds out anew each time
            process_fleet.append("1", str(contact), "upsert")
            wait_until_delivered(process_fleet)
        assert [worker.process.poll() for worker in workers] == [None, None]
        if fault == "refused":
            ways.enter_context(Swallowing(redis_server.url, way.port))
        way.swallows_all = False
        for worker in workers:
            wait_until_consuming(process_fleet, worker, times=3)
        for worker in workers:
            assert (worker.end(), "consumer_stalled" in worker.said()) == (0, False)
