"""`contact-sync emit`: every line is in the log, or said to be bad, or comes back."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import COMMAND, run, told
from tests.support.fleet import PARTITIONS, Fleet, T
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Mapping


def lines(*changes: Mapping[str, object]) -> str:
    return "".join(json.dumps(change) + "\n" for change in changes)


def test_emitted_lines_are_in_the_log_and_delivered(fleet: Fleet) -> None:
    given = lines({"owner": "1", "contact": "2", "op": "upsert"}, {"owner": "1", "contact": "3", "op": "upsert"})
    ran = run(fleet, "emit", given=given)
    assert (ran.exit_code, ran.stdout) == (0, "")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2"), ("1", "3")}


def test_a_file_is_emitted_as_standard_input_is(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "changes.jsonl"
    file.write_text(lines({"owner": "1", "contact": "2", "op": "upsert", "at": T, "source": "crm"}))
    assert run(fleet, "emit", str(file)).exit_code == 0
    assert told(fleet, "explain", "1", "2")["waiting"][0].items() >= {"at": T, "source": "crm"}.items()


def test_bad_lines_are_said_by_number_and_skipped(fleet: Fleet) -> None:
    ran = run(fleet, "emit", given='{"owner": "1"}\n' + lines({"owner": "1", "contact": "2", "op": "upsert"}) + "x\n")
    assert ran.exit_code == 1
    assert [line.partition(":")[0] for line in ran.stderr.splitlines()] == ["line 1", "line 3", "contact-sync"]
    assert fleet.backlog() == 1


def test_what_a_broken_redis_did_not_accept_comes_back_as_stamped(fleet: Fleet, tmp_path: Path) -> None:
    many = [{"owner": "1", "contact": str(n), "op": "upsert"} for n in range(2_500)]
    unsent = tmp_path / "unsent.jsonl"
    ran = run(fleet, "emit", "--unsent", str(unsent), given=lines(*many), redis_url="redis://127.0.0.1:1/0")
    assert ran.exit_code == 1
    assert "changes accepted: 0" in ran.stderr
    assert "not accepted, or perhaps not: 2,500" in ran.stderr
    left = [json.loads(line) for line in unsent.read_text().splitlines()]
    assert [each["contact"] for each in left] == [each["contact"] for each in many]
    assert [each["at"] for each in left] == sorted(each["at"] for each in left)
    again = run(fleet, "emit", str(unsent))
    assert again.exit_code == 0
    assert fleet.backlog() == 2_500


def test_without_a_file_for_it_what_was_not_accepted_goes_to_standard_output(fleet: Fleet) -> None:
    pair = {"owner": "1", "contact": "2"}
    given = lines({**pair, "op": "upsert"}, {**pair, "op": "delete"})
    ran = run(fleet, "emit", given=given, redis_url="redis://127.0.0.1:1/0")
    first, second = [json.loads(line) for line in ran.stdout.splitlines()]
    assert (first["op"], second["op"]) == ("upsert", "delete")
    assert first["at"] < second["at"]


def test_a_full_redis_loses_no_line_between_the_log_and_what_comes_back(fleet: Fleet, tmp_path: Path) -> None:
    many = [{"owner": str(n), "contact": "x" * 200, "op": "upsert"} for n in range(20_000)]
    unsent = tmp_path / "unsent.jsonl"
    with EmbeddedRedis(config={"maxmemory": "4mb", "maxmemory-policy": "noeviction"}) as small:
        ran = run(fleet, "emit", "--unsent", str(unsent), given=lines(*many), redis_url=small.url)
        client = connect(small.url)
        accepted = sum(client.xlen(fleet.keys.events(p)) for p in range(PARTITIONS))
        client.close()
    assert ran.exit_code == 1
    assert 0 < accepted < 20_000
    assert accepted + len(unsent.read_text().splitlines()) == 20_000


def test_the_input_itself_is_no_place_for_what_was_not_accepted(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "changes.jsonl"
    file.write_text(lines({"owner": "1", "contact": "2", "op": "upsert"}))
    assert run(fleet, "emit", str(file), "--unsent", str(file)).exit_code == 2
    with file.open("rb") as given, file.open("ab") as out:
        appended = subprocess.run(
            [COMMAND, "emit"],
            env={**os.environ, **fleet.environment()},
            stdin=given,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (appended.returncode, "standard output is FILE itself" in appended.stderr) == (2, True)
    assert fleet.backlog() == 0


def test_a_line_that_only_sending_refuses_hides_none_after_it_while_redis_is_away(fleet: Fleet, tmp_path: Path) -> None:
    far = int(time.time() * 1000) + 3_600_000
    said = [{"owner": "1", "contact": str(n), "op": "delete", **({"at": far} if n == 2 else {})} for n in range(1, 5)]
    unsent = tmp_path / "unsent.jsonl"
    ran = run(fleet, "emit", "--unsent", str(unsent), given=lines(*said), redis_url="redis://127.0.0.1:1/0")
    assert (ran.exit_code, "line 2: at must be" in ran.stderr) == (1, True), ran.stderr
    left = [json.loads(line) for line in unsent.read_text().splitlines()]
    assert [each["contact"] for each in left] == ["1", "3", "4"]
    assert [each["at"] for each in left] == sorted(each["at"] for each in left)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is /dev/full")
def test_a_file_that_cannot_take_what_is_not_accepted_is_named(fleet: Fleet) -> None:
    change = lines({"owner": "1", "contact": "2", "op": "delete"})
    ran = run(fleet, "emit", "--unsent", "/dev/full", given=change, redis_url="redis://127.0.0.1:1/0")
    assert (ran.exit_code, "/dev/full cannot be written" in ran.stderr) == (1, True), ran.stderr


def test_nothing_is_sent_if_what_is_not_accepted_has_nowhere_to_go(fleet: Fleet) -> None:
    environ = {"PATH": os.environ["PATH"], **fleet.environment()}
    change = lines({"owner": "1", "contact": "2", "op": "delete"})
    closed = [COMMAND, "emit"]
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *map(str, closed)]
    ran = subprocess.run(shell, env=environ, input=change, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, "standard output is closed" in ran.stderr) == (2, True), ran.stderr
    assert fleet.backlog() == 0


def said_to_nobody(fleet: Fleet, *args: str, given: str, **overrides: Any) -> int:
    """How a command ends whose standard error nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    environ = {"PATH": os.environ["PATH"], **fleet.environment(**overrides)}
    try:
        ran = subprocess.run(
            [COMMAND, *args], env=environ, input=given, stdout=subprocess.PIPE, stderr=writer, text=True, check=False
        )
    finally:
        os.close(writer)
    return ran.returncode


def test_a_bad_line_that_nobody_is_told_of_keeps_no_good_line_back(fleet: Fleet, tmp_path: Path) -> None:
    many = [lines({"owner": "1", "contact": str(n), "op": "upsert"}) if n % 1_000 else "bad\n" for n in range(1, 5_001)]
    assert said_to_nobody(fleet, "emit", given="".join(many)) == 1
    assert fleet.backlog() == 4_995
    unsent = tmp_path / "unsent.jsonl"
    away = {"redis_url": "redis://127.0.0.1:1/0"}
    assert said_to_nobody(fleet, "emit", "--unsent", str(unsent), given="".join(many), **away) == 1
    assert len(unsent.read_text().splitlines()) == 4_995


def test_a_command_ends_with_the_same_status_if_nobody_is_told_why(fleet: Fleet) -> None:
    assert said_to_nobody(fleet, "emit", given="", wait_replicas="many") == 2
    rows = "owner,contact\n1,\n1,2\n"
    assert said_to_nobody(fleet, "reconcile", "-", given=rows) == 1
    assert fleet.backlog() == 1
