"""Which workers there are: each is seen while it runs, and no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from producers.contract.keys import Keys
from tests.support.commands import run, told
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, THREADS, WorkerProcess
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect
from worker.store.namespace import Namespace
from worker.store.presence import EVERY_SECONDS, GONE_MS, Presence, present

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tests.support.fleet import Fleet


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def client(fleet: Fleet) -> Iterator[redis.Redis]:
    with connect(fleet.settings().redis_url) as connected:
        yield connected


def test_workers_of_both_pools_are_seen_while_they_run(process_fleet: Fleet, tmp_path: Path) -> None:
    environ = process_fleet.environment()
    with WorkerProcess(environ, tmp_path, THREADS) as one, WorkerProcess(environ, tmp_path, PREFORK) as other:
        wait_until(lambda: len(told(process_fleet, "status")["workers"]) == 2, seconds=30, what="both are seen")
        found = {each["pool"]: each for each in told(process_fleet, "status")["workers"]}
        assert (found["thread"]["concurrency"], found["prefork"]["concurrency"]) == (8, 2)
        assert found["prefork"]["name"].endswith(f" {other.process.pid}")
        assert "awake: 2 processes seen" in run(process_fleet, "status").stdout
        one.end()
        assert [each["pool"] for each in told(process_fleet, "status")["workers"]] == ["prefork"]


def test_one_that_was_killed_is_shown_for_a_minute_and_removed_after_a_day(fleet: Fleet, client: redis.Redis) -> None:
    Presence(fleet.namespace, "killed 1", 8, "thread", Clock()).beat()
    seen_ms = fleet.now_ms()
    assert [each.name for each in present(fleet.namespace, seen_ms + GONE_MS - 1_000)] == ["killed 1"]
    assert present(fleet.namespace, seen_ms + GONE_MS + 1_000) == []
    client.hset(fleet.keys.workers, "killed 1", f"{seen_ms},{seen_ms - 25 * 3_600_000},8,thread")
    Presence(fleet.namespace, "next 2", 8, "thread", Clock()).beat()
    assert client.hkeys(fleet.keys.workers) == [b"next 2"]


def test_on_a_full_redis_it_is_noted_too(namespace: str) -> None:
    keys = Keys(namespace)
    with EmbeddedRedis() as server, connect(server.url) as client:
        client.config_set("maxmemory", 1)
        Presence(Namespace(client, keys, 8), "one 1", 8, "thread", Clock()).beat()
        assert client.hkeys(keys.workers) == [b"one 1"]


def test_it_is_noted_every_ten_seconds_and_not_more_often(fleet: Fleet, client: redis.Redis) -> None:
    clock = Clock()
    presence = Presence(fleet.namespace, "one 1", 8, "thread", clock)
    presence.beat()
    client.delete(fleet.keys.workers)
    clock.seconds += EVERY_SECONDS - 0.1
    presence.beat()
    assert not client.exists(fleet.keys.workers)
    clock.seconds += 0.1
    presence.beat()
    assert client.exists(fleet.keys.workers)


@pytest.mark.parametrize("note", ["", "1,2,3", "now,now,8,thread", "1,2,8,<b>", "9" * 400])
def test_what_is_none_of_ours_is_not_shown(fleet: Fleet, client: redis.Redis, note: str) -> None:
    client.hset(fleet.keys.workers, "strange", note)
    assert told(fleet, "status")["workers"] == []


def test_a_key_of_another_type_stops_nobody(fleet: Fleet, client: redis.Redis) -> None:
    client.set(fleet.keys.workers, "x")
    Presence(fleet.namespace, "one 1", 8, "thread", Clock()).beat()
    assert told(fleet, "status")["workers"] == []
