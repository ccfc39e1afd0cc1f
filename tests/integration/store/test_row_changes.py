"""Rows as change data capture writes them go through the inbox of a real Redis, and end as the database."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.support.commands import run, told
from tests.support.fleet import Fleet, T
from tests.support.recorded_messages import ENDS, MAPS, TOOLS, mapping, recorded
from tests.support.serving import serving
from tests.support.worker_process import WorkerProcess
from worker.store.client import command
from worker.store.inbox import Inbox

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.waiting import WaitUntil

DEBEZIUM = "debezium-server"


def inbox_of(fleet: Fleet, tool: str = DEBEZIUM) -> Inbox:
    return Inbox(fleet.first.namespace, mapping(tool))


def put(fleet: Fleet, *flat: Any) -> str:
    return bytes(command(fleet.client, "XADD", fleet.keys.inbox, "*", *flat)).decode()


def say(fleet: Fleet, op: str, before: Any, after: Any, at: int = T) -> str:
    rows = [None if each is None else {"user_id": each[0], "friend_id": each[1]} for each in (before, after)]
    said = {"op": op, "before": rows[0], "after": rows[1], "source": {"ts_ms": at}}
    return put(fleet, "key", "{}", "value", orjson.dumps(said))


def two_owners(fleet: Fleet) -> tuple[str, str]:
    other = next(str(n) for n in range(2, 99) if fleet.partition(str(n)) != fleet.partition("1"))
    return "1", other


@pytest.mark.parametrize("tool", TOOLS)
def test_recorded_messages_end_as_the_database_in_any_order_and_number(tool: str, fleet: Fleet) -> None:
    chance, inbox = random.Random(tool), inbox_of(fleet, tool)
    for _ in range(3):
        entries = recorded(tool) * 2
        chance.shuffle(entries)
        for flat in entries:
            put(fleet, *flat)
        while fleet.client.xlen(fleet.keys.inbox):
            assert inbox.move()
        fleet.deliver()
        assert fleet.stand_in.contacts() == ENDS[tool]
    assert fleet.dead_letters() == []


def test_a_tombstone_is_nothing(fleet: Fleet) -> None:
    say(fleet, "d", ("1", "2"), None, T + 1)
    put(fleet, "key", "{}", "value", "default")
    say(fleet, "c", None, ("1", "2"), T + 2)
    assert inbox_of(fleet).move() == 3
    assert fleet.backlog() == 2
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_what_our_own_producers_append_goes_beside_it(fleet: Fleet) -> None:
    say(fleet, "c", None, ("1", "2"))
    put(fleet, "owner", "1", "contact", "3", "op", "upsert")
    put(fleet, "data", json.dumps({"owner": "1", "contact": "4", "op": "upsert"}))
    assert inbox_of(fleet).move() == 3
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2"), ("1", "3"), ("1", "4")}


def test_both_changes_of_a_key_go_or_none_does(fleet: Fleet) -> None:
    one, other = two_owners(fleet)
    refusing = fleet.keys.events(fleet.partition(other))
    fleet.client.set(refusing, "not ours")
    say(fleet, "u", (one, "9"), (other, "9"))
    say(fleet, "u", (other, "8"), (one, "8"))
    inbox = inbox_of(fleet)
    assert [inbox.move() for _ in range(3)] == [0, 0, 0]
    assert fleet.client.xlen(fleet.keys.events(fleet.partition(one))) == 0  # not one copy more at each try
    fleet.client.delete(refusing)
    assert inbox.move() == 2
    fleet.deliver()
    assert fleet.stand_in.contacts() == {(other, "9"), (one, "8")}


def test_both_changes_of_one_owner_are_appended_in_one_step(fleet: Fleet) -> None:
    for n in range(400):  # more than one script takes, so that some are near its end
        say(fleet, "u", ("1", f"{n}-old"), ("1", f"{n}-new"), T + n)
    assert inbox_of(fleet).move() == 400
    p = fleet.partition("1")
    said = [fields[b"contact"].decode() for _, fields in fleet.client.xrange(fleet.keys.events(p))]
    assert said == [f"{n}-{which}" for n in range(400) for which in ("old", "new")]


def test_a_message_that_does_not_fit_becomes_a_dead_letter_that_can_be_read_again(fleet: Fleet) -> None:
    say(fleet, "u", None, ("ann", "bob"), T + 5)
    say(fleet, "c", None, ("ann", "eve"), T // 1000)
    put(fleet, "key", "{}", "value", "{no json")
    inbox = inbox_of(fleet)
    assert inbox.move() == 3
    fleet.deliver()
    assert fleet.stand_in.contacts() == set()
    letters = {each["field"]: each for each in fleet.dead_letters()}
    assert {each["reason"] for each in letters.values()} == {"unmapped"}
    assert letters.keys() == {"key_change", "at", "message"}
    update = letters["key_change"]
    assert (update["owner"], update["contact"], update["op"], update["at"]) == ("ann", "bob", "upsert", T + 5)
    assert update["message"] == "'before' is missing, and op 'u' needs it"
    shown = told(fleet, "dead-letters", "list", "--reason", "unmapped")
    assert [each["said"][0] for each in shown] == ["key"] * 3
    assert told(fleet, "dead-letters", "redrive", "--reason", "unmapped") == {"redriven": 3, "refused": []}
    assert (fleet.dead_letters(), fleet.client.xlen(fleet.keys.inbox)) == ([], 3)
    corrected = Inbox(fleet.first.namespace, mapping("debezium-server-compact"))
    assert corrected.move() == 3
    fleet.deliver()
    assert len(fleet.dead_letters()) == 3  # none was lost, and none fits that either


def test_a_mended_mapping_delivers_what_was_redriven(fleet: Fleet) -> None:
    for flat in recorded(DEBEZIUM):
        put(fleet, *flat)
    assert inbox_of(fleet, "debezium-server-compact").move() == 8
    fleet.deliver()
    assert len(fleet.dead_letters()) == 8
    assert told(fleet, "dead-letters", "redrive")["redriven"] == 8
    assert inbox_of(fleet).move() == 8
    fleet.deliver()
    assert fleet.stand_in.contacts() == ENDS[DEBEZIUM]


def test_a_message_older_than_what_is_remembered_is_not_redriven(fleet: Fleet) -> None:
    say(fleet, "c", None, ("1", "2"), T // 1000)
    inbox_of(fleet).move()
    fleet.deliver()
    fleet.client.hset(fleet.keys.partition(3), "vouched", fleet.now_ms() + 1)
    ran = run(fleet, "dead-letters", "redrive")
    assert ran.exit_code == 1
    assert "older than the memory of its pair" in ran.stderr
    assert len(fleet.dead_letters()) == 1


def test_erase_finds_a_person_in_a_message_that_did_not_fit(fleet: Fleet) -> None:
    say(fleet, "t", None, ("person-to-erase", "bob"))
    say(fleet, "t", None, ("somebody", "bob"))
    inbox_of(fleet).move()
    fleet.deliver()
    assert [each["owner"] for each in fleet.dead_letters()] == [None, None]
    ran = run(fleet, "erase", "person-to-erase", "--wait", "5")
    assert ran.exit_code == 0, ran.output
    (left,) = fleet.dead_letters()
    assert "somebody" in left["said"][3]


def test_forget_and_erase_find_what_a_message_in_the_inbox_says(fleet: Fleet) -> None:
    path = str(MAPS / f"{DEBEZIUM}.toml")
    say(fleet, "u", ("1", "8"), ("2", "8"))
    ran = run(fleet, "forget", "1", "--yes", inbox_map=path)
    assert ran.exit_code == 1
    assert "1 entry" in ran.stderr
    assert told(fleet, "forget", "1", "--also-waiting", "--yes", inbox_map=path)["removed"]["waiting_entries"] == 1
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("2", "8")}


def test_explain_knows_what_a_message_says(fleet: Fleet) -> None:
    say(fleet, "u", ("1", "8"), ("1", "9"))
    path = str(MAPS / f"{DEBEZIUM}.toml")
    for contact, op in (("8", "delete"), ("9", "upsert")):
        assert [each["op"] for each in told(fleet, "explain", "1", contact, inbox_map=path)["inbox"]] == [op]
        assert told(fleet, "explain", "1", contact)["inbox"] == []
    with serving(fleet, inbox_map=path) as client:
        said = client.get("/api/explain?owner=1&contact=9").json()["lines"]
    assert said == run(fleet, "explain", "1", "9", inbox_map=path).stdout.splitlines()[1:]
    assert any("inbox" in line for line in said)


def test_a_worker_moves_it_and_one_without_the_mapping_is_named(
    process_fleet: Fleet, wait_until: WaitUntil, tmp_path: Path
) -> None:
    fleet, path = process_fleet, MAPS / f"{DEBEZIUM}.toml"
    with WorkerProcess(fleet.environment(inbox_map=path), tmp_path):
        for flat in recorded(DEBEZIUM):
            put(fleet, *flat)
        wait_until(lambda: fleet.stand_in.contacts() == ENDS[DEBEZIUM], seconds=60, what="the endpoint has it")
        (worker,) = told(fleet, "status")["workers"]
        fleet.client.hset(fleet.keys.workers, "another", _without_map(fleet, worker["name"]))
        obstacles = {each["name"]: each["message"] for each in told(fleet, "status")["obstacles"]}
        assert obstacles["mixed_settings"] == "workers of this namespace differ in CONTACT_SYNC_INBOX_MAP"


def _without_map(fleet: Fleet, name: str) -> bytes:
    note: Any = fleet.client.hget(fleet.keys.workers, name)
    head, _, _ = bytes(note).partition(b"inbox_map=")
    return head + b"inbox_map=none"


@pytest.mark.parametrize("arguments", [("worker",), ("explain", "1", "2"), ("serve", "--port", "0")])
def test_a_mapping_that_does_not_fit_is_one_line(arguments: tuple[str, ...], fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    for text, said in (
        (b'[message]\nin = "stream"', "message.in must be 'field' or 'single' or 'fields'"),
        (b"\xff", "it is not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "it is longer than 1048576 bytes"),
        (None, "it cannot be read: No such file or directory"),
    ):
        if text is None:
            path.unlink()
        else:
            path.write_bytes(text)
        ran = run(fleet, *arguments, inbox_map=str(path))
        assert ran.exit_code == 2
        assert ran.stderr == f"contact-sync: CONTACT_SYNC_INBOX_MAP, {path}: {said}\n"


def test_check_tells_of_the_mapping(fleet: Fleet, tmp_path: Path) -> None:
    good = MAPS / f"{DEBEZIUM}.toml"
    assert f"inbox map    {good} is valid" in run(fleet, "check", inbox_map=str(good)).stdout
    ran = run(fleet, "check", inbox_map=str(tmp_path))
    assert ran.exit_code == 1
    assert "it cannot be read: Is a directory" in ran.stdout
    os.mkfifo(pipe := tmp_path / "pipe")
    assert "it cannot be read: Is a pipe" in run(fleet, "check", inbox_map=str(pipe)).stdout
