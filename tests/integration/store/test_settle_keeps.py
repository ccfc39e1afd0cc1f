"""What a settle keeps beside the log: marks, the oldest that waits, dead pairs, ledgers; on a full server too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.partition_zero import OTHER, PAIR, claim, partitions_of, settle, stored
from worker.core.lane import class_of
from worker.store import scripts
from worker.store.gate import Gate

if TYPE_CHECKING:
    import redis

    from tests.support.fleet import Fleet
    from worker.store.partitions import Partitions


def test_a_mark_that_was_renewed_meanwhile_is_not_cleared(fleet: Fleet, partitions: Partitions) -> None:
    partitions.mark_late([(0, (PAIR, 5, 0))])
    lease = claim(partitions)
    partitions.mark_late([(0, (PAIR, 8, 0))])
    settle(partitions, lease, clear=[PAIR, b"5,0"])
    assert stored(fleet, "late") == {PAIR.decode(): "8,0"}


def test_a_mark_that_is_not_over_by_redis_clock_is_not_cleared(fleet: Fleet, partitions: Partitions) -> None:
    mark = fleet.now_ms() + 60_000  # it was over when the round began, and the clock has gone back since
    partitions.mark_late([(0, (PAIR, mark, 0))])
    settle(partitions, claim(partitions), clear=[PAIR, b"%d,0" % mark])
    assert stored(fleet, "late") == {PAIR.decode(): f"{mark},0"}


def test_marks_join_by_the_later_time_of_each_op(fleet: Fleet, partitions: Partitions) -> None:
    for mark in ((PAIR, 5, 0), (PAIR, 3, 9), (PAIR, 0, 2)):
        partitions.mark_late([(0, mark)])
    assert stored(fleet, "late") == {PAIR.decode(): "5,9"}


def test_the_next_mark_to_be_judged_is_known_without_reading_all(fleet: Fleet, partitions: Partitions) -> None:
    partitions.mark_late([(0, (PAIR, 50, 0, OTHER, 20, 30))])
    lease = claim(partitions)
    assert (lease.late, lease.late_due_ms) == (2, 30)
    settle(partitions, lease, clear=[OTHER, b"20,30"])
    assert (lease.late, lease.late_due_ms) == (1, 50)
    settle(partitions, lease, clear=[PAIR, b"50,0"])
    assert (lease.late, lease.late_due_ms) == (0, 0)
    assert "late_due" not in stored(fleet, "partition")


def test_the_oldest_that_waits_is_known_without_reading_all(fleet: Fleet, partitions: Partitions) -> None:
    lease = claim(partitions)
    settle(partitions, lease, keep=[PAIR, b"d500,-3\x1fu400", OTHER, b"u450"])
    assert [stored(fleet, "partition")[name] for name in ("oldest", "oldest_delete")] == ["400", "500"]
    settle(partitions, lease, drop=[PAIR])
    assert stored(fleet, "partition")["oldest"] == "450"
    assert "oldest_delete" not in stored(fleet, "partition")
    settle(partitions, lease, drop=[OTHER])
    assert "oldest" not in stored(fleet, "partition")


def test_what_is_known_of_a_pair_whose_letters_are_gone_is_not_kept(fleet: Fleet, partitions: Partitions) -> None:
    lease = claim(partitions)
    settle(partitions, lease, letters=[PAIR, b"", b"{}", PAIR, b"u5,", b"{}"])
    assert stored(fleet, "dead_pairs") == {PAIR.decode(): "2;u5,"}
    settle(partitions, lease, know=[PAIR, b"d9,", OTHER, b"d9,"])
    assert stored(fleet, "dead_pairs") == {PAIR.decode(): "2;d9,"}


def test_the_ledger_rotates_by_log_time_and_not_while_older_pairs_wait(fleet: Fleet, client: redis.Redis) -> None:
    partitions = partitions_of(fleet, client, ledger_seconds=1.0)
    lease = claim(partitions)
    start = fleet.now_ms()
    settle(partitions, lease, position=b"%d-0" % start, ledger=[PAIR, b"u5,"], keep=[OTHER, b"u%d" % start])

    def settle_at(offset_ms: int, **writes: Any) -> bool:
        settle(partitions, lease, position=b"%d-0" % (start + offset_ms), **writes)
        return bool(stored(fleet, "ledger_old"))

    assert not settle_at(5_000)  # an older pair waits
    assert settle_at(7_000, drop=[OTHER])
    assert stored(fleet, "ledger_old") == {PAIR.decode(): "u5,"}
    assert settle_at(7_500)  # not for another second
    assert not settle_at(8_001)


def test_a_ledger_rotates_although_marks_are_open_and_keeps_what_they_need(fleet: Fleet, client: redis.Redis) -> None:
    partitions = partitions_of(fleet, client, ledger_seconds=1.0)
    lease = claim(partitions)
    start = fleet.now_ms()
    settle(partitions, lease, position=b"%d-0" % start, ledger=[PAIR, b"u5,", OTHER, b"u6,"])
    partitions.mark_late([(0, (PAIR, start + 60_000, 0))])
    for n in range(1, 4):
        settle(partitions, lease, position=b"%d-0" % (start + n * 5_000))
        assert PAIR.decode() in stored(fleet, "ledger_old")
    assert stored(fleet, "ledger_old") == {PAIR.decode(): "u5,"}
    settle(partitions, lease, position=b"%d-0" % (start + 16_500), ledger=[PAIR, b"d7,5"])
    settle(partitions, lease, position=b"%d-0" % (start + 20_000))
    assert stored(fleet, "ledger_old") == {PAIR.decode(): "d7,5"}  # the newer outcome is not undone


def test_the_ledger_is_kept_for_what_waits_unread_although_the_clock_went_back(
    fleet: Fleet, client: redis.Redis
) -> None:
    partitions = partitions_of(fleet, client, ledger_seconds=1.0)
    start = fleet.now_ms()
    ahead = start + 30_000  # what was appended before the clock went back
    for ms in (ahead, ahead + 4_000):
        client.xadd(fleet.keys.events(0), {"owner": "1"}, id=f"{ms}-0")
    lease = claim(partitions)
    settle(partitions, lease, position=b"%d-0" % start, ledger=[PAIR, b"u5,"])
    settle(partitions, lease, position=b"%d-0" % ahead)
    assert stored(fleet, "ledger_new") == {PAIR.decode(): "u5,"}


LIST = {b"listpack", b"ziplist"}
"""A short hash; before Redis 7.0 it is a ziplist."""


@pytest.mark.parametrize(("pairs", "encoding"), [(500, {b"hashtable"}), (20, LIST)])
def test_what_a_large_batch_fills_is_no_list_that_redis_searches_from_its_start(
    fleet: Fleet, partitions: Partitions, pairs: int, encoding: set[bytes]
) -> None:
    known = [item for i in range(pairs) for item in (b"1\x1f%d" % i, b"u5,")]
    settle(partitions, claim(partitions), ledger=known, keep=known)
    for key, name in (
        (fleet.keys.ledger_new(0), "ledger_new"),
        (fleet.keys.pending_classes(0)[class_of("upsert", bulk=False)], "pending"),
    ):
        assert fleet.client.object("encoding", key) in encoding, name
        held: Any = fleet.client.hgetall(key)
        assert held == dict.fromkeys(known[::2], b"u5,"), name


# A server that is full


def test_the_scripts_that_drain_a_full_server_run_there(
    fleet: Fleet, client: redis.Redis, partitions: Partitions
) -> None:
    entry = fleet.append_raw(0, {"owner": "1", "filling": "x" * 100_000})
    fleet.client.config_set("maxmemory", "1")
    try:
        lease = claim(partitions)
        partitions.mark_late([(0, (PAIR, 5, 0))])
        assert (
            settle(partitions, lease, position=entry.encode(), keep=[PAIR, b"d7"], ledger=[PAIR, b"u5,"]) == "settled"
        )
        gate = Gate(fleet.namespace._replace(client=client))
        assert gate.report(0, "retry", error="HTTP 503") == "backing_off"
        assert gate.enter("a", 1.0).probe
    finally:
        fleet.client.config_set("maxmemory", "0")
    assert fleet.backlog() == 0


def test_scripts_are_found_again_after_redis_forgot_them(fleet: Fleet, client: redis.Redis) -> None:
    call = scripts.Call(scripts.GATE_ENTER, [fleet.keys.gate], ["a", 1000, 1000, "", ""])
    fleet.client.script_flush()
    assert scripts.run(client, [call, call]) == [[b"open", 0, 0, 0, 0]] * 2
