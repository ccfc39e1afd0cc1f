"""The master that sentinels name: found, and found again after every kind of failover."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest
import redis

from producers import AsyncContactProducer, ContactProducer, NotAccepted
from producers.settings import ProducerSettings
from tests.support.commands import run, told
from tests.support.fleet import Fleet, T
from tests.support.sentinels import MASTER, SentinelSetup, address_of, connected, one_sentinel
from tests.support.waiting import wait_until
from tests.support.worker_process import PROCESS, THREADS, WorkerProcess
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from producers.nodes.trip import Replicas
    from worker.standin.client import StandInClient

PATIENCE_SECONDS = 30.0


@pytest.fixture
def setup() -> Iterator[SentinelSetup]:
    with SentinelSetup() as made:
        yield made


def entries(setup: SentinelSetup) -> int:
    address = setup.master()
    assert address is not None
    with connected(address) as client:
        return sum(client.xlen(key) for key in client.scan_iter("*:events"))


def seconds_until_accepted(producer: ContactProducer, contact: str) -> float:
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        try:
            producer.upsert("1", contact)
        except NotAccepted:
            time.sleep(0.05)
        else:
            return time.monotonic() - began
    raise AssertionError("never accepted again")


def test_a_producer_finds_the_master_and_its_successor(setup: SentinelSetup) -> None:
    with ContactProducer(setup.url) as producer:
        producer.upsert("1", "2")
        assert entries(setup) == 1
        old = setup.master()
        assert old is not None
        setup.server_at(old).__exit__()
        seconds = seconds_until_accepted(producer, "3")
        assert setup.wait_for_another(old) != old
        assert seconds < 15
        assert entries(setup) == 2


def test_an_asynchronous_producer_finds_it_too(setup: SentinelSetup) -> None:
    async def run() -> None:
        async with AsyncContactProducer(setup.url) as producer:
            await producer.upsert("1", "2")
            old = setup.master()
            assert old is not None
            await asyncio.to_thread(setup.server_at(old).__exit__)
            await asyncio.to_thread(setup.wait_for_another, old)
            ends = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < ends:
                try:
                    await producer.upsert("1", "3")
                    break
                except NotAccepted:
                    await asyncio.sleep(0.05)

    asyncio.run(run())
    assert entries(setup) == 2


def test_a_planned_failover_is_followed_within_seconds(setup: SentinelSetup) -> None:
    """Nothing fails: the old master goes on accepting what is then lost, until the connection leaves it."""
    with ContactProducer(setup.url) as producer:
        producer.upsert("1", "2")
        old = setup.master()
        assert old is not None
        setup.fail_over()
        setup.wait_for_another(old)
        time.sleep(1.1)  # as old as an answer of the sentinels may be
        producer.upsert("1", "3")
        with connected(setup.wait_for_another(old)) as client:
            assert sum(client.xlen(key) for key in client.scan_iter("*:events")) == 2


def test_a_hung_master_is_left(setup: SentinelSetup) -> None:
    with ContactProducer(setup.url) as producer:
        producer.upsert("1", "2")
        old = setup.master()
        assert old is not None
        setup.hang(setup.server_at(old).pid)
        seconds_until_accepted(producer, "3")
        new = setup.wait_for_another(old)
        setup.wake(setup.server_at(old).pid)
        # The deposed master wakes and takes itself for the master still; nothing of ours goes there.
        for contact in range(10, 60):
            producer.upsert("1", str(contact))
        with connected(new) as client:
            assert sum(client.xlen(key) for key in client.scan_iter("*:events")) == 52


@pytest.mark.parametrize("how", ["dead", "hung"])
def test_sentinels_that_do_not_answer_delay_nobody_for_long(setup: SentinelSetup, how: str) -> None:
    for index in (0, 1):
        (setup.kill_sentinel if how == "dead" else setup.hang_sentinel)(index)
    with ContactProducer(setup.url) as producer:
        began = time.monotonic()
        producer.upsert("1", "2")
        first = time.monotonic() - began
        began = time.monotonic()
        for contact in range(100):
            producer.upsert("1", str(contact))
        rest = time.monotonic() - began
    assert first < 5, f"took {first:.1f} s"
    assert rest < 3, f"took {rest:.1f} s"


def test_the_master_is_used_on_while_no_sentinel_answers(setup: SentinelSetup) -> None:
    with ContactProducer(setup.url) as producer:
        producer.upsert("1", "2")
        for index in range(3):
            setup.kill_sentinel(index)
        time.sleep(1.1)
        producer.upsert("1", "3")
    with ContactProducer(setup.url) as producer, pytest.raises(NotAccepted, match="no sentinel answers") as caught:
        producer.upsert("1", "4")
    assert caught.value.refused, "nothing was written, so the change was certainly not accepted"


def test_a_name_that_no_sentinel_knows_is_said(setup: SentinelSetup) -> None:
    unknown = "the sentinels know no master named 'other'"
    with connect(setup.url.replace(f"/{MASTER}/", "/other/")) as client, pytest.raises(redis.RedisError, match=unknown):
        client.ping()


def test_a_worker_does_not_wait_for_such_a_name(setup: SentinelSetup, tmp_path: Path) -> None:
    given = {"CONTACT_SYNC_REDIS_URL": setup.url.replace(f"/{MASTER}/", "/other/"), "PATH": os.environ["PATH"]}
    key = {"CONTACT_SYNC_SERVER_KEY_ID": "k", "CONTACT_SYNC_SERVER_KEY_SECRET": "k"}
    with WorkerProcess(given | key, tmp_path) as worker:
        assert worker.exit_status() == 2
        assert "CONTACT_SYNC_REDIS_URL: the sentinels know no master named 'other'" in worker.said()


def test_sentinels_and_the_master_may_want_passwords_of_their_own(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tcp=True) as server,
        one_sentinel(tmp_path, address_of(server), "watch") as sentinel,
    ):
        with connected(address_of(server)) as client:
            client.config_set("requirepass", "keep")
        url = f"redis+sentinel://:keep@{sentinel.address}/{MASTER}"
        with ContactProducer(f"{url}?sentinel_password=watch") as producer:
            producer.upsert("1", "2")
        with ContactProducer(url) as producer, pytest.raises(NotAccepted, match=r"no sentinel answers: .* required"):
            producer.upsert("1", "2")


def test_workers_go_on_after_a_failover(setup: SentinelSetup, namespace: str, stand_in: StandInClient) -> None:
    def delivered() -> bool:
        try:
            fleet.first.flusher.run(1.0)
        except redis.RedisError:
            return False
        return stand_in.contacts() == {("1", "2"), ("1", "3")}

    with (
        Fleet(setup.url, namespace, stand_in) as fleet,
        ContactProducer(settings=fleet.settings()) as producer,
    ):
        producer.upsert("1", "2", at=T)
        fleet.first.flusher.run(5.0)
        assert stand_in.contacts() == {("1", "2")}
        old = setup.master()
        assert old is not None
        setup.server_at(old).__exit__()
        seconds_until_accepted(producer, "3")
        wait_until(delivered, seconds=PATIENCE_SECONDS, what="the change after the failover is delivered")


def test_somebody_is_erased_and_stays_so_after_a_failover(
    setup: SentinelSetup, namespace: str, stand_in: StandInClient
) -> None:
    with (
        Fleet(setup.url, namespace, stand_in, wait_replicas=1) as fleet,
        ContactProducer(settings=fleet.settings()) as producer,
    ):
        producer.upsert("1", "2")
        producer.upsert("2", "3")
        fleet.first.flusher.run(5.0)
        ran = run(fleet, "erase", "2", "--wait", "0")
        assert (ran.exit_code, "call it again" in ran.stderr) == (1, True)
        old = setup.master()
        assert old is not None
        setup.server_at(old).__exit__()
        producer.close()
        with ContactProducer(settings=fleet.settings(wait_replicas=0)) as after:
            seconds_until_accepted(after, "2")
        worker = fleet.worker()
        wait_until(
            lambda: (
                run(fleet, "erase", "2", "--wait", "0", wait_replicas=0).exit_code in {0, 1}
                and worker.flusher.run(1.0) >= 0
                and stand_in.contacts() == set()
            ),
            seconds=PATIENCE_SECONDS,
            what="the deletes are confirmed",
        )
        assert run(fleet, "erase", "2", "--wait", "0", wait_replicas=0).exit_code == 0
        assert stand_in.contacts() == set()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker", ["ours", "celerys"])
def test_worker_processes_go_on_after_failovers(
    setup: SentinelSetup, namespace: str, stand_in: StandInClient, tmp_path: Path, broker: str
) -> None:
    """The broker fails over with the log: first the master is killed, then its successor hands over as planned."""
    celerys = {"broker_url": ";".join(f"sentinel://{each}" for each in setup.sentinels), "broker_master": MASTER}
    given = PROCESS | (celerys if broker == "celerys" else {})
    with (
        Fleet(setup.url, namespace, stand_in, **given) as fleet,
        WorkerProcess(fleet.environment(), tmp_path, THREADS) as worker,
        ContactProducer(settings=fleet.settings()) as producer,
    ):
        worker.wait_until_ready()
        producer.upsert("1", "2")
        wait_until(lambda: ("1", "2") in stand_in.contacts(), seconds=20, what="the first change is delivered")
        old = setup.master()
        assert old is not None
        setup.server_at(old).__exit__()
        seconds_until_accepted(producer, "3")
        wait_until(lambda: ("1", "3") in stand_in.contacts(), seconds=40, what="delivered after the kill")
        second = setup.wait_for_another(old)
        setup.fail_over()
        setup.wait_for_another(second)
        time.sleep(1.1)
        seconds_until_accepted(producer, "4")
        wait_until(lambda: ("1", "4") in stand_in.contacts(), seconds=40, what="delivered after the planned failover")
        assert worker.process.poll() is None
        assert worker.end() == 0


def test_status_names_the_master(setup: SentinelSetup, namespace: str, stand_in: StandInClient) -> None:
    with Fleet(setup.url, namespace, stand_in) as fleet:
        [node] = told(fleet, "status")["nodes"]
    assert (node["address"], node["away"]) == (str(setup.master()), False)


@pytest.mark.parametrize("wait", [2, "all"])
def test_a_change_that_a_replica_lacks_is_uncertain(setup: SentinelSetup, wait: Replicas) -> None:
    settings = ProducerSettings(redis_url=setup.url, wait_replicas=wait)
    with ContactProducer(settings=settings) as producer:
        producer.upsert("1", "2")
        setup.hang(setup.servers[1].pid)
        with pytest.raises(NotAccepted, match="1 of 2 replicas") as caught:
            producer.upsert("1", "3")
        assert len(caught.value.uncertain) == 1
    assert entries(setup) == 2
