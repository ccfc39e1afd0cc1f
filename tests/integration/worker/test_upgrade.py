"""The previous release beside this one: workers and producers of both, replaced one after another, and back."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import run, told
from tests.support.previous import Producing, previous_commit, running_from, unpack
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, THREADS, WorkerProcess, wait_until_delivered
from worker.core.lane import LIVE_DELETES, class_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fleet import Fleet

pytestmark = pytest.mark.timeout(300)

SETTINGS: dict[str, Any] = {
    "batch_size": 20,
    "request_timeout_seconds": 6.0,
    "lease_seconds": 10.0,
    "linger_seconds": 0.05,
}


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    commit = previous_commit()
    if commit is None:
        pytest.skip("the project's history is not here, so neither is its previous release")
    return unpack(commit, tmp_path_factory.mktemp("previous"))


class Sides:
    """Starts workers and producers of either side."""

    def __init__(self, fleet: Fleet, previous: Path, directory: Path, opened: ExitStack) -> None:
        self.fleet, self.previous, self.directory, self.opened = fleet, previous, directory, opened

    def worker(self, *, new: bool, options: tuple[str, ...] = THREADS) -> WorkerProcess:
        environment = running_from(None if new else self.previous, self.fleet.environment())
        worker = WorkerProcess(environment, self.directory, options)
        return self.opened.enter_context(worker).wait_until_ready()

    def producer(self, prefix: str, *, new: bool) -> Producing:
        environment = self.fleet.environment()
        return Producing(None if new else self.previous, environment, prefix)

    def wait_until_busy(self, requests: int = 5) -> None:
        seen = self.fleet.stand_in.counts()["requests"]
        wait_until(
            lambda: self.fleet.stand_in.counts()["requests"] >= seen + requests, seconds=40, what="requests go out"
        )

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Lets pairs pile up in `pending` meanwhile, deletes among them."""
        self.fleet.stand_in.faults({"kind": "status", "status": 503})
        wait_until(lambda: deletes(self.fleet) > 120, seconds=60, what="deletes wait")
        yield
        self.fleet.stand_in.remove_faults()


def deletes(fleet: Fleet) -> int:
    """How many pairs wait for a delete."""
    return sum(state.delete is not None for state in fleet.pending().values())


def used(fleet: Fleet) -> set[int]:
    """The classes in which pairs wait."""
    return {each for each, pairs in enumerate(fleet.classes()) if pairs}


@pytest.fixture
def sides(process_fleet: Fleet, previous: Path, tmp_path: Path) -> Any:
    process_fleet.change(**SETTINGS)
    process_fleet.stand_in.settings(latency_seconds=0.1)
    with ExitStack() as opened:
        yield Sides(process_fleet, previous, tmp_path, opened)


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_workers_and_producers_are_upgraded_one_after_another_under_load_and_back(
    sides: Sides, options: tuple[str, ...]
) -> None:
    fleet = sides.fleet
    workers = [sides.worker(new=False, options=options) for _ in range(2)]
    with sides.producer("a", new=False) as old, sides.producer("b", new=True) as fresh:
        for new in (True, True, False, False):
            leaving = workers.pop(0)
            workers.append(sides.worker(new=new, options=options))
            with sides.outage():
                assert leaving.end() == 0, leaving.said()
            sides.wait_until_busy()
    fleet.stand_in.settings(latency_seconds=0.0)
    wait_until_delivered(fleet, 90)  # by workers of the previous release alone
    assert fleet.stand_in.contacts() == old.contacts | fresh.contacts
    assert not fleet.dead_letters()
    for worker in workers:
        assert worker.end() == 0


def test_an_upgrade_ends_when_it_is_said_to_and_then_bars_what_is_too_old(sides: Sides) -> None:
    fleet = sides.fleet
    old = sides.worker(new=False)
    with sides.producer("a", new=False) as producer:
        new = sides.worker(new=True)
        refused = run(fleet, "upgrade")
        assert refused.exit_code == 1
        assert "too old" in refused.stderr
        assert f" {old.process.pid}" in refused.stderr
        assert f" {new.process.pid}" not in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert json.loads(run(fleet, "upgrade", "--json").stdout)["raised"] is False
        assert old.end() == 0
        with sides.outage():
            assert used(fleet) == {class_of("upsert", bulk=False)}
        assert told(fleet, "upgrade")["raised"] is True
        assert told(fleet, "upgrade")["raised"] is False
        with sides.outage():
            wait_until(
                lambda: used(fleet) & set(LIVE_DELETES),
                seconds=40,
                what="deletes wait in a class of their own",
            )
    wait_until_delivered(fleet, 60)
    assert fleet.stand_in.contacts() == producer.contacts
    assert new.end() == 0
    environment = running_from(sides.previous, fleet.environment())
    with WorkerProcess(environment, sides.directory) as barred:
        assert barred.exit_status() == 2
        assert len(barred.said().strip().splitlines()) == 1
