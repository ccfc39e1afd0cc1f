"""`contact-sync reconcile`: the endpoint ends as the source says, unless something newer was said since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import COMMAND, dead_letter, run, running, told
from tests.support.fleet import Fleet, T
from worker.reconcile import Limits, Options, TooManyDeletes, reconcile

if TYPE_CHECKING:
    from tests.support.waiting import WaitUntil


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "contacts.csv"


def write(source: Path, *rows: str, header: str = "owner,contact") -> str:
    source.write_text("\n".join([header, *rows, ""]))
    return str(source)


def forever(fleet: Fleet) -> None:
    fleet.change(ledger_seconds="forever")


def confirm(fleet: Fleet, *changes: tuple[str, str, str, int | None]) -> None:
    fleet.append_many(changes)
    fleet.deliver()


# Everything is said again


def test_every_row_is_said_again_and_deletes_come_only_from_what_the_source_says(fleet: Fleet, source: Path) -> None:
    confirm(fleet, ("1", "old", "upsert", T), ("1", "gone", "upsert", T))
    done = told(fleet, "reconcile", write(source, "1,2,upsert", "1,gone,delete", header="owner,contact,op"))
    assert (done["mode"], done["upserts"], done["deletes"], done["sent"]) == ("everything", 1, 1, 2)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2"), ("1", "old")}


def test_pairs_with_dead_letters_make_no_more_of_them_until_those_are_gone(fleet: Fleet, source: Path) -> None:
    letter = dead_letter(fleet)
    text = write(source, "1,9", "1,2")
    for _ in range(2):
        done = told(fleet, "reconcile", text)
        assert (done["upserts"], done["dead"]) == (1, 1)
        fleet.deliver()
    assert [each["id"] for each in fleet.dead_letters()] == [letter]
    assert told(fleet, "reconcile", write(source, "1,9,delete", header="owner,contact,op"))["deletes"] == 1
    run(fleet, "dead-letters", "purge", "--yes")
    fleet.deliver()
    assert told(fleet, "reconcile", write(source, "1,9", "1,2"))["upserts"] == 2
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2"), ("1", "9")}


def test_what_was_said_since_the_snapshot_began_wins_confirmed_or_waiting(fleet: Fleet, source: Path) -> None:
    confirm(fleet, ("1", "a", "upsert", T), ("1", "a", "delete", T + 20_000))
    fleet.append("1", "b", "delete", T + 20_000)
    write(source, "1,a,upsert", "1,b,upsert", "1,c,delete", header="owner,contact,op")
    fleet.append("1", "c", "upsert", T + 20_000)
    assert run(fleet, "reconcile", str(source), "--as-of", str(T + 10_000)).exit_code == 0
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "c")}


def test_rejected_rows_are_told_by_line_and_kept_in_a_file_and_the_others_are_sent(
    fleet: Fleet, source: Path, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.jsonl"
    ran = run(fleet, "reconcile", write(source, "1,2", ",3", "1,2"), "--rejects", str(rejects))
    assert ran.exit_code == 1
    assert ran.stderr.startswith("line 3: owner must be")
    kept = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(each["line"], each["field"]) for each in kept] == [(3, "owner"), (4, "contact")]
    assert fleet.backlog() == 1


@pytest.mark.parametrize("text", ["owner,contact,op\n1,2,delete\n1,3", "owner,name\n1,2\n", ""])
def test_a_source_without_end_or_header_sends_nothing(fleet: Fleet, source: Path, text: str) -> None:
    source.write_text(text)
    ran = run(fleet, "reconcile", str(source))
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert fleet.backlog() == 0


def test_one_owner_alone_and_a_dry_run_with_its_differences(fleet: Fleet, source: Path, tmp_path: Path) -> None:
    diff = tmp_path / "diff.jsonl"
    write(source, "1,2", "10,2", "3,4")
    done = told(fleet, "reconcile", str(source), "--owner", "1", "--dry-run", "--diff", str(diff))
    assert (done["rows"], done["upserts"], done["sent"]) == (1, 1, 0)
    assert [json.loads(line)["owner"] for line in diff.read_text().splitlines()] == ["1"]
    assert fleet.backlog() == 0
    assert run(fleet, "emit", str(diff)).exit_code == 0


@pytest.mark.parametrize("owner", ["", "\udcff", "a\x1fb"], ids=["empty", "not UTF-8", "separator"])
def test_an_owner_that_no_change_can_have_is_wrong_usage(fleet: Fleet, source: Path, owner: str) -> None:
    ran = run(fleet, "reconcile", write(source, "1,2"), "--owner", owner)
    assert (ran.exit_code, ran.stdout, fleet.backlog()) == (2, "", 0)
    assert "Invalid value for '--owner': must be" in ran.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_a_source_whose_name_is_not_utf_8_is_read(fleet: Fleet, tmp_path: Path) -> None:
    source = tmp_path / "caf\udce9.csv"
    source.write_text("owner,contact\n1,2\n")
    assert told(fleet, "reconcile", str(source))["source"] == rf"{tmp_path}/caf\udce9.csv"
    assert "udce9.csv" in run(fleet, "reconcile", "history").stdout
    assert fleet.backlog() == 1


# Differences alone


def test_with_a_ledger_for_good_only_differences_are_sent_missed_deletes_included(fleet: Fleet, source: Path) -> None:
    forever(fleet)
    confirm(fleet, *[("1", str(n), "upsert", T) for n in range(50)], ("2", "9", "upsert", T), ("1", "x", "delete", T))
    write(source, *[f"1,{n}" for n in range(1, 51)], "1,x")
    done = told(fleet, "reconcile", str(source))
    assert (done["unchanged"], done["upserts"], done["deletes"], done["sent"]) == (49, 2, 2, 4)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", str(n)) for n in range(1, 51)} | {("1", "x")}
    assert told(fleet, "reconcile", str(source))["sent"] == 0


def test_differences_leave_alone_what_is_newer_or_may_be(fleet: Fleet, source: Path) -> None:
    forever(fleet)
    live = T + 20_000
    confirm(fleet, ("1", "new", "upsert", live), ("1", "gone", "delete", live), ("1", "timeless", "upsert", None))
    done = told(fleet, "reconcile", write(source, "1,gone"), "--as-of", str(T + 10_000))
    assert (done["newer"], done["unstamped"], done["sent"]) == (2, 1, 0)


def test_a_delete_that_waits_and_is_older_than_the_snapshot_does_not_outlast_it(fleet: Fleet, source: Path) -> None:
    forever(fleet)
    confirm(fleet, ("1", "2", "upsert", T))
    fleet.append("1", "2", "delete", T + 1)
    assert told(fleet, "reconcile", write(source, "1,2"))["upserts"] == 1
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_the_ledger_of_other_owners_is_none_of_one_owners_business(fleet: Fleet, source: Path) -> None:
    forever(fleet)
    confirm(fleet, ("1", "2", "upsert", T), ("10", "2", "upsert", T), ("1", "3", "upsert", T))
    done = told(fleet, "reconcile", write(source, "1,2"), "--owner", "1")
    assert (done["known"], done["deletes"]) == (2, 1)


def test_what_is_missing_is_not_gone_while_rows_are_rejected(fleet: Fleet, source: Path) -> None:
    forever(fleet)
    confirm(fleet, ("1", "2", "upsert", T))
    write(source, "1,")
    assert told(fleet, "reconcile", str(source))["held_back"] == 1
    assert told(fleet, "reconcile", str(source), "--despite-rejects")["deletes"] == 1


@pytest.mark.parametrize("option", [("--max-deletes", "2"), ("--max-delete-share", "20")])
def test_a_snapshot_that_would_delete_too_much_sends_nothing_and_says_what(
    fleet: Fleet, source: Path, option: tuple[str, str]
) -> None:
    forever(fleet)
    confirm(fleet, *[("1", str(n), "upsert", T) for n in range(10)])
    write(source, *[f"1,{n}" for n in range(3, 11)])
    ran = run(fleet, "reconcile", str(source), *option)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "refused, nothing was sent: it would send 3 deletes (30.0 % of 10) and 1 upsert" in ran.stderr
    assert fleet.backlog() == 0


@pytest.mark.parametrize(
    ("known", "deletes", "stopped"),
    [(900, 100, False), (900, 101, True), (1_100, 110, False), (1_100, 111, True)],
    ids=["floor", "above the floor", "share", "above the share"],
)
def test_without_limits_given_a_hundred_deletes_or_a_tenth_pass(
    fleet: Fleet, source: Path, known: int, deletes: int, *, stopped: bool
) -> None:
    forever(fleet)
    confirm(fleet, *[("1", str(n), "upsert", T) for n in range(known)])
    ran = run(fleet, "reconcile", write(source, *[f"1,{n}" for n in range(deletes, known)]))
    assert ran.exit_code == int(stopped), ran.stderr
    assert ("--max-delete-share allows 10 %" in ran.stderr) is stopped
    assert fleet.backlog() == (0 if stopped else deletes)


def test_an_empty_source_is_stopped_by_the_share_alone(fleet: Fleet) -> None:
    forever(fleet)
    confirm(fleet, *[("1", str(n), "upsert", T) for n in range(150)])
    with pytest.raises(TooManyDeletes, match="150 deletes"):
        api(fleet, [])
    assert api(fleet, [], limits=Limits(share=100.0))["sent"] == 150


def api(fleet: Fleet, rows: Any, **options: Any) -> dict[str, Any]:
    settings = fleet.settings()
    how = Options(name="test", differences=settings.ledger_forever, **options)
    return reconcile(rows, fleet.first.namespace.client, settings, settings.partitions or 0, how)


def test_a_program_reconciles_what_it_iterates_over(fleet: Fleet) -> None:
    done = api(fleet, [("1", "2"), {"owner": "1", "contact": "3"}, ("1", "4", "delete"), ("1",)])
    assert (done["rows"], done["rejects"], done["sent"]) == (3, 1, 3)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2"), ("1", "3")}


@pytest.mark.parametrize("rows", [1, 3_000], ids=["written at the end", "written while reading"])
def test_a_temporary_directory_that_cannot_be_written_is_named(
    fleet: Fleet, source: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    diff = source.with_name("diff.jsonl")
    diff.write_text("of the last run\n")
    write(source, *[f"1,{n}" for n in range(rows)])
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path(os.devnull).open("rb", buffering=0))  # noqa: SIM115 - its user closes it
    ran = run(fleet, "reconcile", str(source), "--diff", str(diff))
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert f"the temporary directory {tempfile.gettempdir()} cannot be written: Bad file descriptor;" in ran.stderr
    assert (fleet.backlog(), diff.read_text()) == (0, "of the last run\n")


def test_no_temporary_directory_is_one_line(fleet: Fleet, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write(source, "1,2")
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    ran = run(fleet, "reconcile", text)
    assert (ran.exit_code, ran.stderr.count("\n"), fleet.backlog()) == (1, 1, 0)
    assert "the temporary directory cannot be written: No usable temporary directory" in ran.stderr


# A run that is cut short


def test_after_a_kill_it_goes_on_where_it_was_with_the_time_it_began_with(
    fleet: Fleet, source: Path, wait_until: WaitUntil
) -> None:
    write(source, *[f"{n},2" for n in range(400)])
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with running(fleet.environment(), "reconcile", str(source), "--rate", "50", **quiet) as process:
        wait_until(lambda: fleet.backlog() >= 20, seconds=30, what="some of it is sent")
        process.kill()
        process.wait(30)
    kept = json.loads(fleet.client.hget(fleet.keys.reconcile, str(source)) or b"")
    before = fleet.backlog()
    done = told(fleet, "reconcile", str(source), "--resume")
    assert done["sent"] == 400 - kept["sent"] < 400
    assert 400 <= fleet.backlog() <= 400 + (before - kept["sent"])
    stamps = {fields[b"at"] for p in range(8) for _, fields in fleet.client.xrange(fleet.keys.bulk(p))}
    assert stamps == {str(kept["as_of"]).encode()}
    assert run(fleet, "reconcile", str(source), "--resume").exit_code == 2


def test_what_comes_in_another_order_when_it_is_resumed_is_all_sent(
    fleet: Fleet, source: Path, wait_until: WaitUntil
) -> None:
    """As a query without an order gives it: what was sent is known by its number alone."""
    rows = [f"{n},2" for n in range(400)]
    write(source, *rows)
    with_rate = ("reconcile", str(source), "--rate", "50")
    with running(fleet.environment(), *with_rate, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: fleet.backlog() >= 20, seconds=30, what="some of it is sent")
        process.kill()
        process.wait(30)
    write(source, *reversed(rows))
    told(fleet, "reconcile", str(source), "--resume")
    owners = {fields[b"owner"] for p in range(8) for _, fields in fleet.client.xrange(fleet.keys.bulk(p))}
    assert len(owners) == 400


def test_a_run_is_not_resumed_with_another_source(fleet: Fleet, source: Path) -> None:
    write(source, "1,2")
    fleet.client.hset(fleet.keys.reconcile, str(source), json.dumps({"as_of": T, "digest": 1, "sent": 1}))
    ran = run(fleet, "reconcile", str(source), "--resume")
    assert (ran.exit_code, fleet.backlog()) == (2, 0)


@pytest.mark.parametrize("as_of", ["yesterday", "1795460000", "2999-01-01"])
def test_a_time_that_does_not_fit_is_one_line(fleet: Fleet, source: Path, as_of: str) -> None:
    ran = run(fleet, "reconcile", write(source, "1,2"), "--as-of", as_of)
    assert (ran.exit_code, ran.stdout, fleet.backlog()) == (2, "", 0)


@pytest.mark.parametrize("option", ["--diff", "--rejects"])
@pytest.mark.parametrize("by", ["its name", "a symbolic link", "a hard link", "standard input"])
def test_an_output_that_is_the_source_is_refused_and_the_source_stays(
    fleet: Fleet, source: Path, tmp_path: Path, option: str, by: str
) -> None:
    forever(fleet)
    confirm(fleet, *[("1", str(n), "upsert", T) for n in range(80)])
    text, before = write(source, *[f"1,{n}" for n in range(80)]), source.read_text()
    other = tmp_path / "other.csv"
    if by == "a symbolic link":
        other.symlink_to(source)
    elif by == "a hard link":
        other.hardlink_to(source)
    else:
        other = source
    named = "-" if by == "standard input" else text
    with (
        source.open("rb") as file,
        running(fleet.environment(), "reconcile", named, option, str(other), stdin=file) as ended,
    ):
        said = ended.communicate(timeout=60)[1]
    assert (ended.returncode, source.read_text()) == (2, before)
    assert f"{option} is SOURCE itself" in said


def test_outputs_stay_as_they_were_until_the_source_was_read(fleet: Fleet, source: Path, tmp_path: Path) -> None:
    diff = tmp_path / "diff.jsonl"
    diff.write_text("of the last run\n")
    source.write_text("owner,contact\n1,2")
    assert run(fleet, "reconcile", str(source), "--diff", str(diff)).exit_code == 1
    assert diff.read_text() == "of the last run\n"
    assert run(fleet, "reconcile", write(source, "1,2"), "--diff", str(diff)).exit_code == 0
    assert len(diff.read_text().splitlines()) == 1
    both = ("--diff", str(diff), "--rejects", str(diff))
    assert run(fleet, "reconcile", str(source), *both).exit_code == 2
    assert "cannot be written" in run(fleet, "reconcile", str(source), "--diff", str(tmp_path)).stderr


def test_closed_standard_input_is_one_line(fleet: Fleet) -> None:
    for command in ("reconcile -", "emit"):
        ended = subprocess.run(
            ["/bin/sh", "-c", f"exec {COMMAND} {command} <&-"],
            env={"PATH": os.environ["PATH"], **fleet.environment()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), ended.stderr
        assert "standard input is closed" in ended.stderr


def test_its_changes_take_the_bulk_lane(fleet: Fleet, tmp_path: Path) -> None:
    source = tmp_path / "contacts.csv"
    source.write_text("owner,contact\n1,2\n1,3\n", encoding="utf-8")
    assert run(fleet, "reconcile", str(source)).exit_code == 0
    keys, partition = fleet.first.namespace.keys, fleet.partition("1")
    assert fleet.client.xlen(keys.bulk(partition)) == 2
    assert fleet.client.xlen(keys.events(partition)) == 0
