"""Whole worker processes: both pools deliver, end cleanly, and refuse to start where they cannot work."""

from __future__ import annotations

import random
import re
import signal
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import redis

from producers import ContactChange
from tests.support.fleet import PARTITIONS, Fleet
from tests.support.waiting import wait_until
from tests.support.worker_process import (
    CELERY,
    CONTACT_SYNC,
    PREFORK,
    PROCESS,
    THREADS,
    WorkerProcess,
    broker_url,
    wait_until_delivered,
)
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.standin.client import StandInClient

# Two processes start slower than anything else here: a whole scenario may take its time.
pytestmark = pytest.mark.timeout(120)

POOLS = {"threads": THREADS, "prefork": PREFORK}


@pytest.fixture(scope="module", params=sorted(POOLS))
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def running_fleet(
    redis_server: EmbeddedRedis, running_stand_in: StandInClient, pool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A fleet with one worker process of each pool in turn, shared by the tests that leave it as it was."""
    namespace = f"test-{uuid.uuid4().hex[:12]}"
    broker = broker_url(redis_server.url)
    with (
        Fleet(redis_server.url, namespace, running_stand_in, broker_url=broker, **PROCESS) as made,
        WorkerProcess(made.environment(), tmp_path_factory.mktemp("worker"), POOLS[pool]) as worker,
    ):
        worker.wait_until_ready()
        yield made


@pytest.fixture
def shared(running_fleet: Fleet, stand_in: StandInClient) -> Fleet:
    """The shared fleet, with a stand-in that has forgotten the test before."""
    assert running_fleet.stand_in is stand_in
    return running_fleet


# Both pools


def test_a_worker_delivers_five_thousand_changes_exactly(shared: Fleet, pool: str) -> None:
    chance = random.Random(pool)
    changes = [
        ContactChange(
            owner=f"{pool}-{chance.randrange(200)}",
            contact=str(chance.randrange(10)),
            op=chance.choice(["upsert", "delete"]),
        )
        for _ in range(5_000)
    ]
    before = shared.totals()
    with shared.producer() as producer:
        producer.send(changes)
    wait_until_delivered(shared)
    last = {(change.owner, change.contact): change.op for change in changes}
    assert shared.stand_in.contacts() == {pair for pair, op in last.items() if op == "upsert"}
    counts, totals = shared.stand_in.counts(), shared.totals()
    assert (counts["pair_twice"], counts["upsert_after_delete"]) == (0, 0)
    moved = {name: totals[name] - before.get(name, 0) for name in totals}
    ends = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered")
    assert moved["events"] == 5_000 == sum(moved.get(name, 0) for name in ends)
    assert counts["records"] == moved["records_confirmed"] + moved.get("repairs", 0)


@pytest.mark.parametrize("options", [(), ("--events",)], ids=["by default", "for a monitor"])
def test_workers_tell_each_other_nothing_through_the_broker_unless_somebody_asks(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    fleet = process_fleet
    environment = fleet.environment()
    with redis.Redis.from_url(environment["CONTACT_SYNC_BROKER_URL"]) as broker, broker.pubsub() as heard:
        heard.psubscribe("*celeryev*")
        with WorkerProcess(environment, tmp_path, (*THREADS, *options)) as worker:
            worker.wait_until_ready()
            fleet.append("1", "2", "upsert")
            wait_until_delivered(fleet)
            assert worker.end() == 0
        told = [each for each in iter(lambda: heard.get_message(timeout=0.1), None) if each["type"] == "pmessage"]
    assert bool(told) == bool(options)


def test_what_waits_is_delivered_although_the_broker_was_flushed(
    shared: Fleet, pool: str, redis_server: EmbeddedRedis
) -> None:
    shared.stand_in.faults({"kind": "status", "status": 503})
    shared.append_many((f"flushed-{pool}-{i}", "x", "upsert", None) for i in range(100))
    wait_until(lambda: shared.stand_in.counts()["requests"] >= 2, what="the outage is noticed")
    with redis.Redis.from_url(broker_url(redis_server.url)) as broker:
        broker.flushdb()
    shared.stand_in.remove_faults()
    wait_until_delivered(shared)
    assert len(shared.stand_in.contacts()) == 100


def test_what_waits_for_an_endpoint_that_hangs_is_delivered_when_it_is_back(shared: Fleet, pool: str) -> None:
    shared.stand_in.faults({"kind": "hang"})
    shared.append_many((f"hung-{pool}-{i}", "x", "upsert", None) for i in range(100))
    wait_until(lambda: shared.stand_in.counts()["statuses"].get("none", 0) >= 2, what="two requests got no answer")
    assert shared.stand_in.counts()["most_in_flight"] == 1
    shared.append_many((f"hung-{pool}-{i}", "x", "delete", None) for i in range(0, 100, 2))
    shared.stand_in.remove_faults()
    wait_until_delivered(shared)
    assert shared.stand_in.contacts() == {(f"hung-{pool}-{i}", "x") for i in range(1, 100, 2)}


def test_a_change_reaches_the_endpoint_soon_after_its_linger(shared: Fleet, pool: str) -> None:
    delays = []
    for i in range(10):
        begun = time.monotonic()
        shared.append(f"soon-{pool}", str(i), "upsert")
        wait_until(lambda seen=i: len(shared.stand_in.contacts()) > seen, what="it is delivered")  # type: ignore[misc] # mypy: default of a lambda
        delays.append(time.monotonic() - begun)
    assert sorted(delays)[5] < 0.5, delays


def test_sigterm_lets_the_request_in_hand_end_and_leaves_nothing_behind(
    process_fleet: Fleet, tmp_path: Path, pool: str
) -> None:
    with WorkerProcess(process_fleet.environment(), tmp_path, POOLS[pool]) as worker:
        worker.wait_until_ready()
        process_fleet.stand_in.faults({"kind": "delay", "seconds": 0.5, "times": 1})
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: process_fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
        assert worker.end() == 0
        assert "Traceback" not in worker.said()
    assert process_fleet.stand_in.contacts() == {("1", "2")}
    assert (process_fleet.waits(), process_fleet.leases(), process_fleet.client.exists(process_fleet.keys.ticker)) == (
        False,
        [],
        0,
    )
    assert "holder" not in {
        name.decode()
        for name in process_fleet.client.hgetall(process_fleet.keys.partition(process_fleet.partition("1")))
    }


# A closed terminal


STARTED_BY = pytest.mark.parametrize("command", [CELERY, CONTACT_SYNC], ids=["celery", "contact-sync"])


@STARTED_BY
def test_a_closed_terminal_lets_the_request_in_hand_end_and_ends_the_worker(
    process_fleet: Fleet, tmp_path: Path, pool: str, command: tuple[str, ...]
) -> None:
    with WorkerProcess(process_fleet.environment(), tmp_path, POOLS[pool], command) as worker:
        worker.wait_until_ready()
        process_fleet.stand_in.faults({"kind": "delay", "seconds": 0.5, "times": 1})
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: process_fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
        worker.signal_all(signal.SIGHUP)
        assert worker.exit_status() == 0
        assert "Error" not in worker.said()
    counts = process_fleet.stand_in.counts()
    assert (process_fleet.stand_in.contacts(), counts["requests"]) == ({("1", "2")}, 1)
    assert (process_fleet.waits(), process_fleet.leases()) == (False, [])


@STARTED_BY
def test_a_worker_under_nohup_outlives_its_terminal(
    process_fleet: Fleet, tmp_path: Path, pool: str, command: tuple[str, ...]
) -> None:
    with WorkerProcess(process_fleet.environment(), tmp_path, POOLS[pool], ("nohup", *command)) as worker:
        worker.wait_until_ready()
        process_fleet.stand_in.faults({"kind": "delay", "seconds": 0.5, "times": 1})
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: process_fleet.stand_in.counts()["in_flight"] == 1, what="the request is out")
        worker.signal_all(signal.SIGHUP)
        process_fleet.append("1", "3", "upsert")
        wait_until_delivered(process_fleet)
        assert process_fleet.stand_in.counts()["requests"] == 2  # none was cut off and sent anew
        assert worker.end() == 0
    assert process_fleet.stand_in.contacts() == {("1", "2"), ("1", "3")}


# The environment of another app


@STARTED_BY
@pytest.mark.parametrize("module", ["their_settings", "no_such_module"])
def test_settings_of_a_django_app_are_not_loaded(
    process_fleet: Fleet, tmp_path: Path, pool: str, command: tuple[str, ...], module: str
) -> None:
    loaded = tmp_path / "loaded"
    (tmp_path / "their_settings.py").write_text(f"open({str(loaded)!r}, 'w').close()\nSECRET_KEY = 'theirs'\n")
    environment = process_fleet.environment() | {"DJANGO_SETTINGS_MODULE": module}
    with WorkerProcess(environment, tmp_path, POOLS[pool], command) as worker:
        worker.wait_until_ready()
        process_fleet.append("1", "2", "upsert")
        wait_until_delivered(process_fleet)
        assert worker.end() == 0
        assert "django" not in worker.said().lower()
    assert process_fleet.stand_in.contacts() == {("1", "2")}
    assert not loaded.exists()


# Refusals to start


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        pytest.param({"server_key_id": None}, "CONTACT_SYNC_SERVER_KEY_ID is required", id="no key id"),
        pytest.param({"server_key_secret": None}, "CONTACT_SYNC_SERVER_KEY_SECRET is required", id="no secret"),
        pytest.param({"batch_size": "many"}, "CONTACT_SYNC_BATCH_SIZE must be", id="no number"),
        pytest.param({"lease_seconds": 1.5}, "CONTACT_SYNC_LEASE_SECONDS", id="a lease too short"),
        pytest.param({"broker_url": "sqs://a:hunter2@"}, "CONTACT_SYNC_BROKER_URL: Celery cannot use", id="no package"),
        pytest.param({"partitions": 16}, rf"\b(16\b.*\b{PARTITIONS}|{PARTITIONS}\b.*\b16)\b", id="other partitions"),
    ],
)
def test_a_worker_that_cannot_work_says_why_in_one_line_and_ends_with_status_2(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...], overrides: dict[str, Any], says: str
) -> None:
    assert process_fleet.first.namespace.partitions == PARTITIONS  # recorded by who came first
    with WorkerProcess(process_fleet.environment(**overrides), tmp_path, options) as worker:
        assert worker.exit_status() == 2
        (line,) = worker.said().splitlines()
    assert line.startswith("contact-sync: ")
    assert re.search(says, line)


def test_a_server_that_may_evict_keys_is_refused(tmp_path: Path, namespace: str, stand_in: StandInClient) -> None:
    with (
        EmbeddedRedis(config={"maxmemory-policy": "allkeys-lru"}) as server,
        Fleet(server.url, namespace, stand_in, **PROCESS) as fleet,
        WorkerProcess(fleet.environment(), tmp_path) as worker,
    ):
        assert worker.exit_status() == 2
        assert "noeviction" in worker.said()
        assert len(worker.said().splitlines()) == 1


def _of_another_type(client: redis.Redis, fleet: Fleet) -> str:
    client.delete(fleet.keys.config)
    client.set(fleet.keys.config, "not ours")
    return fleet.keys.config


def _wrong_password(client: redis.Redis, _fleet: Fleet) -> str:
    client.config_set("requirepass", "hunter2")
    return "it refuses the user or password"


def _no_info(client: redis.Redis, _fleet: Fleet) -> str:
    # Without it the policy is not known, under which Redis may drop changes.
    client.acl_setuser("default", enabled=True, nopass=True, commands=["-info"], categories=["+@all"], keys="*")
    return "its access rules refuse INFO"


@pytest.mark.parametrize("break_it", [_of_another_type, _wrong_password, _no_info])
def test_a_redis_that_no_waiting_mends_is_one_line_and_status_2(
    break_it: Callable[[redis.Redis, Fleet], str], tmp_path: Path, namespace: str, stand_in: StandInClient
) -> None:
    with EmbeddedRedis() as server, Fleet(server.url, namespace, stand_in, **PROCESS) as fleet:
        assert fleet.first.namespace.partitions == PARTITIONS
        with redis.Redis.from_url(server.url) as client:
            says = break_it(client, fleet)
        with WorkerProcess(fleet.environment(), tmp_path) as worker:
            assert worker.exit_status() == 2
            (line,) = worker.said().splitlines()
    assert line.startswith("contact-sync: ")
    assert says in line
    assert "hunter2" not in line


def test_the_secret_is_neither_in_what_a_worker_says_nor_in_what_it_leaves_in_redis(
    process_fleet: Fleet, tmp_path: Path, redis_server: EmbeddedRedis
) -> None:
    with WorkerProcess(process_fleet.environment(server_key_secret="s3cret-of-ours"), tmp_path) as worker:
        worker.wait_until_ready()
        process_fleet.append("a-user-of-ours", "another-user", "upsert")
        wait_until(lambda: process_fleet.first.gate.snapshot().state == "held", what="the endpoint refuses the key")
        worker.end()
        said = worker.said()
    assert "endpoint_held" in said
    assert not re.search("s3cret-of-ours|a-user-of-ours|another-user", said)
    with redis.Redis.from_url(broker_url(redis_server.url)) as broker:
        left = [client.dump(key) or b"" for client in (broker, process_fleet.client) for key in client.scan_iter("*")]
    assert left
    assert not any(b"s3cret-of-ours" in value for value in left)
