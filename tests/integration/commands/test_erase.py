"""`contact-sync erase`: a user is found on both sides wherever something is kept, and nothing of the user is left."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import COMMAND, dead_letter, run, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.waiting import wait_until
from worker.admin.eraser import Eraser
from worker.core.suppression import keyed_hash
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "person-to-erase"


@contextmanager
def working(fleet: Fleet) -> Iterator[None]:
    """A worker that works on."""
    ends, worker = threading.Event(), fleet.worker()

    def work() -> None:
        while not ends.is_set():
            worker.flusher.run(0.2)
            ends.wait(0.02)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            yield
        finally:
            ends.set()
            done.result()


def erase(fleet: Fleet, *args: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as the worker of this one writes to its output."""
    environ = {"PATH": os.environ["PATH"], **fleet.environment()}
    return subprocess.run([COMMAND, "erase", *args], env=environ, capture_output=True, text=True, check=False)


def erased(fleet: Fleet, *args: str) -> Any:
    """Its receipt."""
    ran = erase(fleet, *args, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def mentions(fleet: Fleet, user: str = USER) -> list[str]:
    """The keys in whose name, fields or values the id stands."""
    found = []
    for key in fleet.client.scan_iter(f"{fleet.keys.namespace}*"):
        kind: Any = fleet.client.type(key)
        value: Any = key
        if kind == b"hash":
            value = key, fleet.client.hgetall(key)
        elif kind == b"stream":
            value = key, fleet.client.xrange(key)
        elif kind == b"string":
            value = key, fleet.client.get(key)
        if user in repr(value):
            found.append(key.decode())
    return found


def hashed(fleet: Fleet, user: str = USER) -> str:
    key: Any = fleet.client.hget(fleet.keys.suppressed, "key")
    return keyed_hash(key, user.encode()).decode()


def others_of_every_partition(fleet: Fleet) -> list[str]:
    found: dict[int, str] = {}
    for n in range(1_000):
        found.setdefault(fleet.partition(str(n)), str(n))
    return list(found.values())


def test_a_user_is_erased_on_both_sides_and_the_receipt_says_so_without_the_id(fleet: Fleet) -> None:
    others = others_of_every_partition(fleet)
    assert len(others) == PARTITIONS
    fleet.append_many((USER, str(n), "upsert", T) for n in range(5))
    fleet.append_many((other, USER, "upsert", T) for other in others)
    fleet.append_many((other, f"{USER}-2", "upsert", T) for other in others)
    fleet.deliver()
    with working(fleet):
        receipt = erased(fleet, USER)
    assert (receipt["complete"], receipt["as_owner"], receipt["as_contact"]) == (True, 5, PARTITIONS)
    assert receipt["user_hash"] == hashed(fleet)
    assert USER not in json.dumps(receipt)
    assert set(receipt["left"].values()) == {0}
    assert fleet.stand_in.contacts() == {(other, f"{USER}-2") for other in others}
    assert {contact for _, contact in fleet.remembered()} == {f"{USER}-2"}
    run(fleet, "forget", f"{USER}-2", "--yes", "--also-waiting")
    fleet.append_many((other, f"{USER}-2", "delete", T + 1) for other in others)
    with working(fleet):
        assert erased(fleet, f"{USER}-2")["complete"]
    assert mentions(fleet) == []
    assert fleet.leases() == []


def test_what_waits_anywhere_is_found(fleet: Fleet) -> None:
    """In the logs of both lanes, pending, parked, dead letters, late marks and the inbox."""
    dead_letter(fleet, owner=USER)
    fleet.stand_in.settings(poisoned=[["3", USER]], poison_code="40401")
    fleet.append("3", USER, "upsert", T)
    wait_until(lambda: fleet.flush() >= 0 and fleet.client.hlen(fleet.keys.parked(fleet.partition("3"))), what="parked")
    fleet.stand_in.settings(poisoned=[], poison_code="40002")
    wrong = (fleet.partition(USER) + 1) % PARTITIONS
    fleet.append_raw(wrong, {"owner": USER, "contact": "wrong", "op": "upsert", "at": str(T)})
    fleet.append_raw(wrong, {"owner": USER, "contact": "bad", "op": "add", "at": str(T)})
    fleet.deliver()
    used = {fleet.partition(USER), fleet.partition("3"), wrong}
    live, bulk, *_ = (each for each in others_of_every_partition(fleet) if fleet.partition(each) not in used)
    fleet.absorb((live, USER, "upsert", T, "live"), (bulk, USER, "upsert", T, "bulk"))
    fleet.append("6", USER, "upsert", T)
    fleet.append("7", USER, "upsert", T, lane="bulk")
    fleet.mark_late(fleet.partition("8"), f"8\x1f{USER}".encode(), fleet.now_ms() + 10_000, 0)
    with working(fleet):
        receipt = erased(fleet, USER)
    assert receipt["complete"], receipt
    assert mentions(fleet) == []
    assert fleet.stand_in.contacts() == set()
    said = {(owner, contact) for _, owner, contact, op in fleet.applied() if op == "delete"}
    assert said == {
        *((USER, contact) for contact in ("9", "wrong", "bad")),
        *((owner, USER) for owner in ("3", live, bulk, "6", "7", "8")),
    }
    assert receipt["dead_letters"] == 3


def test_later_upserts_are_refused_and_counted_and_deletes_leave_nothing(fleet: Fleet) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    with working(fleet):
        assert erased(fleet, USER, "--suppress-days", "1")["complete"]
        fleet.append(USER, "3", "upsert")
        fleet.append("4", USER, "upsert")
        fleet.append("5", USER, "delete")
        wait_until(lambda: not fleet.waits(), what="all is read")
    assert told(fleet, "status")["totals"]["suppressed"] == 2
    assert fleet.stand_in.contacts() == set()
    assert mentions(fleet) == []


def test_an_unknown_user_is_told_in_one_line_and_suppressed_by_nobody(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    ran = erase(fleet, "nobody")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1
    assert "nothing is stored about this user" in ran.stderr
    assert not fleet.client.exists(fleet.keys.suppressed)


def test_it_goes_on_when_it_is_called_again_and_says_no_delete_twice(fleet: Fleet) -> None:
    fleet.append_many((USER, str(n), "upsert", T) for n in range(50))
    fleet.deliver()
    for _ in range(2):  # nobody works
        ran = erase(fleet, USER, "--wait", "0.5", "--json")
        assert ran.returncode == 1
        assert "call it again" in ran.stderr
        receipt = json.loads(ran.stdout)
        assert (receipt["complete"], receipt["erased_at"], receipt["as_owner"]) == (False, None, 50)
        assert receipt["left"]["waiting_entries"] == 50
    assert fleet.backlog() == 50
    with working(fleet):
        receipt = erased(fleet, USER)
    assert (receipt["complete"], receipt["as_owner"]) == (True, 50)
    assert mentions(fleet) == []


def test_a_redis_that_is_full_by_then_leaves_the_user_suppressed_and_it_goes_on(fleet: Fleet) -> None:
    fleet.append(USER, "1", "upsert")
    fleet.deliver()
    fleet.client.config_set("maxmemory", 1)
    try:
        ran = run(fleet, "erase", USER, "--wait", "0")
    finally:
        fleet.client.config_set("maxmemory", 0)
    assert (ran.exit_code, ran.stderr.count("\n")) == (1, 1)
    assert "maxmemory" in ran.stderr
    assert "the user stays suppressed: call it again, it goes on" in ran.stderr
    with working(fleet):
        assert run(fleet, "erase", USER, "--wait", "30").exit_code == 0


def test_two_at_once_do_no_harm(fleet: Fleet) -> None:
    fleet.append_many((USER, str(n), "upsert", T) for n in range(50))
    fleet.append_many((str(n), USER, "upsert", T) for n in range(50))
    fleet.deliver()

    def erase_here() -> Any:
        settings = fleet.settings()
        every = Partitions(
            fleet.worker().namespace,
            time.monotonic,
            lease_seconds=settings.lease_seconds,
            late_seconds=settings.late_seconds,
            ledger_seconds=settings.ledger_seconds,
        )
        return Eraser(every, USER, monotonic=time.monotonic, sleep=time.sleep).erase(86_400_000, 30.0, 5.0)

    with working(fleet), ThreadPoolExecutor(2) as pool:
        first, second = (each.result() for each in [pool.submit(erase_here), pool.submit(erase_here)])
    assert first.ended_ms
    assert second.ended_ms
    assert (second.begun_ms, second.hashed) == (first.begun_ms, first.hashed)
    assert max(first.as_owner, second.as_owner) == 50
    assert max(first.as_contact, second.as_contact) == 50
    assert mentions(fleet) == []
    assert fleet.stand_in.contacts() == set()


def test_it_begins_once_it_was_looked_for_which_takes_long_with_many_partitions(fleet: Fleet) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    with fleet.client.monitor() as monitor:
        erase(fleet, USER, "--wait", "0")
        fleet.client.echo("that was all")
        commands = (str(each["command"]) for each in monitor.listen())
        told = list(itertools.takewhile(lambda each: "that was all" not in each, commands))
    suppressed = next(n for n, each in enumerate(told) if f" {fleet.keys.suppressed} key " in each)
    before = [each.partition(" ")[0] for each in told[:suppressed]]
    last = {name: n for n, name in enumerate(before)}
    assert last["TIME"] > max(n for name, n in last.items() if name in {"XRANGE", "HSCAN", "HGET", "HEXISTS"})


def test_a_delete_that_the_endpoint_refuses_is_not_called_erased(fleet: Fleet) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[[USER, "2"]])
    with working(fleet):
        ran = erase(fleet, USER, "--wait", "3", "--json")
        receipt = json.loads(ran.stdout)
        assert (ran.returncode, receipt["left"]["dead_letters"], receipt["as_owner"]) == (1, 1, 1)
        assert "dead-letters list" in ran.stderr
        fleet.stand_in.settings(poisoned=[])
        assert erased(fleet, USER)["complete"]
    assert mentions(fleet) == []
    assert fleet.stand_in.contacts() == set()


def test_a_parked_delete_is_tried_again_when_it_is_called_again(fleet: Fleet) -> None:
    fleet.append_many([(USER, "2", "upsert", T), ("3", USER, "upsert", T)])
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[[USER, "2"], ["3", USER]], poison_code="40401")
    with working(fleet):
        ran = erase(fleet, USER, "--wait", "3", "--json")
        assert (ran.returncode, json.loads(ran.stdout)["left"]["parked_pairs"]) == (1, 2)
        # Together, each alone, and each once more by this call: it does not go on trying what is refused.
        assert fleet.stand_in.counts()["codes"]["40401"] <= 5
        fleet.stand_in.settings(poisoned=[])
        assert erased(fleet, USER, "--wait", "20")["complete"]  # after a minute it is tried anyway
    assert mentions(fleet) == []
    assert fleet.stand_in.contacts() == set()


def test_a_late_request_is_waited_for(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "late", "seconds": 0.5, "times": 1})
    fleet.append(USER, "2", "upsert", T)
    fleet.flush_once()
    with working(fleet):
        receipt = erased(fleet, USER)
    assert receipt["complete"]
    wait_until(lambda: not fleet.stand_in.counts()["late"], what="the first request has acted")
    assert fleet.stand_in.contacts() == set()
    assert mentions(fleet) == []


def test_a_receipt_is_verified_without_the_id(fleet: Fleet, tmp_path: Path) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    with working(fleet):
        receipt = erased(fleet, USER)
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt), encoding="utf-8")
    assert erased(fleet, "--verify", str(file)) == {
        "genuine": True,
        "complete": True,
        "stored": False,
        "suppressed": True,
    }
    fleet.append("5", USER, "delete")  # it waits
    ran = erase(fleet, "--verify", str(file))
    assert (ran.returncode, "something is stored" in ran.stderr) == (1, True)
    fleet.deliver()
    assert erase(fleet, "--verify", str(file)).returncode == 0
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    for changed in ({"deletes": 7}, {"seal": "\u00e9"}, {"seal": "\ud800"}, {"left": deep}):
        file.write_text(json.dumps(receipt | changed), encoding="utf-8")
        ran = erase(fleet, "--verify", str(file))
        assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr


def test_a_message_that_somebody_wrote_by_hand_stops_no_erasure(fleet: Fleet) -> None:
    for said in (b'{"owner": 5, "said": 7}', b"[]", b"no JSON"):
        fleet.append_raw(0, {"unmapped": said})
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    assert {each["reason"] for each in told(fleet, "dead-letters", "list")} == {"unmapped"}
    with working(fleet):
        assert erased(fleet, USER)["complete"] is True


@pytest.mark.parametrize("text", ["", "[]", '{"complete": true}', "no JSON"])
def test_what_is_no_receipt_is_told_in_one_line(fleet: Fleet, tmp_path: Path, text: str) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(text, encoding="utf-8")
    ran = erase(fleet, "--verify", str(file))
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "is not a receipt" in ran.stderr


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read is /proc/self/mem")
def test_a_receipt_that_cannot_be_read_is_named_in_one_line(fleet: Fleet) -> None:
    ran = erase(fleet, "--verify", "/proc/self/mem")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "contact-sync: --verify: /proc/self/mem cannot be read: Input/output error\n"


def test_the_receipt_says_what_a_ledger_may_have_forgotten(fleet: Fleet) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    fleet.client.hset(fleet.keys.partition(3), mapping={"vouched": 1_795_460_000_000, "rotated": 1_795_461_000_000})
    with working(fleet):
        said = erase(fleet, USER).stdout
    assert "uncertain  pairs that were confirmed before 2026-11-23T18:53:20.000Z" in said
    assert USER not in said


def test_its_memory_is_that_of_a_page_whatever_the_number_of_pairs(fleet: Fleet) -> None:
    def peak(user: str, pairs: int) -> int:
        """Bytes that one look takes at most, which says a delete for each pair."""
        ledger = fleet.keys.ledger_new(fleet.partition(user))
        for first in range(0, pairs, 1_000):
            found = {f"{user}\x1f{n}": f"u,{T}" for n in range(first, first + 1_000)}
            fleet.client.hset(ledger, mapping=dict(found))
        settings = fleet.settings()
        every = Partitions(
            fleet.first.namespace,
            time.monotonic,
            lease_seconds=30.0,
            late_seconds=settings.late_seconds,
            ledger_seconds=settings.ledger_seconds,
        )
        tracemalloc.start()
        erased = Eraser(every, user, monotonic=time.monotonic, sleep=time.sleep).erase(86_400_000, 0.0, 5.0)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert erased.as_owner == pairs
        return most

    few = peak("few", 10_000)  # more pages than one look holds at once: with fewer, what ran before decides
    many = peak("many", 60_000)
    assert many < 1.5 * few, (few, many)


def test_an_erasure_after_the_last_one_is_over_begins_anew(fleet: Fleet) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    with working(fleet):
        first = erased(fleet, USER)
        value: Any = fleet.client.hget(fleet.keys.suppressed, first["user_hash"])
        fleet.client.hset(fleet.keys.suppressed, first["user_hash"], b"1," + value.partition(b",")[2])
        fleet.client.hset(fleet.keys.gate, "suppression", "over")

        def is_back() -> bool:
            fleet.append(USER, "3", "upsert")  # again, since a round that began before may refuse it
            return (USER, "3") in fleet.stand_in.contacts()

        wait_until(is_back, what="the person is back")
        again = erased(fleet, USER)
    assert again["begun_at"] > first["erased_at"]
    assert (again["user_hash"], again["as_owner"]) == (first["user_hash"], 1)
    assert fleet.stand_in.contacts() == set()
    assert mentions(fleet) == []


def test_old_workers_that_know_nothing_of_it_must_be_gone(fleet: Fleet) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    fleet.client.hset(fleet.keys.config, mapping={"least_reader": 1, "least_writer": 1})
    ran = erase(fleet, USER)
    assert (ran.returncode, "upgrade" in ran.stderr) == (1, True)
    assert not fleet.client.exists(fleet.keys.suppressed)


def test_explain_says_why_upserts_of_a_pair_are_refused(fleet: Fleet) -> None:
    fleet.append(USER, "2", "upsert", T)
    fleet.deliver()
    with working(fleet):
        assert erased(fleet, USER)["complete"]
    fleet.append("3", USER, "upsert")
    found = told(fleet, "explain", "3", USER)
    assert (found["suppressed"], found["next"]["op"]) == (True, None)
    assert found["why"] == ["upserts of this pair are refused: somebody in it was erased", "nothing is sent"]
    assert told(fleet, "explain", "3", "4")["suppressed"] is False
