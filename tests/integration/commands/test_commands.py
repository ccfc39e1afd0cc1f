"""What the commands tell of a real Redis, the real stand-in and real flushes, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import COMMAND, ENDS, dead_letter, run, running, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.waiting import wait_until
from worker.core.times import iso_utc

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.waiting import WaitUntil


# status


def test_status_of_an_empty_log_says_that_nothing_waits_and_records_nothing(fleet: Fleet) -> None:
    found = told(fleet, "status")
    assert found["oldest_seconds"] is None
    assert found["backlog_events"] == found["pending_pairs"] == found["dead_letters"] == 0
    well = {"state": "ok", "reason": None, "attempts": 0, "retry_at": None, "last_error": None, "paused_since": None}
    assert found["endpoint"] == well | {"rate": None, "in_flight_limit": None, "in_flight": 0}
    assert not fleet.client.exists(fleet.keys.config)
    assert "nothing waits" in run(fleet, "status").stdout


def test_every_event_ends_in_exactly_one_way_or_waits(fleet: Fleet) -> None:
    dead_letter(fleet)
    fleet.append("1", "2", "upsert", T)
    fleet.append("1", "2", "upsert", T + 1)
    fleet.append("1", "2", "delete", T + 2)
    fleet.append_raw(0, {"op": "upsert"})
    fleet.deliver()
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    fleet.append("3", "2", "upsert")
    found = told(fleet, "status")
    assert found["totals"]["events"] == 7
    assert [found["totals"][name] for name in ENDS] == [1, 1, 1, 1, 2]
    assert found["waiting_changes"] == found["backlog_events"] == 1
    assert found["dead_letters"] == 2


def test_the_oldest_is_as_old_as_its_entry_in_the_log_or_read_from_it(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", entry=f"{fleet.now_ms() - 60_000}-0")
    assert 60 <= told(fleet, "status")["oldest_seconds"] < 90
    fleet.stand_in.faults({"kind": "status", "status": 503})
    fleet.flush_once()
    fleet.append("1", "3", "upsert")
    found = told(fleet, "status")
    assert (found["pending_pairs"], found["backlog_events"]) in {(1, 1), (0, 2)}
    assert 60 <= found["oldest_seconds"] < 90


def test_status_says_that_the_endpoint_is_held_why_and_when_it_is_tried_next(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert")
    fleet.worker(server_key_secret="wrong", backoff_max_seconds=60.0).flusher.run(1.0)
    endpoint = told(fleet, "status")["endpoint"]
    assert endpoint["state"] == "held"
    assert endpoint["reason"] == "credentials"
    assert endpoint["retry_at"].endswith("Z")
    assert "40103" in endpoint["last_error"]
    assert "held (credentials); next try in" in run(fleet, "status").stdout


def test_a_key_of_another_type_is_told_and_hides_nothing_else(fleet: Fleet) -> None:
    wrong_type = next(p for p in range(PARTITIONS) if p != fleet.partition("1"))
    fleet.client.set(fleet.keys.events(wrong_type), "no stream")
    fleet.append("1", "2", "upsert")
    found = told(fleet, "status")
    assert found["wrong_type_partitions"] == [wrong_type]
    assert found["backlog_events"] == 1
    assert f"something else wrote: {fleet.keys.events(wrong_type)}" in run(fleet, "status").stdout
    checks = {each["name"]: each for each in told(fleet, "check")["checks"]}
    assert checks["streams"]["severity"] == "wrong"


def test_status_watches_until_ctrl_c_and_then_exits_with_130(fleet: Fleet) -> None:
    with running(fleet.environment(), "status", "--watch", "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["backlog_events"] == 0
        fleet.append("1", "2", "upsert")
        assert json.loads(process.stdout.readline())["backlog_events"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == ""


def test_a_reader_that_has_gone_ends_status_without_a_traceback(fleet: Fleet) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with running(fleet.environment(), "status", stdout=writer) as process:
        os.close(writer)
        assert process.stderr is not None
        assert process.wait(30) in {0, 1}
        assert process.stderr.read() == ""


def test_another_number_of_partitions_than_recorded_is_exit_status_2(fleet: Fleet) -> None:
    fleet.flush()
    ran = run(fleet, "status", partitions=PARTITIONS + 1)
    assert ran.exit_code == 2
    assert f"is {PARTITIONS + 1}, but namespace" in ran.stderr


def test_what_waits_has_an_age_although_its_id_is_ahead_of_the_clock(fleet: Fleet) -> None:
    fleet.append("1", "2", "delete", entry=f"{fleet.now_ms() + 3_600_000}-0")
    assert told(fleet, "status")["oldest_seconds"] > 0
    time.sleep(1.0)
    found = told(fleet, "status")
    assert 1 <= found["oldest_seconds"] < 30
    assert found["oldest_delete_seconds"] == found["oldest_seconds"]
    fleet.deliver()
    assert told(fleet, "status")["oldest_seconds"] is None


def test_an_inbox_whose_ids_are_ahead_of_the_clock_has_an_age(fleet: Fleet) -> None:
    change = {"owner": "1", "contact": "2", "op": "upsert"}
    fleet.client.xadd(fleet.keys.inbox, change, id=f"{fleet.now_ms() + 3_600_000}-0")
    assert told(fleet, "status")["oldest_seconds"] > 0
    time.sleep(0.5)
    assert 0.5 <= told(fleet, "status")["oldest_seconds"] < 30


# drain


def test_draining_an_idle_log_is_done_at_once(fleet: Fleet) -> None:
    assert run(fleet, "drain").exit_code == 0


def test_draining_waits_until_a_worker_has_delivered_everything(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert")
    with running(fleet.environment(), "drain", "--timeout", "60") as process:
        fleet.deliver()
        assert process.wait(30) == 0
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_draining_does_not_end_while_a_worker_holds_a_partition(fleet: Fleet) -> None:
    fleet.client.set(fleet.keys.lease(0), "1", px=60_000)
    assert run(fleet, "drain", "--timeout", "0").exit_code == 1


def test_draining_ends_at_the_timeout_with_what_is_left(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert")
    ran = run(fleet, "drain", "--timeout", "0.1")
    assert ran.exit_code == 1
    assert "not drained within 0.1 s: 1 entry and 0 pairs are waiting" in ran.stderr
    assert "no worker is awake" in ran.stderr


def test_draining_ends_at_once_with_the_reason_where_the_endpoint_is_held(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert")
    fleet.worker(server_key_secret="wrong").flusher.run(0.2)
    ran = run(fleet, "drain", "--timeout", "5")
    assert ran.exit_code == 1
    assert "not drained: the endpoint is held (credentials" in ran.stderr


def test_draining_waits_for_a_late_request_that_may_still_undo_what_was_confirmed(fleet: Fleet) -> None:
    fleet.change(late_seconds=2.0)
    fleet.stand_in.faults({"kind": "late", "seconds": 1.0, "times": 1})
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    fleet.append("1", "2", "delete", T + 1)
    wait_until(lambda: fleet.flush(0.1) >= 0 and not (fleet.backlog() or fleet.pending()), what="confirmed")
    found = told(fleet, "status")
    assert (found["late_pairs"], found["pending_pairs"], found["backlog_events"]) == (1, 0, 0)
    until_ms = max(mark.until_ms for mark in fleet.marks().values())
    assert found["late_until"] == iso_utc(until_ms)
    ran = run(fleet, "drain", "--timeout", "0")
    assert ran.exit_code == 1
    assert f"unanswered requests may still change 1 pair until {iso_utc(until_ms)}" in ran.stderr
    left_out = run(fleet, "drain", "--ignore-late")
    assert left_out.exit_code == 0
    assert "drained; left out: unanswered requests may still change 1 pair until" in left_out.stderr
    with running(fleet.environment(), "drain", "--timeout", "60") as process:
        fleet.deliver()
        assert process.wait(30) == 0
    assert fleet.stand_in.contacts() == set()
    assert (told(fleet, "status")["late_pairs"], told(fleet, "status")["late_until"]) == (0, None)


# explain


def test_explain_tells_what_waits_and_what_follows_from_it(fleet: Fleet) -> None:
    entry = fleet.append("1", "2", "delete", T)
    fleet.append("1", "2", "upsert", T + 1)
    fleet.append("1", "3", "upsert", T)
    found = told(fleet, "explain", "1", "2")
    assert [(each["op"], each["at"]) for each in found["waiting"]] == [("delete", T), ("upsert", T + 1)]
    assert found["waiting"][0]["entry"] == entry
    assert found["next"] == {"op": "delete", "then": "upsert", "superseded": 0, "stale": 0}
    words = run(fleet, "explain", "1", "2").stdout
    assert "a request sends delete; the upsert is known to be later" in words


def test_explain_tells_what_was_confirmed_and_that_older_changes_are_stale(fleet: Fleet) -> None:
    fleet.append("1", "2", "delete", T)
    fleet.deliver()
    fleet.append("1", "2", "upsert", T - 1)
    found = told(fleet, "explain", "1", "2")
    assert found["confirmed"] == {"op": "delete", "delete_at": T, "upsert_at": None}
    assert found["next"] == {"op": None, "then": None, "superseded": 0, "stale": 1}
    assert found["why"][0].startswith("1 dropped as stale")


def test_explain_tells_what_pends_and_why_it_does(fleet: Fleet, wait_until: WaitUntil) -> None:
    fleet.append("1", "2", "upsert", T)
    held = fleet.worker(server_key_secret="wrong").flusher
    wait_until(lambda: (held.run(0.2), fleet.pending())[1], what="a probe has read the log into pending")
    found = told(fleet, "explain", "1", "2")
    assert (found["pending"]["upsert"]["at"], found["pending"]["delete"], found["waiting"]) == (T, None, [])
    assert "the endpoint is held (credentials" in found["why"][-1]


def test_explain_tells_of_dead_letters_in_whatever_partition(fleet: Fleet) -> None:
    home = dead_letter(fleet)
    wrong = (fleet.partition("1") + 1) % PARTITIONS
    fleet.append_raw(wrong, {"owner": "1", "contact": "9", "op": "upsert"})
    fleet.deliver()
    found = told(fleet, "explain", "1", "9")
    assert {each["id"] for each in found["dead_letters"]} == {home, f"{wrong}-1"}
    assert found["why"] == ["nothing: no change of this pair waits"]


def fates(fleet: Fleet, *ids: str) -> list[str]:
    """What `explain` says of each entry that waits, after its last semicolon; times as distances from T."""
    text = run(fleet, "explain", *ids).stdout.replace(iso_utc(T), "T").replace(iso_utc(T + 1), "T+1")
    return [line.rpartition("; ")[2] for line in text.splitlines() if line.startswith("in the log: ")]


def test_explain_tells_of_each_entry_what_becomes_of_it_and_because_of_what(fleet: Fleet) -> None:
    for op, at in (("upsert", T - 1), ("delete", T - 5), ("delete", T), ("upsert", T + 1), ("upsert", None)):
        fleet.append("1", "2", op, at)
    fleet.append_raw(fleet.partition("1"), {"owner": "1", "contact": "2", "op": "update"})
    assert fates(fleet, "1", "2") == [
        "it is superseded by the delete at T, and ends with it",
        "it is joined with a newer delete",
        "the next request sends it as delete",
        "it is later than the delete at T, and is sent after that is confirmed",
        "it is superseded by the delete at T, and ends with it",
        "it becomes a dead letter",
    ]


def test_explain_tells_what_an_entry_is_outdated_by(fleet: Fleet) -> None:
    fleet.append("1", "2", "delete", T)
    fleet.append("1", "3", "upsert", T + 1)
    fleet.deliver()
    fleet.append("1", "2", "upsert", T - 1)
    fleet.append("1", "2", "upsert")
    fleet.append("1", "3", "delete", T)
    assert fates(fleet, "1", "2") == [
        "it is stale: a delete at T was settled",
        "the next request sends it as upsert",
    ]
    assert fates(fleet, "1", "3") == ["it is stale: an upsert at T+1 was settled"]


def test_explain_tells_how_one_change_stands(fleet: Fleet) -> None:
    entry = fleet.append("1", "2", "delete", T)
    of = ("explain", "1", "2", "--entry", entry, "--op", "delete", "--at", str(T))
    assert told(fleet, *of)["delivery_status"] == "waiting"
    fleet.deliver()
    assert told(fleet, *of)["delivery_status"] == "confirmed"
    assert f"the delete of entry {entry}: the endpoint confirmed it" in run(fleet, *of).stdout
    upsert = ("explain", "1", "2", "--entry", entry, "--op", "upsert", "--at", str(T))
    assert told(fleet, *upsert)["delivery_status"] == "superseded"
    assert told(fleet, "explain", "1", "2")["delivery_status"] is None


@pytest.mark.parametrize(
    "options", [("--entry", "1-0"), ("--op", "upsert"), ("--at", str(T)), ("--entry", "now", "--op", "upsert")]
)
def test_half_a_receipt_is_wrong_usage(fleet: Fleet, options: tuple[str, ...]) -> None:
    ran = run(fleet, "explain", "1", "2", *options)
    assert (ran.exit_code, ran.stdout) == (2, "")


def test_explain_of_an_unknown_pair_says_so(fleet: Fleet) -> None:
    ran = run(fleet, "explain", "1", "2")
    assert ran.exit_code == 0
    assert "this pair is unknown" in ran.stdout
    ran = run(fleet, "explain", "1", "2", "--entry", "1-1", "--op", "delete")
    assert "the delete of entry 1-1: it is not in the log" in ran.stdout


# worker


def test_the_worker_command_takes_nothing_for_its_own_that_is_meant_for_another_app(
    fleet: Fleet, wait_until: WaitUntil, tmp_path: Path
) -> None:
    for name in ("worker", "celery", "producers", "redis"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is another project')\n")
    theirs = {"BROKER_URL": "redis://127.0.0.1:1/0", "CONFIG_MODULE": "no_such", "LOADER": "no_such", "WORKDIR": "/no"}
    environ = fleet.environment() | theirs | {f"CELERY_{name}": value for name, value in theirs.items()}
    with running(environ, "worker", "-c", "2", cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: told(fleet, "status")["worker_awake"], seconds=30, what="the worker is awake")
        process.terminate()
        assert process.wait(30) == 0


def test_the_worker_command_delivers_and_ends_when_told_to(fleet: Fleet, wait_until: WaitUntil, tmp_path: Path) -> None:
    fleet.append("1", "2", "upsert")
    log = (tmp_path / "log").open("w+")
    environ = fleet.environment(lease_seconds=5.0)
    with subprocess.Popen(
        [COMMAND, "worker", "-c", "2"], env={"PATH": os.environ["PATH"], **environ}, stderr=log
    ) as process:
        try:
            wait_until(lambda: fleet.stand_in.contacts() == {("1", "2")}, seconds=30, what="the change is delivered")
            assert told(fleet, "status")["worker_awake"]
            assert run(fleet, "drain", "--timeout", "20").exit_code == 0
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            log.close()


@pytest.mark.parametrize(
    ("command", "key", "field"),
    [
        ("status", "gate", "attempts"),
        ("health", "gate", "generation"),
        ("explain 1 2", "gate", "limit"),
        ("status", "{0}:partition", "oldest"),
        ("health", "{0}:totals", "events"),
        ("status", "config", "lost_at"),
        ("status", "{0}:late", "1\x1f2"),
        ("dead-letters list", "{0}:dead", "0-1"),
        ("parked list", "{0}:parked", "1\x1f2"),
    ],
)
def test_what_something_else_wrote_in_redis_is_told_in_one_line(
    fleet: Fleet, command: str, key: str, field: str
) -> None:
    fleet.client.hset(f"{fleet.keys.namespace}:{key}", field, "secret-owner")
    ran = run(fleet, *command.split())
    assert (ran.exit_code, ran.stderr.count("\n"), "secret" in ran.stderr) == (2, 1, False), ran.stderr
    assert "cannot be read: something else wrote it in Redis" in ran.stderr
