"""`contact-sync forget`: what is removed, what is refused, and what the receipt says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.commands import ENDS, dead_letter, run, told
from tests.support.fleet import PARTITIONS, Fleet, T

if TYPE_CHECKING:
    from tests.support.waiting import WaitUntil

NOTHING = {
    "inbox_entries": 0,
    "waiting_entries": 0,
    "pending_pairs": 0,
    "parked_pairs": 0,
    "late_marks": 0,
    "remembered_pairs": 0,
    "dead_letters": 0,
}


def neighbour(fleet: Fleet) -> str:
    """Another owner of owner 1's partition."""
    return next(str(n) for n in range(2, 999) if fleet.partition(str(n)) == fleet.partition("1"))


def mentions(fleet: Fleet, owner: str) -> list[str]:
    """The keys in which the owner's id stands."""
    found = []
    for key in fleet.client.scan_iter(f"{fleet.keys.namespace}*"):
        kind, value = fleet.client.type(key), ""
        if kind == b"hash":
            value = repr(fleet.client.hgetall(key))
        elif kind == b"stream":
            value = repr(fleet.client.xrange(key))
        if owner in value:
            found.append(key.decode())
    return found


def test_all_that_is_kept_about_an_owner_is_removed_and_nothing_of_others(fleet: Fleet) -> None:
    owner, other = "owner-to-forget", neighbour(fleet)
    dead_letter(fleet, owner=owner)
    wrong = (fleet.partition(owner) + 1) % PARTITIONS
    fleet.append_raw(wrong, {"owner": owner, "contact": "9", "op": "upsert"})
    fleet.append_many((who, str(n), "upsert", T) for who in (owner, other, f"{owner}-2") for n in range(3))
    fleet.deliver()
    assert len(mentions(fleet, owner)) >= 4
    receipt = told(fleet, "forget", owner, "--yes")
    assert receipt.keys() == {"forgotten_at", "owner", "contact", "removed"}
    assert receipt["removed"] == NOTHING | {"remembered_pairs": 3, "dead_letters": 2}
    assert {pair for pair in fleet.remembered() if pair[0] == owner} == set()
    assert {pair[0] for pair in fleet.remembered()} == {other, f"{owner}-2"}
    fleet.append_many((f"{owner}-2", str(n), "delete", T + 1) for n in range(3))
    fleet.deliver()
    run(fleet, "forget", f"{owner}-2", "--yes")
    assert mentions(fleet, owner) == []
    assert fleet.leases() == []
    assert told(fleet, "status")["waiting_changes"] == 0


def test_one_pair_alone(fleet: Fleet) -> None:
    fleet.append_many(("1", str(n), "upsert", T) for n in range(3))
    fleet.deliver()
    assert told(fleet, "forget", "1", "2", "--yes")["removed"] == NOTHING | {"remembered_pairs": 1}
    assert set(fleet.remembered()) == {("1", "0"), ("1", "1")}
    said = run(fleet, "forget", "1", "2", "--yes").stdout
    assert said.startswith("forgotten at 2")
    assert "owner 1, contact 2\n" in said


def test_what_waits_is_refused_and_nothing_is_removed(fleet: Fleet) -> None:
    dead_letter(fleet)
    fleet.append("1", "2", "upsert", T)
    ran = run(fleet, "forget", "1", "--yes")
    assert ran.exit_code == 1
    assert "1 entry, 0 pairs, 0 parked pairs and 0 late marks are waiting and would never be delivered" in ran.stderr
    assert "run contact-sync drain first, or add --also-waiting" in ran.stderr
    assert len(fleet.dead_letters()) == 1
    fleet.deliver()
    assert run(fleet, "forget", "1", "--yes").exit_code == 0
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_what_waits_is_removed_if_that_is_said_and_counted_as_forgotten(fleet: Fleet) -> None:
    other = neighbour(fleet)
    fleet.stand_in.faults({"kind": "status", "status": 503})
    fleet.append_many((who, "2", op, T + at) for who in ("1", other) for at, op in enumerate(("delete", "upsert")))
    fleet.append("1", "3", "upsert", T)
    fleet.flush_once()
    fleet.flush_once()  # before a probe the log is read whole, and kept
    assert set(fleet.pending()) == {("1", "2"), ("1", "3"), (other, "2")}
    fleet.append("1", "4", "upsert", T)
    receipt = told(fleet, "forget", "1", "--also-waiting", "--yes")
    assert receipt["removed"] == NOTHING | {"waiting_entries": 1, "pending_pairs": 2}
    assert set(fleet.pending()) == {(other, "2")}
    assert told(fleet, "status")["waiting_changes"] == 2
    fleet.stand_in.reset()
    fleet.deliver()
    assert fleet.stand_in.contacts() == {(other, "2")}
    found = told(fleet, "status")
    assert (found["waiting_changes"], found["oldest_seconds"]) == (0, None)
    assert found["totals"]["forgotten"] == 4
    assert found["totals"]["events"] == sum(found["totals"][name] for name in (*ENDS, "forgotten"))


def test_late_marks_wait_too(fleet: Fleet) -> None:
    fleet.client.hset(fleet.keys.late(fleet.partition("1")), b"1\x1f2", b"1,1")
    assert run(fleet, "forget", "1", "--yes").exit_code == 1
    assert told(fleet, "forget", "1", "--also-waiting", "--yes")["removed"]["late_marks"] == 1
    assert fleet.marks() == {}


def test_a_partition_that_a_worker_holds_is_waited_for_and_then_left_alone(fleet: Fleet, wait_until: WaitUntil) -> None:
    dead_letter(fleet)
    key = fleet.keys.lease(fleet.partition("1"))
    fleet.client.set(key, "1", px=60_000)
    ran = run(fleet, "forget", "1", "--yes", lease_seconds=0.7, request_timeout_seconds=0.1, linger_seconds=0.0)
    if ran.exit_code == 2:  # the shortest lease there may be
        ran = run(fleet, "forget", "1", "--yes")
    assert ran.exit_code == 1
    assert "nothing was removed; try again" in ran.stderr
    assert len(fleet.dead_letters()) == 1
    fleet.client.pexpire(key, 200)
    assert run(fleet, "forget", "1", "--yes").exit_code == 0
    wait_until(lambda: not fleet.dead_letters(), what="it is forgotten")


def test_where_nothing_else_waits_nothing_is_old_any_more(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 503})
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    fleet.flush_once()
    assert told(fleet, "status")["oldest_seconds"] is not None
    assert told(fleet, "forget", "1", "--also-waiting", "--yes")["removed"]["pending_pairs"] == 1
    assert told(fleet, "status")["oldest_seconds"] is None
    assert told(fleet, "health")["reason"] == "idle"


def test_without_anybody_to_ask_nothing_is_removed(fleet: Fleet) -> None:
    dead_letter(fleet)
    ran = run(fleet, "forget", "1")
    assert (ran.exit_code, "add --yes" in ran.stderr) == (2, True)
    assert len(fleet.dead_letters()) == 1


def test_an_id_that_is_none_is_wrong_usage(fleet: Fleet) -> None:
    assert run(fleet, "forget", "", "--yes").exit_code == 2
    assert run(fleet, "forget", "1", "a\x01", "--yes").exit_code == 2


def test_the_older_ledger_forgets_too(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    p = fleet.partition("1")
    fleet.client.rename(fleet.keys.ledger_new(p), fleet.keys.ledger_old(p))
    assert told(fleet, "forget", "1", "--yes")["removed"] == NOTHING | {"remembered_pairs": 1}
    assert fleet.remembered() == {}
