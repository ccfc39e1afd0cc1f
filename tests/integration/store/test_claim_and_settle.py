"""The scripts that move a partition: leases with rising tokens, settles that are whole, fenced and done once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.fleet import PARTITIONS
from tests.support.partition_zero import OTHER, PAIR, claim, partitions_of, settle, state_of, stored
from tests.support.waiting import wait_until
from worker.core.dead_letter import DEAD_CAP
from worker.core.lane import CLASSES
from worker.core.read import ReadRequest
from worker.store.namespace import Namespace
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from tests.support.fleet import Fleet


# Leases


def test_a_lease_is_held_by_one_at_a_time(partitions: Partitions) -> None:
    assert len(partitions.claim([0, 1])) == 2
    assert [lease.partition for lease in partitions.claim([0, 1, 2])] == [2]


def test_a_partition_that_refuses_a_claim_costs_no_lease_of_another(fleet: Fleet, partitions: Partitions) -> None:
    fleet.client.hset(fleet.keys.partition(1), "token", "something else wrote this")
    assert [lease.partition for lease in partitions.claim([0, 1, 2])] == [0, 2]
    with pytest.raises(redis.ResponseError):
        partitions.claim([1])


@pytest.mark.parametrize("field", ["seq", "late_due", "untold_replaced"])
def test_what_something_else_wrote_into_a_field_of_a_partition_holds_up_that_one_alone(
    fleet: Fleet, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    partition = fleet.partition("1")
    other = next(str(n) for n in range(2, 100) if fleet.partition(str(n)) != partition)
    fleet.client.hset(fleet.keys.partition(partition), field, "secret")
    fleet.append("1", "2", "upsert")
    fleet.append(other, "3", "upsert")
    wait_until(lambda: (fleet.flush(), (other, "3") in fleet.stand_in.contacts())[1], what="the other one goes on")
    said = capsys.readouterr().out
    assert ("state_unreadable" in said, "secret" in said) == (True, False)
    fleet.client.hdel(fleet.keys.partition(partition), field)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2"), (other, "3")}


def test_of_many_who_claim_at_once_one_gets_the_lease(fleet: Fleet, client: redis.Redis) -> None:
    everybody = [partitions_of(fleet, client) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: each.claim([0]), everybody))
    assert sum(map(len, found)) == 1


def test_tokens_rise_even_where_the_clock_or_the_server_went_back(fleet: Fleet, partitions: Partitions) -> None:
    first = claim(partitions)
    settle(partitions, first, renew=False)
    ahead = int(first.token) + 10**12
    fleet.client.hset(fleet.keys.partition(0), "token", ahead)
    assert int(claim(partitions).token) == ahead + 1


def test_a_released_lease_can_be_claimed_at_once_and_leaves_nothing_to_repair(
    fleet: Fleet, partitions: Partitions
) -> None:
    assert settle(partitions, claim(partitions), renew=False) == "settled"
    assert fleet.leases() == []
    assert claim(partitions).late_until_ms == 0


def test_releasing_a_lease_changes_nothing_but_who_holds_it(fleet: Fleet, partitions: Partitions) -> None:
    fleet.append_raw(0, {"owner": "1"})
    lease = claim(partitions)
    settle(partitions, lease, keep=[PAIR, b"d7"])
    held = {name: value for name, value in stored(fleet, "partition").items() if name != "holder"}
    partitions.release([lease])
    assert stored(fleet, "partition") == held
    assert fleet.leases() == []
    assert (fleet.backlog(), claim(partitions).late_until_ms) == (1, 0)


def test_a_lease_that_another_worker_took_is_not_released(fleet: Fleet, client: redis.Redis) -> None:
    lost = claim(partitions_of(fleet, client, lease_seconds=0.05))
    wait_until(lambda: fleet.leases() == [], what="the lease expired")
    partitions = partitions_of(fleet, client)
    held = claim(partitions)
    before = state_of(fleet)
    partitions.release([lost])
    assert state_of(fleet) == before
    assert settle(partitions, held) == "settled"


def test_an_expired_lease_can_be_claimed_and_tells_what_its_holder_may_still_do(
    fleet: Fleet, client: redis.Redis
) -> None:
    partitions = partitions_of(fleet, client, lease_seconds=0.05, late_seconds=7.0)
    claim(partitions)
    wait_until(lambda: not fleet.leases(), what="the lease has expired")
    entry_ms = fleet.now_ms() + 60_000
    fleet.append_raw(0, {"owner": "1"}, entry=f"{entry_ms}-0")
    before_ms = fleet.now_ms()
    lease = claim(partitions)
    assert before_ms + 7_000 <= lease.late_until_ms <= fleet.now_ms() + 7_000
    assert lease.late_to_ms == entry_ms


def test_a_second_takeover_never_shortens_what_the_first_noted(fleet: Fleet, client: redis.Redis) -> None:
    noted = []
    for late_seconds in (60.0, 1.0):
        partitions = partitions_of(fleet, client, lease_seconds=0.05, late_seconds=late_seconds)
        claim(partitions)
        wait_until(lambda: not fleet.leases(), what="the lease has expired")
        lease = claim(partitions)
        wait_until(lambda: not fleet.leases(), what="the lease has expired again")
        noted.append(lease.late_until_ms)
    assert noted[1] == noted[0]


def test_a_settle_renews_the_lease(fleet: Fleet, client: redis.Redis) -> None:
    lease = claim(partitions_of(fleet, client, lease_seconds=5.0))
    settle(partitions_of(fleet, client, lease_seconds=50.0), lease)
    assert fleet.client.pttl(fleet.keys.lease(0)) > 40_000
    assert lease.outlives(time.monotonic() + 40)


def test_a_lease_counts_for_its_holder_from_before_it_was_asked_for(fleet: Fleet, client: redis.Redis) -> None:
    moments = iter([100.0, 110.0])  # before it is asked for, and when the answer has come
    partitions = Partitions(
        Namespace(client, fleet.keys, PARTITIONS),
        lambda: next(moments),
        lease_seconds=5.0,
        late_seconds=1.0,
        ledger_seconds=1.0,
    )
    assert claim(partitions).until == 105.0


# Settles


def test_a_settle_moves_all_its_parts(fleet: Fleet, partitions: Partitions) -> None:
    entries = [fleet.append_raw(0, {"n": str(i)}) for i in range(3)]
    partitions.mark_late([(0, (PAIR, 5, 9))])
    fleet.client.hset(fleet.keys.pending(0), OTHER, "u1")
    lease = claim(partitions)
    result = settle(
        partitions,
        lease,
        position=entries[1].encode(),
        ledger=[PAIR, b"u5,"],
        keep=[PAIR, b"d7"],
        drop=[OTHER],
        clear=[PAIR, b"5,9"],
        letters=[PAIR, b"u5,", b"{}", b"", b"", b"{}"],
        totals={"events": 2},
    )
    assert result == "settled"
    assert [entry for entry, _ in fleet.client.xrange(fleet.keys.events(0))] == [entries[2].encode()]
    assert stored(fleet, "pending") == {PAIR.decode(): "d7"}
    assert stored(fleet, "ledger_new") == {PAIR.decode(): "u5,"}
    assert stored(fleet, "late") == {}
    assert stored(fleet, "dead") == {"0-1": "{}", "0-2": "{}"}
    assert stored(fleet, "dead_pairs") == {PAIR.decode(): "1;u5,"}
    assert stored(fleet, "totals") == {"events": "2"}
    assert (lease.waiting, lease.pending, lease.late, lease.dead, lease.dead_pairs) == (1, 1, 0, 2, 1)


def test_a_settle_of_many_thousand_pairs_is_one_step(fleet: Fleet, partitions: Partitions) -> None:
    pairs = [b"1\x1f%d" % i for i in range(9_001)]
    ledger = [item for pair in pairs for item in (pair, b"u7,")]
    assert settle(partitions, claim(partitions), ledger=ledger) == "settled"
    assert fleet.client.hlen(fleet.keys.ledger_new(0)) == 9_001


@pytest.mark.parametrize("why", ["expired", "taken over", "another settle came between"])
def test_a_fenced_settle_moves_nothing(fleet: Fleet, partitions: Partitions, why: str) -> None:
    entry = fleet.append_raw(0, {"owner": "1"})
    lease = claim(partitions)
    if why == "another settle came between":
        for _ in range(2):
            settle(partitions, lease)
        lease.seq -= 2  # the settle just before its own would be its own, with the reply lost
    else:
        fleet.client.delete(fleet.keys.lease(0))
    if why == "taken over":
        claim(partitions)
    before = state_of(fleet)
    letters = [PAIR, b"", b"{}"]
    ledger = [PAIR, b"u5,"]
    result = settle(partitions, lease, position=entry.encode(), ledger=ledger, letters=letters, totals={"events": 1})
    assert result == "fenced"
    assert state_of(fleet) == before


@pytest.mark.parametrize("taken_over", [True, False])
def test_who_lost_the_lease_reads_nothing(fleet: Fleet, partitions: Partitions, taken_over: bool) -> None:  # noqa: FBT001 - a case
    """What its next holder has settled is no longer in the log: the rest alone would mean something else."""
    ask = ReadRequest(10, 10, [10] * CLASSES, 10, parked=True)
    first = fleet.append_raw(0, {"owner": "1", "contact": "2", "op": "delete"})
    fleet.append_raw(0, {"owner": "1", "contact": "2", "op": "upsert", "at": "1"})
    lease = claim(partitions)
    assert len(partitions.read([lease], [ask])[0].entries) == 2
    fleet.client.delete(fleet.keys.lease(0))
    if taken_over:
        settle(partitions, claim(partitions), position=first, keep=[PAIR, b"d7"])
    read = partitions.read([lease], [ask])[0]
    assert (read.entries, read.bulk, read.pending, read.marks, read.parked) == ([], [], {}, {}, {})


def test_a_settle_that_is_asked_for_twice_is_done_once(fleet: Fleet, partitions: Partitions) -> None:
    lease = claim(partitions)
    again = replace(lease)  # as it is known to one who never got the reply
    assert settle(partitions, lease, totals={"events": 1}) == "settled"
    assert settle(partitions, again, totals={"events": 1}) == "settled"
    assert stored(fleet, "totals") == {"events": "1"}
    assert again == replace(lease, until=again.until)


def test_one_who_lost_the_reply_to_a_settle_learns_all_the_same_what_waits(
    fleet: Fleet, partitions: Partitions
) -> None:
    """Who took nothing to be pending would send what arrived since without it."""
    lease = claim(partitions)
    again = replace(lease)
    letter = [PAIR, b"u5,", b"{}"]
    settle(partitions, lease, keep=[PAIR, b"d5,0"], letters=letter)
    fleet.mark_late(0, PAIR, 7, 9)
    settle(partitions, again, keep=[PAIR, b"d5,0"], letters=letter)
    assert (again.pending, again.late, again.late_due_ms, again.dead, again.dead_pairs) == (1, 1, 9, 1, 1)


def test_dead_letters_that_do_not_fit_leave_everything_as_it_was(fleet: Fleet, partitions: Partitions) -> None:
    filling: dict[Any, Any] = {f"0-{i}": "{}" for i in range(DEAD_CAP - 1)}
    fleet.client.hset(fleet.keys.dead(0), mapping=filling)
    lease = claim(partitions)
    before = state_of(fleet)
    two = [b"", b"", b"{}"] * 2
    assert settle(partitions, lease, letters=two, totals={"dead_lettered": 2}) == "full"
    assert state_of(fleet) == before
    assert settle(partitions, lease, letters=two[:3]) == "settled"
