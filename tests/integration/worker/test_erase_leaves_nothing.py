"""After an erasure by a real worker process: no key, value, line of a log, metric, page or message holds the id."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.commands import COMMAND, run
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.serving import serving
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, THREADS, WorkerProcess, broker_url, wait_until_delivered

if TYPE_CHECKING:
    from pathlib import Path

USER = "the-person-to-erase"


def held(client: redis.Redis) -> list[str]:
    """Every key of a database in whose name or value the id stands, whatever its type."""
    readers: dict[bytes, Any] = {
        b"hash": client.hgetall,
        b"stream": client.xrange,
        b"string": client.get,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"set": client.smembers,
        b"zset": lambda name: client.zrange(name, 0, -1),
        b"none": lambda _: None,  # it went since the scan: a lease was released, a broker's queue is empty
    }
    kind_of: Any = client.type
    found = []
    for key in client.scan_iter(count=1_000):
        dumped: Any = client.dump(key)  # as Redis would write it to its file; short ids are not packed away in there
        shown = readers[kind_of(key)](key)
        if USER in repr((key, shown)) or USER.encode() in (dumped or b""):
            found.append(repr(key))
    return found


@pytest.mark.parametrize("pool", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_nothing_holds_the_id_afterwards(process_fleet: Fleet, tmp_path: Path, pool: tuple[str, ...]) -> None:
    fleet = process_fleet
    fleet.stand_in.faults({"kind": "late", "seconds": 0.5, "times": 1}, {"kind": "status", "status": 503, "times": 2})
    fleet.append_raw((fleet.partition(USER) + 1) % PARTITIONS, {"owner": USER, "contact": "1", "op": "upsert"})
    fleet.append_raw(fleet.partition("1"), {"owner": "1", "contact": USER, "op": "add"})
    fleet.append_many((USER, str(n), "upsert", T) for n in range(30))
    fleet.append_many(((str(n), USER, "upsert", T) for n in range(30)), lane="bulk")
    fleet.append_many((str(n), "somebody else", "upsert", T) for n in range(30))
    fleet.client.xadd(fleet.keys.inbox, {"data": json.dumps({"owner": USER, "contact": "inbox", "op": "upsert"})})
    environ = {"PATH": os.environ["PATH"], **fleet.environment()}
    with WorkerProcess(fleet.environment(), tmp_path / "worker", pool) as worker:
        worker.wait_until_ready()
        wait_until_delivered(fleet)
        wait_until(lambda: len(fleet.dead_letters()) == 2, what="both malformed entries are dead letters")
        assert len(fleet.stand_in.contacts()) == 91
        assert len(held(fleet.client)) > PARTITIONS
        words = [str(COMMAND), "erase", USER, "--json", "--wait", "60"]
        ran = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        # What comes afterwards is refused, or goes by itself, and leaves nothing either.
        fleet.append(USER, "2", "upsert")
        fleet.append("3", USER, "upsert", lane="live")
        fleet.append("4", USER, "delete")
        fleet.append_raw(fleet.partition("1"), {"owner": "1", "contact": USER, "op": "add"})
        fleet.client.xadd(fleet.keys.inbox, {"owner": USER, "contact": "7", "op": "upsert"})
        wait_until(lambda: fleet.totals().get("suppressed") == 4, what="four are refused")
        wait_until_delivered(fleet)
        with serving(fleet) as client:
            shown = [client.get(path).text for path in ("/metrics", "/api/status", "/api/dead-letters", "/api/audit")]
        shown += [run(fleet, *line.split()).output for line in ("status", "status --json", "health", "check")]
        assert worker.end() == 0
        told = worker.said()
    assert held(fleet.client) == []
    with redis.Redis.from_url(broker_url(fleet.environment()["CONTACT_SYNC_REDIS_URL"])) as broker:
        assert held(broker) == []
    assert {contact for _, contact in fleet.stand_in.contacts()} == {"somebody else"}
    assert "batch_confirmed" in told
    assert USER not in told
    assert [text for text in (*shown, ran.stdout, ran.stderr) if USER in text] == []
    receipt = json.loads(ran.stdout)
    assert (receipt["as_owner"], receipt["as_contact"], receipt["dead_letters"]) == (31, 30, 2)
