"""The inbox: what anybody appends there is moved on, in order and at least once, and nothing is lost on the way."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import OutOfMemoryError

from tests.support.commands import run, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.worker_process import WorkerProcess
from worker.local.redis import EmbeddedRedis
from worker.store.backlog import BacklogScanner
from worker.store.client import command, connect
from worker.store.inbox import Inbox, read_inbox
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.waiting import WaitUntil
    from worker.standin.client import StandInClient


@pytest.fixture
def inbox(fleet: Fleet) -> Inbox:
    return Inbox(fleet.first.namespace)


def put(fleet: Fleet, fields: dict[str, str]) -> str:
    return bytes(fleet.client.xadd(fleet.keys.inbox, dict(fields))).decode()


def data(value: object) -> dict[str, str]:
    return {"data": json.dumps(value)}


def test_entries_of_both_kinds_reach_the_endpoint(fleet: Fleet, inbox: Inbox) -> None:
    for n in range(1_200):
        put(fleet, {"owner": str(n), "contact": "9", "op": "upsert"})
    put(fleet, data({"owner": "界", "contact": '"', "op": "upsert", "at": T, "source": "shell"}))
    put(fleet, data({"owner": "5", "contact": "9", "op": "delete"}))
    assert inbox.move() == 1_202
    assert fleet.client.xlen(fleet.keys.inbox) == 0
    fleet.deliver()
    expected = {(str(n), "9") for n in range(1_200) if n != 5} | {("界", '"')}
    assert fleet.stand_in.contacts() == expected
    assert fleet.dead_letters() == []


def test_an_entry_counts_as_of_its_inbox_time_and_one_moved_twice_joins_with_itself(fleet: Fleet, inbox: Inbox) -> None:
    entry = put(fleet, {"owner": "1", "contact": "9", "op": "upsert"})
    lying = fleet.client.xrange(fleet.keys.inbox)
    assert inbox.move() == 1
    # A mover that dies between its two steps leaves the entry there.
    for entry_id, fields in lying:
        fleet.client.xadd(fleet.keys.inbox, fields, id=entry_id[:-1] + b"7")
    fleet.append("1", "9", "delete", int(entry.partition("-")[0]) + 1)
    assert inbox.move() == 1
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    assert fleet.dead_letters() == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": "{no json"}, "bad_data"),
        ({"data": '["1", "9", "upsert"]'}, "bad_data"),
        ({"colour": "blue"}, "missing_owner"),
        (data({"contact": "9", "op": "upsert"}), "missing_owner"),
        (data({"owner": 1, "contact": "9", "op": "upsert"}), "bad_owner"),
        (data({"owner": "1", "contact": "9", "op": "upsert", "at": 1.5}), "bad_at"),
        (data({"owner": "1", "contact": "9", "op": "upsert", "at": True}), "bad_at"),
        ({"owner": "1", "contact": "9", "op": "update"}, "bad_op"),
        ({"owner": "1", "contact": "9", "op": "upsert", "at": "17"}, "at_out_of_range"),
    ],
)
def test_what_is_no_change_becomes_a_dead_letter_with_its_reason(
    fields: dict[str, str], reason: str, fleet: Fleet, inbox: Inbox
) -> None:
    put(fleet, fields)
    put(fleet, {"owner": "2", "contact": "3", "op": "upsert"})
    assert inbox.move() == 2
    fleet.deliver()
    assert [letter["reason"] for letter in fleet.dead_letters()] == [reason]
    assert fleet.stand_in.contacts() == {("2", "3")}


def test_what_a_partition_refuses_stays_and_holds_up_no_other(fleet: Fleet, inbox: Inbox) -> None:
    wrong_type = fleet.keys.events(fleet.partition("1"))
    fleet.client.set(wrong_type, "none of ours")
    put(fleet, {"owner": "1", "contact": "9", "op": "upsert"})
    put(fleet, {"owner": "2", "contact": "9", "op": "upsert"})
    assert fleet.partition("1") != fleet.partition("2")
    assert (inbox.move(), inbox.move()) == (1, 0)
    assert told(fleet, "status")["inbox_entries"] == 1
    assert "2 changes: 1 in the inbox, 1 entry in the log" in run(fleet, "status").stdout
    fleet.client.delete(wrong_type)
    assert inbox.move() == 1
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "9"), ("2", "9")}


def test_however_many_entries_a_partition_refuses_those_behind_them_move(fleet: Fleet, inbox: Inbox) -> None:
    fleet.client.set(fleet.keys.events(fleet.partition("1")), "not ours")
    pipe = fleet.client.pipeline(transaction=False)
    for n in range(10_050):
        pipe.xadd(fleet.keys.inbox, {"owner": "1", "contact": str(n), "op": "upsert"})
    pipe.execute()
    put(fleet, {"owner": "2", "contact": "9", "op": "upsert"})
    assert fleet.partition("1") != fleet.partition("2")
    assert inbox.move() + inbox.move() == 1
    fleet.client.delete(fleet.keys.events(fleet.partition("1")))
    assert inbox.move() + inbox.move() == 10_050


@pytest.mark.parametrize("fields", [{"colour": "blue"}, {"owner": "1", "contact": "9", "op": "update"}])
def test_what_is_no_change_does_not_fill_one_partition(fields: dict[str, str], fleet: Fleet, inbox: Inbox) -> None:
    pipe = fleet.client.pipeline(transaction=False)
    for _ in range(400):
        pipe.xadd(fleet.keys.inbox, dict(fields))
    pipe.execute()
    assert inbox.move() == 400
    assert max(fleet.client.xlen(fleet.keys.events(p)) for p in range(PARTITIONS)) < 200


def test_an_entry_of_very_many_fields_holds_up_none_beside_it(fleet: Fleet, inbox: Inbox) -> None:
    many = {str(n): "x" for n in range(20_000)}
    put(fleet, {**many, "owner": "1", "contact": "8", "op": "upsert"})
    command(fleet.client, "XADD", fleet.keys.inbox, "*", *["owner", "1"] * 10_000)
    put(fleet, {"owner": "1", "contact": "9", "op": "upsert"})
    assert inbox.move() == 3
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "8"), ("1", "9")}
    assert len(fleet.dead_letters()) == 1


def test_an_inbox_that_filled_redis_drains(namespace: str, stand_in: StandInClient) -> None:
    with EmbeddedRedis() as server, Fleet(server.url, namespace, stand_in) as fleet:
        inbox = Inbox(fleet.first.namespace)
        fleet.client.config_set("maxmemory", int(fleet.client.info("memory")["used_memory"]) + 3_000_000)
        accepted = 0
        with suppress(OutOfMemoryError):
            while put(fleet, {"owner": str(accepted % 40), "contact": f"{accepted}-{'c' * 40}", "op": "upsert"}):
                accepted += 1
        while fleet.client.xlen(fleet.keys.inbox):
            assert inbox.move()
            fleet.deliver()
        assert len(fleet.stand_in.contacts()) == accepted


def test_a_key_of_another_type_in_its_place_is_left_alone(fleet: Fleet, inbox: Inbox) -> None:
    fleet.client.set(fleet.keys.inbox, "none of ours")
    fleet.append("1", "9", "upsert")
    assert inbox.move() == 0
    with connect(fleet.settings().redis_url, timeout_seconds=20) as client:
        survey = BacklogScanner(Namespace(client, fleet.keys, PARTITIONS)).scan(block_ms=60_000)
    assert (survey.inbox, len(survey.waiting)) == (False, 1)
    status = told(fleet, "status")
    assert (status["inbox_entries"], status["wrong_type_inbox"]) == (0, True)
    assert f"something else wrote: {fleet.keys.inbox}" in run(fleet, "status").stdout
    assert "the inbox, has the wrong type" in run(fleet, "check").stdout


def test_an_entry_of_it_ends_the_wait_of_an_idle_fleet_at_once(fleet: Fleet, wait_until: WaitUntil) -> None:
    with connect(fleet.settings().redis_url, timeout_seconds=200) as client, ThreadPoolExecutor() as pool:
        look = pool.submit(BacklogScanner(Namespace(client, fleet.keys, PARTITIONS)).scan, block_ms=120_000)
        wait_until(lambda: fleet.client.info("clients")["blocked_clients"] == 1, what="it waits")
        put(fleet, {"owner": "1", "contact": "9", "op": "upsert"})
        assert look.result(timeout=60).inbox


def test_explain_tells_what_lies_there_of_a_pair(fleet: Fleet, inbox: Inbox) -> None:
    put(fleet, data({"owner": "1", "contact": "9", "op": "upsert", "at": T}))
    put(fleet, {"owner": "1", "contact": "9", "op": "delete"})
    put(fleet, {"owner": "1", "contact": "8", "op": "delete"})
    told_of = told(fleet, "explain", "1", "9")
    assert [(each["op"], each["reason"]) for each in told_of["inbox"]] == [("upsert", None), ("delete", None)]
    assert told_of["next"]["op"] == "delete"
    said = run(fleet, "explain", "1", "9").stdout
    assert "in the inbox: upsert at" in said
    assert "it is superseded by the delete" in said
    inbox.move()
    assert told(fleet, "explain", "1", "9")["inbox"] == []


def test_forget_knows_of_it(fleet: Fleet) -> None:
    for contact in ("8", "9"):
        put(fleet, data({"owner": "1", "contact": contact, "op": "upsert"}))
    put(fleet, {"owner": "2", "contact": "9", "op": "upsert"})
    ran = run(fleet, "forget", "1", "--yes")
    assert ran.exit_code == 1
    assert "2 entries" in ran.stderr
    assert told(fleet, "forget", "1", "8", "--also-waiting", "--yes")["removed"]["inbox_entries"] == 1
    assert told(fleet, "forget", "1", "--also-waiting", "--yes")["removed"]["inbox_entries"] == 1
    assert fleet.client.xlen(fleet.keys.inbox) == 1


def test_drain_and_the_oldest_age_know_of_it(fleet: Fleet) -> None:
    put(fleet, {"owner": "1", "contact": "9", "op": "upsert"})
    assert told(fleet, "status")["oldest_seconds"] is not None
    ran = run(fleet, "drain", "--timeout", "0")
    assert ran.exit_code == 1
    assert "1 entry in the inbox" in ran.stderr


def test_the_ticker_of_a_worker_moves_it(process_fleet: Fleet, wait_until: WaitUntil, tmp_path: Path) -> None:
    fleet = process_fleet
    with WorkerProcess(fleet.environment(), tmp_path):
        put(fleet, data({"owner": "1", "contact": "9", "op": "upsert"}))
        wait_until(lambda: fleet.stand_in.contacts() == {("1", "9")}, seconds=60, what="the endpoint has it")


def test_an_owner_beside_data_is_taken_as_it_stands() -> None:
    flat = [b"owner", b"1", b"data", b"{}"]
    assert read_inbox(flat) == flat
