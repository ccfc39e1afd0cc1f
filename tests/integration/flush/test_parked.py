"""Records that the endpoint refuses with an unknown code are parked, and stop nobody else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import T
from tests.support.waiting import wait_until
from worker.admin.parked import ParkedPairs
from worker.core.backoff import PARK_SECONDS
from worker.core.codec import Parked, decode_parked, encode_parked
from worker.core.entry import pair_of
from worker.core.gate import SINGLE_REJECTIONS_MAX
from worker.store.dead_letters import Wanted
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from producers.contract.change import Op
    from tests.support.fleet import Fleet


def parked(fleet: Fleet) -> dict[bytes, Parked]:
    found: dict[bytes, bytes] = {}
    for p in range(fleet.namespace.partitions):
        found |= fleet.client.hgetall(fleet.keys.parked(p))
    return {pair: decode_parked(value) for pair, value in found.items()}


def make_due(fleet: Fleet, owner: str, contact: str, since_ms: int | None = None) -> None:
    """Lets the next try of a parked pair be now; and the first one then, if that is given."""
    p, pair = fleet.partition(owner), pair_of(owner.encode(), contact.encode())
    state = parked(fleet)[pair].state
    if since_ms is not None and state.refused is not None:
        state = state._replace(refused=state.refused._replace(since_ms=since_ms))
    fleet.client.hset(fleet.keys.parked(p), pair, encode_parked(Parked(1, state)))
    fleet.client.hset(fleet.keys.partition(p), "parked_due", 1)


@pytest.mark.parametrize("code", ["40301", "40401", "99999"])
def test_one_record_with_an_unknown_code_is_parked_and_all_others_are_delivered(fleet: Fleet, code: str) -> None:
    fleet.stand_in.settings(poisoned=["poison"], poison_code=code)
    fleet.append_many([(f"owner{i}", "poison" if i == 70 else "2", "upsert", T) for i in range(100)])
    before_ms = fleet.now_ms()
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == 99
    assert fleet.dead_letters() == []
    [(pair, (due_ms, state, bulk))] = parked(fleet).items()
    assert not bulk
    assert pair == pair_of(b"owner70", b"poison")
    assert state.refused is not None
    assert (state.refused.code, state.refused.tries) == (code, 1)
    assert before_ms + 60_000 <= due_ms <= fleet.now_ms() + 60_000
    assert fleet.first.gate.snapshot().state == "ok"


def test_a_parked_record_is_tried_again_after_longer_and_longer_waits_and_then_delivered(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    waited_ms = 0
    for tries, seconds in enumerate([*PARK_SECONDS, PARK_SECONDS[-1]], start=1):
        [each] = parked(fleet).values()
        assert each.state.refused is not None
        assert each.state.refused.tries == tries
        assert abs(each.due_ms - fleet.now_ms() - seconds * 1000) < 30_000
        waited_ms += seconds * 1000
        make_due(fleet, "1", "2", since_ms=fleet.now_ms() - waited_ms)  # as if all that time had passed
        fleet.flush_once()
    fleet.stand_in.settings(poisoned=[])
    make_due(fleet, "1", "2")
    fleet.flush_once()
    assert parked(fleet) == {}
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert fleet.totals()["upserts_confirmed"] == 1


def test_a_parked_upsert_does_not_outlive_a_delete(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["2"], poison_code="40301")
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    assert len(parked(fleet)) == 1
    fleet.stand_in.settings(poisoned=[])
    fleet.append("1", "2", "delete", T + 1)
    fleet.deliver()
    assert parked(fleet) == {}
    assert [op for _, _, _, op in fleet.applied()] == ["delete"]
    totals = fleet.totals()
    assert (totals["events"], totals["deletes_confirmed"], totals["superseded"]) == (2, 1, 1)


def test_twenty_records_in_a_row_with_unknown_codes_hold_the_endpoint(fleet: Fleet) -> None:
    fleet.change(backoff_max_seconds=60.0)
    count = SINGLE_REJECTIONS_MAX + 5
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append_many([(f"owner{i}", "2", "upsert", T) for i in range(count)])
    wait_until(lambda: fleet.flush(0.1) >= 0 and fleet.first.gate.snapshot().state == "held", seconds=60.0, what="held")
    assert fleet.first.gate.snapshot().reason == "every_record_rejected"
    assert len(parked(fleet)) + len(fleet.pending()) == count


def test_hold_holds_the_endpoint_at_the_first_unknown_code(fleet: Fleet) -> None:
    fleet.change(unknown_refusal="hold", backoff_max_seconds=60.0)
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.reason, snapshot.error) == ("held", "endpoint_refuses", "code 40401")
    assert parked(fleet) == {}


def test_an_older_change_of_a_parked_pair_is_no_reason_to_try_it_sooner(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append("1", "2", "upsert", T + 5)
    fleet.deliver()
    before, requests = parked(fleet), fleet.totals()["requests"]
    fleet.append("1", "2", "upsert", T + 5)
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    assert (parked(fleet), fleet.totals()["requests"]) == (before, requests)
    assert fleet.totals()["coalesced"] == 2
    fleet.append("1", "2", "upsert", T + 6, lane="bulk")
    fleet.deliver()
    [again] = parked(fleet).values()
    assert fleet.totals()["requests"] == requests + 1
    assert again.state.refused is not None
    assert again.state.refused.tries == 2
    assert again.due_ms == before[pair_of(b"1", b"2")].due_ms  # beside the schedule


def test_parked_pairs_that_are_due_do_not_keep_others_waiting(fleet: Fleet) -> None:
    owner = "1"
    refused = [f"refused{i}" for i in range(SINGLE_REJECTIONS_MAX - 5)]
    fleet.stand_in.settings(poisoned=refused, poison_code="40401")
    fleet.append_many([(owner, contact, "upsert", T) for contact in refused])
    fleet.deliver()
    assert len(parked(fleet)) == len(refused)
    for contact in refused:
        make_due(fleet, owner, contact)
    before = fleet.totals()["requests"]
    fleet.append(owner, "innocent", "upsert", T)

    def delivered() -> bool:
        fleet.flush_once()
        return bool(fleet.stand_in.contacts())

    wait_until(delivered, seconds=60.0, what="the innocent pair is delivered")
    assert fleet.totals()["requests"] - before < len(refused) / 2


def test_the_ledger_rotates_while_a_pair_is_parked_and_keeps_what_it_knows_of_it(fleet: Fleet) -> None:
    fleet.change(ledger_seconds=1.0)
    fleet.append("1", "2", "delete", T)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append("1", "2", "upsert", T + 5)
    fleet.deliver()
    p = fleet.partition("1")
    other = next(owner for owner in map(str, range(2, 999)) if fleet.partition(owner) == p)

    def rotated() -> int:
        return int(fleet.client.hget(fleet.keys.partition(p), "rotated") or 0)

    for at in range(T, T + 3):
        before = rotated()

        def moved(at: int = at, before: int = before) -> bool:
            fleet.append(other, "3", "upsert", at)
            fleet.deliver()
            return rotated() > before

        wait_until(moved, seconds=60.0, what="the ledger rotates")
    assert set(parked(fleet)) == {pair_of(b"1", b"2")}
    assert fleet.remembered()["1", "2"].delete_at == T


def test_a_repair_that_is_refused_with_an_unknown_code_is_tried_again_later(fleet: Fleet) -> None:
    fleet.append("1", "2", "delete", T)
    fleet.deliver()
    p, pair = fleet.partition("1"), pair_of(b"1", b"2")
    fleet.client.hset(fleet.keys.late(p), pair, "1,0")
    fleet.client.hset(fleet.keys.partition(p), "late_due", 1)
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    before_ms = fleet.now_ms()
    fleet.flush_once()
    assert fleet.marks()["1", "2"].upsert_until_ms >= before_ms + PARK_SECONDS[1] * 1000
    assert fleet.first.gate.snapshot().state == "ok"


def test_a_parked_delete_is_not_undone_by_the_repair_of_what_was_confirmed_before(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append("1", "2", "delete", T + 5)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[])
    p, pair = fleet.partition("1"), pair_of(b"1", b"2")
    fleet.client.hset(fleet.keys.late(p), pair, "0,1")
    fleet.client.hset(fleet.keys.partition(p), "late_due", 1)
    requests = fleet.totals()["requests"]
    fleet.flush_once()
    assert (fleet.marks(), fleet.totals()["requests"]) == ({}, requests)
    make_due(fleet, "1", "2")
    fleet.flush_once()
    assert [op for _, _, _, op in fleet.applied()] == ["upsert", "delete"]


def late_upsert_of(fleet: Fleet, contact: str) -> None:
    """Lets an unanswered upsert have acted by now, and its mark be due."""
    p = fleet.partition("1")
    fleet.client.hset(fleet.keys.late(p), pair_of(b"1", contact.encode()), "1,0")
    fleet.client.hset(fleet.keys.partition(p), "late_due", 1)


def park_after_a_delete(fleet: Fleet, op: Op) -> None:
    """Lets a delete be confirmed, a newer change be parked, and a late upsert from before both have acted."""
    fleet.append("1", "2", "delete", T)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append("1", "2", op, T + 5)
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[])
    late_upsert_of(fleet, "2")


def test_a_late_upsert_that_undid_a_delete_is_repaired_while_a_newer_delete_is_parked(fleet: Fleet) -> None:
    park_after_a_delete(fleet, "delete")
    fleet.deliver()
    assert (fleet.marks(), fleet.totals()["repairs"]) == ({}, 1)
    assert [op for _, _, _, op in fleet.applied()] == ["delete", "delete"]
    assert set(parked(fleet)) == {pair_of(b"1", b"2")}


def test_a_late_upsert_that_undid_a_delete_is_repaired_once_the_upsert_after_it_is_buried(fleet: Fleet) -> None:
    park_after_a_delete(fleet, "upsert")
    pairs = ParkedPairs(Partitions.of(fleet.namespace, fleet.settings()), 3.0, time.monotonic, time.sleep)
    assert pairs.bury(list(pairs.find(Wanted()))) == 1
    fleet.deliver()
    assert (fleet.marks(), fleet.totals()["repairs"]) == ({}, 1)
    assert [op for _, _, _, op in fleet.applied()] == ["delete", "delete"]
