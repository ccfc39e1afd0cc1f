"""A Redis that comes back empty, or older than it was, raises an alarm, and what is appended to it is delivered."""

from __future__ import annotations

import json
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import redis
from structlog import get_logger
from structlog.testing import capture_logs

from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, Fleet
from tests.support.redis_proxy import RedisProxy
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, PROCESS, THREADS, WorkerProcess, wait_until_delivered
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect
from worker.store.ledger_rotation import LedgerRotation
from worker.store.loss_detector import LossDetector
from worker.store.scripts import BEAT, CLAIM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)

FAR = 9_000_000_000_000
"""The time of an entry whose id stays ahead of every clock."""


@pytest.fixture
def own_fleet(namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    """A fleet whose Redis, broker included, is its own to lose."""
    with EmbeddedRedis() as server, Fleet(server.url, namespace, stand_in, **PROCESS) as made:
        yield made


def beats(fleet: Fleet) -> int:
    return int(fleet.client.hget(fleet.keys.config, "beat") or 0)


def empty(fleet: Fleet) -> Callable[[], None]:
    """What lets the fleet's Redis come back with nothing in it."""

    def come_back() -> None:
        fleet.client.flushall()

    return come_back


def older(fleet: Fleet) -> Callable[[], None]:
    """What lets the fleet's Redis come back as it is now, whatever happens to it until then."""
    backup = {key: fleet.client.dump(key) for key in fleet.client.scan_iter(f"{fleet.keys.namespace}:*")}

    def come_back() -> None:
        pipe = fleet.client.pipeline(transaction=True)
        pipe.flushall()
        for key, value in backup.items():
            pipe.restore(key, 0, value)
        for key in (fleet.keys.ticker, *map(fleet.keys.lease, range(PARTITIONS))):
            pipe.delete(key)
        pipe.execute()

    return come_back


def test_a_loss_is_noticed_although_others_have_checked_as_often_since(own_fleet: Fleet) -> None:
    """As after a failover, while one process still used the old master and the others its successor."""
    clock = count()

    def process(group: int) -> LossDetector:
        made = LossDetector(own_fleet.namespace, lambda: 10.0 * next(clock), log, lambda: None)
        made._group = group  # noqa: SLF001 - else they are in the same one by chance, now and then
        return made

    log = get_logger()
    cut_off, other = process(1), process(2)
    with capture_logs() as logged:
        for each in (cut_off, other, cut_off):
            each.check()
        come_back = older(own_fleet)
        for _ in range(3):
            cut_off.check()
        come_back()
        for _ in range(10):
            other.check()
        assert not [each for each in logged if each["event"] == "redis_lost_changes"]
        cut_off.check()
        cut_off.check()
    [alarm] = [each for each in logged if each["event"] == "redis_lost_changes"]
    assert alarm["came_back"] == "older"
    assert alarm["accepted_after"] < alarm["accepted_before"]


def test_a_loss_is_told_although_the_answer_that_says_so_never_comes(own_fleet: Fleet) -> None:
    """The check has taken up the counts: the next one finds none that went back."""
    clock = count()
    with capture_logs() as logged, RedisProxy(own_fleet.settings().redis_url) as proxy:
        namespace = own_fleet.namespace._replace(client=connect(proxy.url))
        detector = LossDetector(namespace, lambda: 10.0 * next(clock), get_logger(), lambda: None)
        for _ in range(3):
            detector.check()
        own_fleet.client.flushall()
        own_fleet.client.script_load(BEAT.text)
        proxy.lose_reply_to(BEAT.sha.encode())
        with pytest.raises(redis.ConnectionError):
            detector.check()
        lost = told(own_fleet, "status")["lost"]
        for _ in range(3):
            detector.check()
    assert proxy.cuts == 1
    [alarm] = [each for each in logged if each["event"] == "redis_lost_changes"]
    assert alarm["accepted_before"] == lost["accepted_before"]


def test_a_process_that_starts_is_not_told_of_a_loss_that_others_noted(own_fleet: Fleet) -> None:
    own_fleet.client.hset(own_fleet.keys.config, "lost_at", FAR)
    clock = count()
    with capture_logs() as logged, RedisProxy(own_fleet.settings().redis_url) as proxy:
        namespace = own_fleet.namespace._replace(client=connect(proxy.url))
        detector = LossDetector(namespace, lambda: 10.0 * next(clock), get_logger(), lambda: None)
        own_fleet.client.script_load(BEAT.text)
        for loses in (True, False, True, False):
            if not loses:
                detector.check()
                continue
            proxy.lose_reply_to(BEAT.sha.encode())
            with pytest.raises(redis.ConnectionError):
                detector.check()
    assert proxy.cuts == 2
    assert [each for each in logged if each["log_level"] == "error"] == []


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
@pytest.mark.parametrize("loss", [empty, older])
def test_a_redis_that_lost_changes_raises_one_alarm_and_goes_on(
    own_fleet: Fleet, tmp_path: Path, loss: Callable[[Fleet], Callable[[], None]], options: tuple[str, ...]
) -> None:
    with WorkerProcess(own_fleet.environment(), tmp_path, options) as worker:
        worker.wait_until_ready()
        own_fleet.append("1", "1", "upsert")
        wait_until_delivered(own_fleet)
        wait_until(lambda: beats(own_fleet) >= 2, what="the worker has looked")
        come_back = loss(own_fleet)
        counted = beats(own_fleet)
        wait_until(lambda: beats(own_fleet) >= counted + 2, what="it has looked again")
        assert told(own_fleet, "status")["lost"] is None
        come_back()
        wait_until(lambda: "redis_lost_changes" in worker.said(), seconds=20, what="the alarm")
        own_fleet.append("1", "2", "upsert")
        wait_until(lambda: ("1", "2") in own_fleet.stand_in.contacts(), seconds=40, what="it is delivered")
        counted = beats(own_fleet)
        wait_until(lambda: beats(own_fleet) >= counted + 2, what="the worker has looked twice more")
        alarms = [json.loads(line) for line in worker.said().splitlines() if "redis_lost_changes" in line]
    assert [(each["level"], each["came_back"]) for each in alarms] == [("error", loss.__name__)]
    assert int(own_fleet.client.hget(own_fleet.keys.config, "partitions") or 0) == PARTITIONS
    assert told(own_fleet, "status")["lost"]["accepted_before"] == alarms[0]["accepted_before"]
    assert "Redis came back without changes" in run(own_fleet, "status").stdout
    checked = run(own_fleet, "check")
    assert (checked.exit_code, "wrong  lost" in checked.stdout) == (1, True)
    assert run(own_fleet, "status", "--acknowledge").exit_code == 0
    assert told(own_fleet, "status")["lost"] is None
    assert run(own_fleet, "check").exit_code == 0


def test_a_worker_that_is_started_anew_has_seen_nothing_lost(own_fleet: Fleet, tmp_path: Path) -> None:
    for _ in range(2):
        with WorkerProcess(own_fleet.environment(), tmp_path) as worker:
            worker.wait_until_ready()
            counted = beats(own_fleet)
            wait_until(lambda: beats(own_fleet) >= counted + 2, what="the worker looks")  # noqa: B023 - in this very turn
            assert worker.end() == 0
            assert "redis_lost_changes" not in worker.said()


def test_a_fleet_ends_where_another_number_of_partitions_was_recorded_meanwhile(
    own_fleet: Fleet, tmp_path: Path
) -> None:
    with WorkerProcess(own_fleet.environment(), tmp_path) as worker:
        worker.wait_until_ready()
        wait_until(lambda: beats(own_fleet) >= 2, what="the worker has looked")
        pipe = own_fleet.client.pipeline(transaction=True)
        pipe.flushall()
        pipe.hset(own_fleet.keys.config, mapping={"partitions": 2 * PARTITIONS, "format": 1})
        pipe.execute()
        assert worker.exit_status() == 75
        assert "partitions_changed" in worker.said()


def test_entries_before_the_position_are_read_with_an_alarm_and_not_skipped(fleet: Fleet) -> None:
    """As where a log was removed, or is an older one, and its clock was ahead."""
    partition = fleet.partition("1")
    fleet.append("1", "1", "upsert", entry=f"{FAR}-0")
    fleet.deliver()
    fleet.client.delete(fleet.keys.events(partition))
    fleet.append("1", "2", "upsert")
    fleet.append("1", "3", "upsert")
    with capture_logs() as logs:
        fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "1"), ("1", "2"), ("1", "3")}
    (alarm,) = [each for each in logs if each["event"] == "log_replaced"]
    assert (alarm["log_level"], alarm["partition"]) == ("error", partition)
    assert told(fleet, "status")["replaced_partitions"] == [partition]
    assert f"the log of partitions {partition} was replaced" in run(fleet, "status").stdout
    assert run(fleet, "check").exit_code == 1
    assert run(fleet, "status", "--acknowledge").exit_code == 0
    assert told(fleet, "status")["replaced_partitions"] == []
    assert run(fleet, "check").exit_code == 0


def test_a_log_that_was_removed_raises_an_alarm_when_its_partition_is_worked_on(fleet: Fleet) -> None:
    fleet.append("1", "1", "upsert")
    fleet.deliver()
    fleet.client.delete(fleet.keys.events(fleet.partition("1")))
    fleet.mark_late(fleet.partition("1"), b"1\x1f1", 1, 0)
    with capture_logs() as logs:
        fleet.deliver()
    assert [each["event"] for each in logs if each["log_level"] == "error"] == ["log_replaced"]
    assert fleet.stand_in.contacts() == {("1", "1")}


def append_trimming(fleet: Fleet, contact: str, maxlen: int) -> None:
    fields = {"owner": "1", "contact": contact, "op": "upsert"}
    fleet.client.xadd(fleet.keys.events(fleet.partition("1")), dict(fields), maxlen=maxlen, approximate=False)


def trimmed_alarms(logs: list[Any]) -> list[tuple[Any, Any]]:
    return [(each["log_level"], each["lost"]) for each in logs if each["event"] == "log_trimmed"]


def test_a_log_that_somebody_trims_before_it_is_read_raises_one_alarm(fleet: Fleet) -> None:
    for n in range(300):
        append_trimming(fleet, str(n), 100)
    with capture_logs() as logs:
        fleet.deliver()
        for n in range(300, 310):
            append_trimming(fleet, str(n), 5)
        fleet.deliver()
    assert trimmed_alarms(logs) == [("error", 200)]
    lost = told(fleet, "status")["lost"]
    assert (lost["trimmed_entries"], lost["accepted_after"]) == (205, None)
    assert "somebody trimmed 205 unread entries from the logs" in run(fleet, "status").stdout
    assert run(fleet, "check").exit_code == 1
    assert run(fleet, "status", "--acknowledge").exit_code == 0
    fleet.append("1", "9", "delete")
    with capture_logs() as logs:
        fleet.deliver()
    assert trimmed_alarms(logs) == []
    assert told(fleet, "status")["lost"] is None


@pytest.mark.parametrize("alarm", ["log_trimmed", "log_replaced"])
def test_an_alarm_of_a_log_is_raised_once_although_the_answer_that_asks_for_it_never_comes(
    redis_server: EmbeddedRedis, fleet: Fleet, alarm: str
) -> None:
    with capture_logs() as logs, RedisProxy(redis_server.url) as proxy:
        worker = fleet.worker(redis_url=proxy.url)
        fleet.append("1", "1", "upsert", entry=f"{FAR}-0" if alarm == "log_replaced" else "*")
        fleet.deliver()
        if alarm == "log_replaced":
            fleet.client.delete(fleet.keys.events(fleet.partition("1")))
        for n in range(20):
            append_trimming(fleet, str(n), 10 if alarm == "log_trimmed" else 100)
        proxy.lose_reply_to(CLAIM.sha.encode())
        with pytest.raises(redis.RedisError):
            worker.flusher.run(0.3)
        assert proxy.cuts == 1
        assert [each for each in logs if each["log_level"] == "error"] == []
        fleet.deliver()
        fleet.append("1", "1", "delete")
        fleet.deliver()
    assert [each["event"] for each in logs if each["log_level"] == "error"] == [alarm]


def test_entries_that_were_read_or_forgotten_are_not_taken_for_trimmed_ones(fleet: Fleet) -> None:
    partition = fleet.partition("1")
    for n in range(20):
        fleet.append("1", str(n), "upsert")
    fleet.deliver()
    fleet.client.delete(fleet.keys.events(partition))  # another log counts from its own start
    for n in range(3):
        fleet.append("1", str(n), "delete")
    with capture_logs() as logs:
        fleet.deliver()
        fleet.append("1", "7", "delete")
        fleet.deliver()
    assert trimmed_alarms(logs) == []


def test_a_log_that_was_emptied_is_noticed_although_nothing_waits(fleet: Fleet) -> None:
    fleet.append("1", "1", "upsert")
    fleet.deliver()
    fleet.append("1", "2", "upsert")
    fleet.client.xtrim(fleet.keys.events(fleet.partition("1")), maxlen=0)
    rotation = LedgerRotation(fleet.first.namespace, time.monotonic, 0.001)
    with capture_logs() as logs:
        time.sleep(0.01)
        rotation.rotate_due()
    assert trimmed_alarms(logs) == [("error", 1)]
