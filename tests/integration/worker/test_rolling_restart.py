"""Workers that are told to end in the midst of their work: nothing is lost, repeated or left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.support.fleet import PARTITIONS, Fleet
from tests.support.processes import runs
from tests.support.waiting import wait_until
from tests.support.worker_process import (
    CONTACT_SYNC,
    PREFORK,
    PROCESS,
    THREADS,
    WorkerProcess,
    wait_until_delivered,
)
from worker.core.concurrency import START
from worker.core.timing import FLUSH_BUDGET_SECONDS
from worker.local.redis import EmbeddedRedis
from worker.process import runtime
from worker.process.signals import SAME_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Several processes are started one after another: a whole scenario may take its time.
pytestmark = pytest.mark.timeout(180)

REQUEST_SECONDS = 6.0
"""Far more than any request takes here: what is repeated is so because of a restart."""

UNHURRIED: dict[str, Any] = {
    "batch_size": 5,
    "request_timeout_seconds": REQUEST_SECONDS,
    "lease_seconds": REQUEST_SECONDS + 4.0,
    "linger_seconds": 0.05,
}

POOLS = pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])


def sigterm(worker: WorkerProcess) -> None:
    worker.process.send_signal(signal.SIGTERM)


def sigterm_to_all(worker: WorkerProcess) -> None:
    """As systemd does by default, to every process of a service."""
    worker.signal_all(signal.SIGTERM)


def ctrl_c(worker: WorkerProcess) -> None:
    """As a terminal does, to all that runs in its foreground."""
    worker.signal_all(signal.SIGINT)


class Traffic:
    """A producer that goes on for as long as the context lasts.

    It appends more than is delivered meanwhile, so that every partition that is in hand has work left. Most are new
    contacts, each added once, so that a record of them that is sent twice is a repeated one; and each owner has one
    contact that comes and goes.
    """

    OWNERS = 24
    NEW = 5
    PAUSE_SECONDS = 0.025

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.once: set[tuple[str, str]] = set()
        self.last: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        begun = self._fleet.now_ms() - 1_000_000
        for turn in count():
            if self._ends.wait(self.PAUSE_SECONDS):
                return
            owner = f"owner{turn % self.OWNERS}"
            new = [(owner, f"{turn}.{i}") for i in range(self.NEW)]
            moving, op = (owner, "comes and goes"), "delete" if turn // self.OWNERS % 2 else "upsert"
            at = begun + turn
            self._fleet.append_many([*((*pair, "upsert", at) for pair in new), (*moving, op, at)])
            self.once.update(new)
            self.last[moving] = op

    @property
    def contacts(self) -> set[tuple[str, str]]:
        """What must be there in the end."""
        return self.once | {pair for pair, op in self.last.items() if op == "upsert"}


@pytest.fixture
def unhurried(process_fleet: Fleet) -> Fleet:
    process_fleet.change(**UNHURRIED)
    process_fleet.stand_in.settings(latency_seconds=0.15)
    return process_fleet


def wait_until_busy(fleet: Fleet) -> None:
    """Returns when requests are answered and others are out."""
    seen = fleet.stand_in.counts()["requests"]

    def busy() -> bool:
        counts = fleet.stand_in.counts()
        return counts["requests"] > seen + 3 and counts["in_flight"] > 0

    wait_until(busy, seconds=30, what="requests are out")


def takeovers(fleet: Fleet) -> list[int]:
    """The partitions of which a lease was ever left to expire."""
    return [p for p in range(PARTITIONS) if fleet.client.hexists(fleet.keys.partition(p), "late_until")]


def repeated(fleet: Fleet) -> set[tuple[str, str]]:
    """What was added more than once, of all that was to be added once."""
    seen: set[tuple[str, str]] = set()
    twice: set[tuple[str, str]] = set()
    for _, owner, contact, _ in fleet.applied():
        if contact != "comes and goes":
            (twice if (owner, contact) in seen else seen).add((owner, contact))
    return twice


@pytest.mark.parametrize(
    ("options", "tell"),
    [
        pytest.param(THREADS, sigterm, id="threads-sigterm"),
        pytest.param(THREADS, ctrl_c, id="threads-ctrl-c"),
        pytest.param(PREFORK, sigterm, id="prefork-sigterm"),
        pytest.param(PREFORK, sigterm_to_all, id="prefork-sigterm-to-all"),
        pytest.param(PREFORK, ctrl_c, id="prefork-ctrl-c"),
    ],
)
def test_workers_restarted_in_turn_under_load_lose_repeat_and_keep_nothing(
    unhurried: Fleet, tmp_path: Path, options: tuple[str, ...], tell: Callable[[WorkerProcess], None]
) -> None:
    with ExitStack() as fleets:
        workers = [fleets.enter_context(WorkerProcess(unhurried.environment(), tmp_path, options)) for _ in range(2)]
        for worker in workers:
            worker.wait_until_ready()
        with Traffic(unhurried) as traffic:
            for _ in range(4):
                leaving = workers.pop(0)
                wait_until_busy(unhurried)
                begun = time.monotonic()
                tell(leaving)
                assert leaving.exit_status() == 0, leaving.said()
                assert time.monotonic() - begun < FLUSH_BUDGET_SECONDS + REQUEST_SECONDS
                assert f":{leaving.process.pid}:".encode() not in (unhurried.client.get(unhurried.keys.ticker) or b"")
                new = fleets.enter_context(WorkerProcess(unhurried.environment(), tmp_path, options))
                workers.append(new.wait_until_ready())
        unhurried.stand_in.settings(latency_seconds=0.0)
        wait_until_delivered(unhurried)
        for worker in workers:
            assert worker.end() == 0
    assert unhurried.stand_in.contacts() == traffic.contacts
    assert (takeovers(unhurried), unhurried.holders(), repeated(unhurried)) == ([], [], set())


@POOLS
def test_the_only_worker_gives_back_all_it_has_when_it_ends(
    unhurried: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with WorkerProcess(unhurried.environment(), tmp_path, options) as worker, Traffic(unhurried):
        worker.wait_until_ready()
        wait_until_busy(unhurried)
        wait_until(unhurried.holders, what="partitions are in hand")
        sent = unhurried.stand_in.counts()["requests"]
        assert worker.end() == 0
        # What had a place goes out; no flush goes on until its budget ends.
        assert unhurried.stand_in.counts()["requests"] <= sent + 2 * START
        assert (unhurried.leases(), unhurried.holders(), takeovers(unhurried)) == ([], [], [])
        assert unhurried.client.get(unhurried.keys.ticker) is None
        assert unhurried.stand_in.counts()["in_flight"] == 0


def test_the_command_for_a_worker_ends_as_celerys_own(unhurried: Fleet, tmp_path: Path) -> None:
    with WorkerProcess(unhurried.environment(), tmp_path, THREADS, CONTACT_SYNC) as worker, Traffic(unhurried):
        worker.wait_until_ready()
        wait_until_busy(unhurried)
        assert worker.end() == 0
        assert (unhurried.holders(), takeovers(unhurried)) == ([], [])


@POOLS
def test_a_request_in_hand_is_waited_for_however_long_it_takes(
    unhurried: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    unhurried.stand_in.faults({"kind": "delay", "seconds": 3.0, "times": 1})
    with WorkerProcess(unhurried.environment(), tmp_path, options) as worker:
        worker.wait_until_ready()
        unhurried.append("1", "2", "upsert")
        wait_until(lambda: unhurried.stand_in.counts()["in_flight"] == 1, what="the request is out")
        assert worker.end() == 0
    assert unhurried.stand_in.contacts() == {("1", "2")}
    assert (unhurried.waits(), unhurried.holders()) == (False, [])


def test_a_flush_that_is_told_to_stop_settles_what_it_sent_and_gives_the_rest_back(fleet: Fleet) -> None:
    fleet.change(batch_size=1)
    fleet.append_many(("1", str(contact), "upsert", None) for contact in range(5))
    told = runtime.build(fleet.settings(), stopping=lambda: fleet.stand_in.counts()["requests"] == 2)
    with told.namespace.client:
        assert told.flusher.run(FLUSH_BUDGET_SECONDS) == 2
        assert told.flusher.run(FLUSH_BUDGET_SECONDS) == 0
    assert (fleet.backlog(), fleet.leases(), fleet.holders()) == (3, [], [])
    assert len(fleet.stand_in.contacts()) == 2


# One more signal


@POOLS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_more_signal_ends_it_at_once_and_what_it_had_in_flight_is_repaired(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...], number: int
) -> None:
    process_fleet.change(late_seconds=4.0)
    # Applied after another worker has deleted the contact: only a repair ends that.
    process_fleet.stand_in.faults({"kind": "delay", "seconds": 4.0, "times": 1})
    environment = process_fleet.environment(request_timeout_seconds=20.0, lease_seconds=21.0)
    with WorkerProcess(environment, tmp_path, options) as worker:
        worker.wait_until_ready()
        children = worker.children()
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: process_fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
        begun = time.monotonic()
        assert worker.insist(number) == 128 + number
        assert time.monotonic() - begun < SAME_SECONDS + 2.0
        wait_until(lambda: not any(map(runs, children)), seconds=2, what="its children are gone too")
    partition = process_fleet.partition("1")
    process_fleet.client.pexpire(process_fleet.keys.lease(partition), 1)  # it would take as long as a request may
    process_fleet.append("1", "2", "delete")
    with WorkerProcess(process_fleet.environment(), tmp_path) as other:
        wait_until_delivered(process_fleet)
        assert other.end() == 0
    assert takeovers(process_fleet) == [partition]
    wait_until(lambda: not process_fleet.stand_in.counts()["in_flight"], what="the first request was applied")
    assert process_fleet.stand_in.contacts() == set()


@POOLS
def test_two_signals_at_the_same_moment_are_one(unhurried: Fleet, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Ctrl-C reaches all of a terminal's processes, and whoever started the worker passes it on."""
    unhurried.stand_in.faults({"kind": "delay", "seconds": 1.5, "times": 1})
    with WorkerProcess(unhurried.environment(), tmp_path, options) as worker:
        worker.wait_until_ready()
        unhurried.append("1", "2", "upsert")
        wait_until(lambda: unhurried.stand_in.counts()["in_flight"] == 1, what="the request is out")
        worker.signal_all(signal.SIGINT)
        assert worker.end() == 0
    assert unhurried.stand_in.contacts() == {("1", "2")}


# Before and around it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_worker_that_waits_for_its_redis_ends_when_it_is_told_to(
    process_fleet: Fleet, tmp_path: Path, number: int
) -> None:
    with WorkerProcess(process_fleet.environment(redis_url="redis://127.0.0.1:1/0"), tmp_path) as worker:
        wait_until(lambda: "redis_away" in worker.said(), seconds=20, what="it waits")
        worker.process.send_signal(number)
        assert worker.exit_status() == 0
        assert "Traceback" not in worker.said()


@pytest.mark.parametrize(
    "options",
    [THREADS, PREFORK, ("-P", "solo"), (*PREFORK, "--events")],
    ids=["threads", "prefork", "solo", "prefork-events"],
)
def test_a_worker_whose_redis_hangs_ends_when_its_work_would_have(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with (
        EmbeddedRedis() as redis_server,
        Fleet(redis_server.url, process_fleet.keys.namespace, process_fleet.stand_in, **PROCESS) as fleet,
    ):
        fleet.stand_in.faults({"kind": "delay", "seconds": 3.0, "times": 1})
        with WorkerProcess(fleet.environment(), tmp_path, options) as worker:
            worker.wait_until_ready()
            fleet.append("1", "2", "upsert")
            wait_until(lambda: fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
            os.kill(redis_server.pid, signal.SIGSTOP)
            try:
                # Until its loop waits for an answer that does not come.
                wait_until(lambda: "redis_away" in worker.said(), seconds=30, what="it has noticed")
                assert worker.end() == 0
            finally:
                os.kill(redis_server.pid, signal.SIGCONT)
        with WorkerProcess(fleet.environment(), tmp_path) as other:
            wait_until_delivered(fleet)
            assert other.end() == 0
    assert process_fleet.stand_in.contacts() == {("1", "2")}


def test_ctrl_c_on_a_system_that_is_kept_up_lets_its_worker_end_first(process_fleet: Fleet, tmp_path: Path) -> None:
    """It starts a Redis of its own, with which all state goes: only what reached the endpoint is left to see."""
    environment = {**os.environ, **process_fleet.environment(redis_url=None, broker_url=None)}
    process_fleet.stand_in.faults({"kind": "delay", "seconds": 1.0, "times": 1})
    up = [sys.executable, "-P", "-c", "from worker.cli.up import up; up()"]
    with subprocess.Popen(
        up, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            url = next(line.split()[1] for line in process.stdout if line.startswith("Redis"))
            with Fleet(url, process_fleet.keys.namespace, process_fleet.stand_in) as kept:
                kept.append("1", "2", "upsert")
            wait_until(lambda: process_fleet.stand_in.counts()["in_flight"], seconds=30, what="the request is out")
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert process_fleet.stand_in.contacts() == {("1", "2")}
    assert process_fleet.stand_in.counts()["statuses"] == {"200": 1}
