"""Where a worker's lines go, and which: as Celery's own options say it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, THREADS, WorkerProcess, wait_until_delivered

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet

OPTIONS = pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def batches(file: Path) -> int:
    return sum(each["event"] == "batch_confirmed" for each in events(file))


@OPTIONS
def test_lines_go_to_the_file_that_is_named_and_to_a_new_one_where_it_was_moved_away(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file, moved = tmp_path / "there", tmp_path / "moved"
    with WorkerProcess(process_fleet.environment(), tmp_path / "here", (*options, "--logfile", str(file))) as worker:
        wait_until(lambda: any("ready" in each["event"] for each in events(file)), what="it is ready", seconds=30)
        process_fleet.append("1", "2", "upsert")
        wait_until(lambda: batches(file) == 1, what="the batch is told there")
        file.rename(moved)
        process_fleet.append("1", "2", "delete")
        wait_until(lambda: batches(file) == 1, what="the next batch is told in a new file")
        assert batches(moved) == 1
        assert "batch_confirmed" not in worker.said()


def test_a_file_that_cannot_be_written_is_one_line_and_status_2(process_fleet: Fleet, tmp_path: Path) -> None:
    with WorkerProcess(process_fleet.environment(), tmp_path, (*THREADS, "-f", "/proc/no/such/place")) as worker:
        assert worker.exit_status() == 2
        (line,) = [each for each in worker.said().splitlines() if each.startswith("contact-sync: ")]
        assert "Traceback" not in worker.said()
    assert line == "contact-sync: --logfile: /proc/no/such/place cannot be written: No such file or directory"


@OPTIONS
def test_below_the_level_that_is_named_nothing_is_shown(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with WorkerProcess(process_fleet.environment(), tmp_path, (*options, "-l", "WARNING")) as worker:
        process_fleet.append("1", "2", "upsert")
        wait_until_delivered(process_fleet)
        process_fleet.stand_in.faults({"kind": "status", "status": 503, "times": 1})
        process_fleet.append("1", "3", "upsert")
        wait_until_delivered(process_fleet)
        wait_until(lambda: "batch_retry" in worker.said(), what="the retry is told")
        assert "batch_confirmed" not in worker.said()


@OPTIONS
def test_what_something_else_wrote_is_one_line_and_holds_up_no_other_partition(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    partition = process_fleet.partition("1")
    other = next(str(n) for n in range(2, 100) if process_fleet.partition(str(n)) != partition)
    process_fleet.client.hset(process_fleet.keys.pending_classes(partition)[1], "1\x1f2", "secret")
    process_fleet.append("1", "2", "upsert")
    process_fleet.append(other, "3", "delete")
    process_fleet.append(other, "4", "upsert")
    with WorkerProcess(process_fleet.environment(), tmp_path, options) as worker:
        wait_until(lambda: (other, "4") in process_fleet.stand_in.contacts(), seconds=40, what="others are delivered")
        wait_until(lambda: "state_unreadable" in worker.said(), seconds=40, what="it is told")
        process_fleet.client.hdel(process_fleet.keys.pending_classes(partition)[1], "1\x1f2")
        wait_until(lambda: ("1", "2") in process_fleet.stand_in.contacts(), seconds=40, what="it goes on")
        assert ("Traceback" in worker.said(), "secret" in worker.said()) == (False, False)
