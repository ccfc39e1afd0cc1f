"""`contact-sync repartition`: what it refuses, what it keeps, and what becomes of one that is cut short."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import redis

from producers import ContactProducer, NotAccepted
from producers.contract.errors import Repartitioning
from tests.support.commands import dead_letter, run, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from worker.admin.repartition import NotNow, repartition
from worker.process import runtime
from worker.store.agreed import closed_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from producers.contract.change import Lane

PAIRS = {(str(owner), "9") for owner in range(40)}


def deliver_all(fleet: Fleet) -> None:
    fleet.append_many((owner, contact, "upsert", T) for owner, contact in PAIRS)
    fleet.deliver()


def ready(fleet: Fleet) -> None:
    """A fleet that has delivered, and stands still."""
    deliver_all(fleet)
    run(fleet, "pause")


@pytest.mark.parametrize("to", [PARTITIONS * 3, PARTITIONS // 4, 1])
def test_confirmed_outcomes_move_and_stay_remembered(fleet: Fleet, to: int) -> None:
    ready(fleet)
    for p in range(0, PARTITIONS, 2):
        fleet.client.rename(fleet.keys.ledger_new(p), fleet.keys.ledger_old(p))
    before = told(fleet, "status")["totals"]
    ran = run(fleet, "repartition", str(to))
    assert ran.exit_code == 0, ran.stderr
    assert f"if CONTACT_SYNC_PARTITIONS is set, it must be {to}" in ran.stderr
    fleet.change(partitions=to)
    run(fleet, "resume")
    assert told(fleet, "status")["totals"] == before
    assert set(fleet.remembered()) == PAIRS
    for p in range(to):  # each where its owner's changes go
        for pair in (*_fields(fleet, fleet.keys.ledger_new(p)), *_fields(fleet, fleet.keys.ledger_old(p))):
            assert fleet.partition(pair.partition(b"\x1f")[0].decode()) == p
    run(fleet, "forget", "nobody", "--yes")  # takes a lease, as a worker might before anything is appended
    assert told(fleet, "status")["replaced_partitions"] == []
    # Older than what was confirmed, so stale; and what is newer is delivered.
    fleet.append_many((owner, contact, "delete", T - 1) for owner, contact in PAIRS)
    fleet.append("7", "9", "delete", T + 1)
    fleet.deliver()
    assert fleet.stand_in.contacts() == PAIRS - {("7", "9")}
    assert fleet.dead_letters() == []
    found = told(fleet, "status")
    assert (found["totals"]["stale"], found["waiting_changes"], found["replaced_partitions"]) == (
        len(PAIRS) - 1,
        0,
        [],
    )  # one was coalesced


def _fields(fleet: Fleet, key: str) -> list[bytes]:
    found: Any = fleet.client.hkeys(key)
    return list(found)


def obstacles() -> Iterator[Any]:
    def case(name: str, says: str) -> Any:
        return pytest.param(name, says, id=name)

    yield case("running", "deliveries are not paused")
    yield case("awake", "a worker is awake")
    yield case("lease", "a worker holds it")
    yield case("events", "its log has entries")
    yield case("pending", "pairs are waiting in it")
    yield case("late", "may still change its pairs")
    yield case("dead", "it has dead letters")
    yield case("foreign", "a key has the wrong type")
    yield case("wrong type", "a key has the wrong type")
    yield case("same", f"there are already {PARTITIONS} partitions")


def everything(fleet: Fleet) -> dict[bytes, bytes]:
    """Each key of the namespace as it is stored, but for the gate, which only says when it was looked at."""
    found: dict[bytes, bytes] = {}
    for key in fleet.client.scan_iter(f"{fleet.keys.namespace}:*"):
        found[key] = fleet.client.dump(key)
    found.pop(fleet.keys.gate.encode(), None)
    return found


def test_one_that_finds_something_in_the_way_on_its_way_opens_all_again(fleet: Fleet) -> None:
    ready(fleet)

    class Late(Fragile):
        """A producer that was not stopped appends once everything was looked at."""

        def pipeline(self, **named: Any) -> Any:
            if fleet.client.hget(fleet.keys.config, "repartitioning"):
                fleet.append_raw(2, {"owner": "1"})
            return fleet.client.pipeline(**named)

    late: Any = Late(fleet.client, 10**6)
    with pytest.raises(NotNow, match="partition 2: its log has entries"):
        repartition(late, fleet.keys, 4)
    assert fleet.client.hget(fleet.keys.config, "repartitioning") is None
    kinds = [fleet.client.type(fleet.keys.events(p)) for p in range(PARTITIONS)]
    assert set(kinds) <= {b"stream", b"none"}


def test_one_that_was_cut_off_opens_all_again_if_something_came_into_its_way_since(fleet: Fleet) -> None:
    ready(fleet)
    fleet.client.hset(fleet.keys.config, "repartitioning", "4")
    for log in (fleet.keys.events(0), fleet.keys.bulk(0)):
        fleet.client.delete(log)
        fleet.client.set(log, closed_text(4))
    fleet.append_raw(2, {"owner": "1"})
    ran = run(fleet, "repartition", "4")
    assert (ran.exit_code, ran.stderr.count("\n")) == (1, 1)
    assert "partition 2: its log has entries" in ran.stderr
    assert fleet.client.hget(fleet.keys.config, "repartitioning") is None
    assert not fleet.client.exists(fleet.keys.events(0), fleet.keys.bulk(0))


@pytest.mark.parametrize("to", [PARTITIONS * 2, 2])
def test_no_partition_says_that_it_remembers_longer_than_any_did(fleet: Fleet, to: int) -> None:
    ready(fleet)
    latest = str(fleet.now_ms() + 1)
    fleet.client.hset(fleet.keys.partition(3), "rotated", latest)
    assert run(fleet, "repartition", str(to)).exit_code == 0
    for p in range(to):
        assert fleet.client.hmget(fleet.keys.partition(p), ["rotated", "vouched"]) == [latest.encode()] * 2


@pytest.mark.parametrize("to", [PARTITIONS * 4, 1, 3])
@pytest.mark.parametrize("lane", ["live", "bulk"])
def test_receipts_survive_it(fleet: Fleet, to: int, lane: Lane) -> None:
    with ContactProducer(settings=fleet.settings()) as producer:
        receipts = [producer.upsert(str(owner), "9", lane=lane) for owner in range(20)]
        fleet.deliver()
    run(fleet, "pause")
    assert run(fleet, "repartition", str(to)).exit_code == 0
    fleet.change(partitions=to)
    with ContactProducer(settings=fleet.settings()) as producer:
        assert {producer.status_of(each) for each in receipts} == {"confirmed"}
        later = [producer.delete(str(owner), "9", lane=lane) for owner in range(20)]
        assert {producer.status_of(each) for each in later} == {"waiting"}
        run(fleet, "resume")
        fleet.deliver()
        assert {producer.status_of(each) for each in later} == {"confirmed"}
        assert {producer.status_of(each) for each in receipts} == {"superseded"}


def put_in_the_way(fleet: Fleet, name: str, p: int) -> None:
    if name == "dead":
        dead_letter(fleet)
    ready(fleet)
    k = fleet.keys
    if name == "running":
        run(fleet, "resume")
    elif name == "awake":
        fleet.client.set(k.ticker, "somebody", px=60_000)
    elif name == "lease":
        fleet.client.set(k.lease(p), "1", px=60_000)
    elif name == "events":
        fleet.append_raw(p, {"owner": "1"})
    elif name in {"pending", "late"}:
        fleet.client.hset(
            k.pending(p) if name == "pending" else k.late(p), b"1\x1f9", b"u1" if name == "pending" else b"1,1"
        )
    elif name == "foreign":
        fleet.client.rename(k.events(p), "kept")
        fleet.client.set(k.events(p), "somebody's")
    elif name == "wrong type":
        fleet.client.set(k.dead(p), "somebody's")


@pytest.mark.parametrize("p", [0, 3, PARTITIONS - 1])
@pytest.mark.parametrize(("name", "says"), list(obstacles()))
def test_it_says_what_is_in_the_way_and_changes_nothing(fleet: Fleet, name: str, says: str, p: int) -> None:
    k, to = fleet.keys, str(PARTITIONS if name == "same" else 4)
    put_in_the_way(fleet, name, p)
    as_it_was = everything(fleet)
    ran = run(fleet, "repartition", to)
    assert everything(fleet) == as_it_was
    assert ran.exit_code == 1
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert fleet.client.hmget(k.config, ["partitions", "repartitioning"]) == [b"%d" % PARTITIONS, None]
    if name == "foreign":
        fleet.client.rename("kept", k.events(p))
    elif name == "wrong type":
        fleet.client.delete(k.dead(p))
    fleet.client.delete(k.lease(p), k.late(p), k.pending(p))
    run(fleet, "resume")
    fleet.append("7", "9", "delete", T + 1)  # and the log is open
    fleet.deliver()
    assert ("7", "9") not in fleet.stand_in.contacts()
    assert told(fleet, "status")["replaced_partitions"] == []


class CutShort(Exception):  # noqa: N818 - as a kill
    """Ends it at some command."""


class Fragile:
    """A client that dies before its nth round trip."""

    def __init__(self, client: redis.Redis, lives: int) -> None:
        self._client = client
        self.lives = lives

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in {"hmget", "hset", "hget", "hgetall", "hscan", "exists", "type", "pipeline"}:
            return found
        self.lives -= 1
        if self.lives < 0:
            raise CutShort
        return found


@pytest.mark.parametrize("to", [PARTITIONS * 2, 2])
def test_wherever_it_is_cut_short_everybody_refuses_and_it_can_be_run_again(fleet: Fleet, to: int) -> None:
    ready(fleet)
    before = told(fleet, "status")["totals"]
    unset: dict[str, Any] = {"partitions": None}
    cuts = 0
    for lives in range(3, 200, 4):
        fragile: Any = Fragile(fleet.client, lives)
        with suppress(CutShort):
            repartition(fragile, fleet.keys, to)
            break
        if fleet.client.hget(fleet.keys.config, "repartitioning") is None:
            continue
        cuts += 1
        refused = run(fleet, "status", **unset)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert f"run contact-sync repartition {to} again" in refused.stderr
        assert run(fleet, "repartition", str(to + 1)).exit_code == 1
        with pytest.raises(Repartitioning):
            runtime.build(fleet.settings(**unset))
        with ContactProducer(settings=fleet.settings(**unset)) as producer, pytest.raises(Repartitioning):
            producer.upsert("1", "2")
    else:
        pytest.fail("it never ends")
    assert cuts > 3
    fleet.change(partitions=to)
    assert told(fleet, "status")["totals"] == before
    assert set(fleet.remembered()) == PAIRS


class Killed:
    """A client that dies at a moment after a pipeline: each command in it took effect, and nobody heard of it."""

    def __init__(self, client: redis.Redis, now: Callable[[], bool]) -> None:
        self._client = client
        self._now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, **named: Any) -> Any:
        pipe: Any = self._client.pipeline(**named)
        execute = pipe.execute

        def executed(*args: Any, **options: Any) -> Any:
            replies = execute(*args, **options)
            if self._now():
                raise CutShort
            return replies

        pipe.execute = executed
        return pipe


def _beyond(done: Iterator[int], after: int) -> bool:
    return next(done) > after


def test_totals_are_added_once_wherever_it_is_killed(fleet: Fleet) -> None:
    ready(fleet)
    before = told(fleet, "status")["totals"]
    for after in range(200):
        done = count(1)
        killed: Any = Killed(fleet.client, partial(_beyond, done, after))
        with suppress(CutShort):
            repartition(killed, fleet.keys, 2)
        if fleet.client.hget(fleet.keys.config, "partitions") == b"2":
            break
    else:
        pytest.fail("it never ends")
    fleet.change(partitions=2)
    assert told(fleet, "status")["totals"] == before
    assert set(fleet.remembered()) == PAIRS
    assert not fleet.client.hexists(fleet.keys.config, "closed_at")  # the next one closes its logs itself


@pytest.mark.parametrize("to", [PARTITIONS * 2, 3])
def test_one_that_is_killed_once_logs_are_open_again_is_finished_whatever_came_into_them(fleet: Fleet, to: int) -> None:
    ready(fleet)
    seen: list[bytes] = []

    def opened() -> bool:
        seen.append(fleet.client.type(fleet.keys.events(0)))
        return seen[-1] != b"string" and b"string" in seen

    killed: Any = Killed(fleet.client, opened)
    with pytest.raises(CutShort):
        repartition(killed, fleet.keys, to)
    for owner in range(40):  # by a producer that was not stopped and knows the former number
        with suppress(redis.ResponseError):
            fleet.append(str(owner), "9", "delete", T - 1)
    assert fleet.client.exists(fleet.keys.events(0))
    appended_ms = int(fleet.client.xinfo_stream(fleet.keys.events(0))["first-entry"][0].partition(b"-")[0])
    ran = run(fleet, "repartition", str(to))
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout.startswith(f"{PARTITIONS} partitions became {to}")
    fleet.change(partitions=to)
    assert set(fleet.remembered()) == PAIRS
    settled_ms = fleet.client.hget(fleet.keys.partition(0), "settled_ms")
    assert int(settled_ms or 0) <= appended_ms  # receipts of what came since must not say that it is settled
    run(fleet, "resume")
    fleet.deliver()
    assert fleet.stand_in.contacts() == PAIRS
    assert {each["reason"] for each in fleet.dead_letters()} == {"wrong_partition"}
    assert told(fleet, "status")["replaced_partitions"] == []


class KilledAsALogOpens(Killed):
    """The same, in the midst of a pipeline: right after the first command in it that opens a log."""

    def __init__(self, client: redis.Redis, log: str) -> None:
        super().__init__(client, lambda: self._opened)
        self._log = log
        self._opened = False

    def pipeline(self, **named: Any) -> Any:
        pipe = super().pipeline(**named)
        execute = pipe.execute

        def executed(*args: Any, **options: Any) -> Any:
            opens = [i for i, (words, _) in enumerate(pipe.command_stack) if words[:2] == ("DEL", self._log)]
            self._opened = bool(opens)
            del pipe.command_stack[min(opens, default=len(pipe.command_stack)) + 1 :]
            return execute(*args, **options)

        pipe.execute = executed
        return pipe


def test_all_else_of_a_partition_is_written_before_its_log_opens(fleet: Fleet) -> None:
    ready(fleet)
    killed: Any = KilledAsALogOpens(fleet.client, fleet.keys.events(0))
    with pytest.raises(CutShort):
        repartition(killed, fleet.keys, 2)
    assert fleet.client.type(fleet.keys.events(0)) == b"none"
    assert not fleet.client.hexists(fleet.keys.partition(0), "position")  # of the log that is no more
    assert fleet.client.hexists(fleet.keys.partition(0), "settled_ms")


def test_one_whose_pause_was_lost_after_it_was_cut_short_can_be_finished(fleet: Fleet) -> None:
    ready(fleet)
    fleet.client.hset(fleet.keys.config, "repartitioning", "4")
    fleet.client.delete(fleet.keys.gate)
    assert "run contact-sync repartition 4 again" in run(fleet, "pause", partitions=None).stderr
    ran = run(fleet, "repartition", "4")
    assert ran.exit_code == 0, ran.stderr
    fleet.change(partitions=4)
    assert told(fleet, "status")["endpoint"]["paused_since"]


def test_a_producer_that_runs_on_is_refused_where_nobody_would_read_and_then_agrees_anew(fleet: Fleet) -> None:
    owner = next(str(n) for n in range(99) if fleet.partition(str(n)) >= 2)
    deliver_all(fleet)
    with ContactProducer(settings=fleet.settings(partitions=None)) as producer:
        producer.upsert(owner, "1")
        fleet.deliver()
        ready(fleet)
        assert run(fleet, "repartition", "2").exit_code == 0
        with pytest.raises(NotAccepted, match="WRONGTYPE") as error:
            producer.upsert(owner, "2")
        assert len(error.value.refused) == 1
        fleet.change(partitions=2)
        run(fleet, "resume")
        producer.send(error.value.changes)
    fleet.deliver()
    assert (owner, "2") in fleet.stand_in.contacts()
    assert fleet.dead_letters() == []


def test_back_to_more_partitions_opens_the_logs_that_were_closed(fleet: Fleet) -> None:
    ready(fleet)
    for to in (2, PARTITIONS):
        assert run(fleet, "repartition", str(to)).exit_code == 0
    run(fleet, "resume")
    fleet.append_many((owner, contact, "delete", T + 1) for owner, contact in PAIRS)
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert told(fleet, "status")["wrong_type_partitions"] == []


@pytest.mark.parametrize("field", ["partitions", "repartitioning"])
def test_a_worker_that_was_not_stopped_ends_itself(process_fleet: Fleet, tmp_path: Path, field: str) -> None:
    fleet = process_fleet
    with WorkerProcess(fleet.environment(partitions=None), tmp_path) as worker:
        worker.wait_until_ready()
        wait_until(lambda: fleet.client.hget(fleet.keys.config, "beat"), what="it looks at what is recorded")
        fleet.client.hset(fleet.keys.config, field, "3")
        assert worker.exit_status() == 75
        assert "partitions_changed" in worker.said()


def test_a_log_that_has_not_begun_is_left_alone(fleet: Fleet) -> None:
    ran = run(fleet, "repartition", "4")
    assert (ran.exit_code, fleet.client.exists(fleet.keys.config)) == (1, 0)


def test_a_configuration_that_cannot_be_read_is_one_line(fleet: Fleet) -> None:
    fleet.client.hset(fleet.keys.config, "partitions", "many")
    ran = run(fleet, "repartition", "16")
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1)
    assert "cannot be read" in ran.stderr
