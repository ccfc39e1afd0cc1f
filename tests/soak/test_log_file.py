from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import redis

from tests.soak.homes import ONE
from tests.soak.log_file import Entry, LogFile, Settle
from tests.support.fleet import Fleet
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.standin.client import StandInClient

LEASE_MS = 1600


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis", config=ONE) as started:
        yield started


@pytest.fixture
def log_file(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "redis", LEASE_MS)


def test_what_was_appended_is_read_once_with_its_ids_over_a_crash(server: EmbeddedRedis, log_file: LogFile) -> None:
    with redis.Redis.from_url(server.url, protocol=2) as client:
        first = client.xadd("ns:{3}:events", {"owner": "1", "contact": "2", "op": "upsert"})
        assert list(log_file.read_on()) == [
            Entry(3, first.decode(), {b"owner": b"1", b"contact": b"2", b"op": b"upsert"})
        ]
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
        client.connection_pool.disconnect()
        second = client.xadd("ns:{4}:events", {"owner": "5"})
        client.xtrim("ns:{4}:events", maxlen=0)
        assert [each.id for each in log_file.read_on() if isinstance(each, Entry)] == [second.decode()]
        assert list(log_file.read_on()) == []


def test_half_a_transaction_is_left_for_later(log_file: LogFile, tmp_path: Path) -> None:
    files = tmp_path / "redis" / "appendonlydir"
    files.mkdir(parents=True)
    path = files / "appendonly.aof.1.incr.aof"
    whole = _packed("MULTI") + _packed("XADD", "ns:{1}:events", "5-0", "owner", "1") + _packed("EXEC")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert list(log_file.read_on()) == []
    path.write_bytes(whole)
    assert [each.id for each in log_file.read_on() if isinstance(each, Entry)] == ["5-0"]


def test_a_settle_says_what_was_confirmed_and_how_far_the_log_was_read(
    server: EmbeddedRedis, log_file: LogFile, namespace: str, stand_in: StandInClient
) -> None:
    with Fleet(server.url, namespace, stand_in) as fleet:
        fleet.append("1", "2", "upsert")
        last = fleet.append("1", "9", "delete")
        before_ms = fleet.now_ms()
        fleet.deliver()
        settles = [each for each in log_file.read_on() if isinstance(each, Settle) and each.confirmed]
        assert [(each.partition, each.position) for each in settles] == [(fleet.partition("1"), (last, ""))]
        assert set(settles[0].confirmed) == {("1", "2", "upsert"), ("1", "9", "delete")}
        assert before_ms <= settles[0].ms <= fleet.now_ms()


def test_a_settle_of_very_many_pairs_says_what_was_confirmed_and_nothing_else(
    server: EmbeddedRedis, log_file: LogFile, namespace: str, stand_in: StandInClient
) -> None:
    with Fleet(server.url, namespace, stand_in) as fleet:
        contacts = [str(i) for i in range(200)]
        for contact in contacts:
            fleet.append("1", contact, "upsert")
        fleet.deliver()
        confirmed = [each.confirmed for each in log_file.read_on() if isinstance(each, Settle)]
        assert sorted(pair for some in confirmed for pair in some) == sorted(("1", each, "upsert") for each in contacts)


def _packed(*words: str) -> bytes:
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)])
