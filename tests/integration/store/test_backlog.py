"""Where something waits and when it is due (DESIGN: due, linger, absorbing while the gate is closed)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import PARTITIONS, T
from tests.support.waiting import wait_until
from worker.core.backlog import ABSORB_ENTRIES
from worker.core.linger import Linger
from worker.store.backlog import BacklogScanner
from worker.store.client import connect
from worker.store.cluster_backlog import ClusterScanner
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.contract.change import Lane
    from tests.support.fleet import Fleet

LINGER_MS, BATCH = 1_000, 100


@pytest.fixture
def scanner(fleet: Fleet) -> Iterator[BacklogScanner]:
    with connect(fleet.settings().redis_url, timeout_seconds=20) as client:
        yield BacklogScanner(Namespace(client, fleet.keys, PARTITIONS))


def due_in_ms(fleet: Fleet, scanner: BacklogScanner) -> int | None:
    """When the one partition in which something waits is due, from the look on; at once is negative or 0."""
    survey = scanner.scan()
    (each,) = survey.waiting
    due_ms = each.due_ms(fleet.first.gate.snapshot(), Linger(LINGER_MS, LINGER_MS), BATCH)
    return None if due_ms is None else due_ms - survey.now_ms


def close_gate(fleet: Fleet) -> None:
    fleet.first.gate.report(0, "retry", delay_seconds=60, error="HTTP 503")


def test_nothing_waits_in_an_empty_log(scanner: BacklogScanner) -> None:
    assert scanner.scan().waiting == []


def test_a_look_finds_every_partition_in_which_something_waits(fleet: Fleet, scanner: BacklogScanner) -> None:
    entry = fleet.append_raw(1, {"n": "1"})
    fleet.append_raw(1, {"n": "2"})
    fleet.client.hset(fleet.keys.pending(4), mapping={"a": "u1", "b": "u1"})
    fleet.mark_late(6, b"pair", 0, 77)
    fleet.client.set(fleet.keys.lease(4), "token")
    found = {each.partition: each for each in scanner.scan().waiting}
    assert set(found) == {1, 4, 6}
    assert (found[1].oldest_ms, found[1].entries) == (int(entry.partition("-")[0]), 2)
    assert (found[4].pending, found[4].leased) == (2, True)
    assert (found[6].late_due_ms, found[6].leased) == (77, False)


def test_a_blocking_look_wakes_with_the_first_entry(fleet: Fleet, scanner: BacklogScanner) -> None:
    started = threading.Event()

    def look() -> list[int]:
        started.set()
        return [each.partition for each in scanner.scan(block_ms=15_000).waiting]

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        started.wait()
        wait_until(
            lambda: any(b"xread" in str(each).encode() for each in fleet.client.client_list()), what="it waits in Redis"
        )
        fleet.append_raw(5, {"n": "1"})
        assert looking.result(timeout=10) == [5]


def test_an_entry_is_due_when_it_has_lingered(fleet: Fleet, scanner: BacklogScanner) -> None:
    fleet.append("1", "2", "upsert", T)
    due = due_in_ms(fleet, scanner)
    assert due is not None
    assert 0 < due <= LINGER_MS


def test_an_entry_older_than_linger_is_due(fleet: Fleet, scanner: BacklogScanner) -> None:
    fleet.append("1", "2", "upsert", T, entry=f"{fleet.now_ms() - LINGER_MS}-0")
    assert (due_in_ms(fleet, scanner) or 0) <= 0


def test_an_entry_from_ahead_of_the_clock_is_due_at_once(fleet: Fleet, scanner: BacklogScanner) -> None:
    fleet.append("1", "2", "upsert", T, entry=f"{fleet.now_ms() + 3_600_000}-0")  # since then the clock went back
    assert (due_in_ms(fleet, scanner) or 0) < 0


@pytest.mark.parametrize("kind", [BacklogScanner, ClusterScanner])
@pytest.mark.parametrize("lane", ["live", "bulk"])
def test_an_entry_whose_id_begins_with_0_waits_like_any_other(
    fleet: Fleet, kind: type[BacklogScanner], lane: Lane
) -> None:
    fleet.append("1", "2", "upsert", T, entry="0-1", lane=lane)  # an id of its producer's own
    assert (due_in_ms(fleet, kind(fleet.namespace)) or 0) < 0


def test_a_full_batch_is_due_at_once(fleet: Fleet, scanner: BacklogScanner) -> None:
    fleet.append_many(("1", str(i), "upsert", T) for i in range(BATCH))
    assert (due_in_ms(fleet, scanner) or 0) < 0


def test_what_is_pending_is_due_at_once_while_the_gate_is_open(fleet: Fleet, scanner: BacklogScanner) -> None:
    fleet.client.hset(fleet.keys.pending(0), "a", "u1")
    assert (due_in_ms(fleet, scanner) or 0) < 0
    close_gate(fleet)
    assert due_in_ms(fleet, scanner) is None


def test_a_late_mark_is_due_at_its_time(fleet: Fleet, scanner: BacklogScanner) -> None:
    until_ms = fleet.now_ms() + 5_000
    fleet.mark_late(0, b"pair", until_ms, 0)
    due = due_in_ms(fleet, scanner)
    assert due is not None
    assert 4_000 < due <= 5_000


def test_while_the_gate_is_closed_only_a_long_or_an_old_log_is_due(fleet: Fleet, scanner: BacklogScanner) -> None:
    close_gate(fleet)
    fleet.append("1", "2", "upsert", T)
    assert (due_in_ms(fleet, scanner) or 0) > 4_000
    fleet.append_many(("1", "2", "upsert", T) for _ in range(ABSORB_ENTRIES))
    assert (due_in_ms(fleet, scanner) or 0) < 0


def test_a_key_of_another_type_is_told_apart_until_it_is_mended(fleet: Fleet, scanner: BacklogScanner) -> None:
    fleet.client.set(fleet.keys.events(3), "no stream")
    fleet.append_raw(5, {"n": "1"})
    survey = scanner.scan()
    assert (survey.wrong_type, [each.partition for each in survey.waiting]) == ([3], [5])
    fleet.client.delete(fleet.keys.events(3))
    fleet.append_raw(3, {"n": "1"})
    survey = scanner.scan()
    assert (survey.wrong_type, [each.partition for each in survey.waiting]) == ([], [3, 5])
