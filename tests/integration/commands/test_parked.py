"""Parked pairs: what an operator sees of them, tries again, and gives up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import ENDS, run, told
from tests.support.fleet import T
from worker.core.dead_letter import DEAD_CAP
from worker.core.times import iso_utc

if TYPE_CHECKING:
    from producers.contract.change import Lane
    from tests.support.fleet import Fleet


def park(fleet: Fleet, *pairs: tuple[str, str], op: str = "upsert") -> list[dict[str, Any]]:
    """Lets workers try these pairs, which the endpoint refuses with an unknown code; returns what is listed then."""
    fleet.stand_in.settings(poisoned=[list(pair) for pair in pairs], poison_code="40401")
    fleet.append_many([(owner, contact, op, T) for owner, contact in pairs])
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[])
    listed: list[dict[str, Any]] = told(fleet, "parked", "list")
    return listed


def balanced(fleet: Fleet) -> bool:
    """Whether each accepted entry waits or has ended once."""
    totals, status = fleet.totals(), told(fleet, "status")
    ended = sum(totals.get(name, 0) for name in ENDS)
    return bool(totals["events"] == ended + status["waiting_changes"])


def test_parked_pairs_are_listed_with_since_when_why_and_when_next(fleet: Fleet) -> None:
    [listed] = park(fleet, ("1", "9"))
    expected = {"partition": fleet.partition("1"), "owner": "1", "contact": "9", "op": "upsert", "at": T}
    expected |= {"lane": "live", "code": "40401", "field": None, "tries": 1}
    assert expected.items() <= listed.items()
    assert listed["since"] < listed["next"]
    line = run(fleet, "parked", "list").stdout
    assert all(word in line for word in (listed["id"], "40401", "owner 1", "contact 9", listed["next"]))


def test_health_and_status_name_them_if_nothing_else_waits(fleet: Fleet) -> None:
    park(fleet, ("1", "2"))
    assert run(fleet, "health").stdout == "healthy: nothing waits but 1 parked pair: contact-sync parked list\n"
    assert "nothing waits but 1 parked pair" in run(fleet, "status").stdout


def test_parked_pairs_are_chosen_as_dead_letters_are(fleet: Fleet) -> None:
    first, second = sorted(park(fleet, ("1", "9"), ("2", "8")), key=lambda each: str(each["owner"]))

    def chosen(*args: str) -> list[str]:
        return sorted(each["owner"] for each in told(fleet, "parked", "list", *args))

    assert chosen() == ["1", "2"]
    assert chosen(first["id"]) == ["1"]
    assert chosen("--owner", "2") == ["2"]
    assert chosen("--contact", "9") == ["1"]
    assert chosen("--reason", "40401") == ["1", "2"]
    assert chosen("--reason", "40301") == []
    assert chosen("--older-than", "1h") == []
    assert chosen(second["id"], "--owner", "1") == []
    ran = run(fleet, "parked", "retry", "0-77")
    assert (ran.exit_code, ran.stderr) == (1, "contact-sync: no such parked pair: 0-77\n")


def test_a_retried_pair_is_tried_at_once_and_the_others_are_not(fleet: Fleet) -> None:
    park(fleet, ("1", "9"), ("2", "8"))
    assert told(fleet, "parked", "retry", "--owner", "1") == {"retried": 1}
    assert fleet.leases() == []  # workers need not wait for one to expire
    assert run(fleet, "parked", "retry", "--owner", "1").stdout == "1 is tried now\n"
    fleet.flush_once()
    assert fleet.stand_in.contacts() == {("1", "9")}
    assert [each["owner"] for each in told(fleet, "parked", "list")] == ["2"]
    assert balanced(fleet)


@pytest.mark.parametrize("op", ["upsert", "delete"])
def test_a_buried_pair_is_a_dead_letter_that_can_be_redriven(fleet: Fleet, op: str) -> None:
    park(fleet, ("1", "9"), op=op)
    assert told(fleet, "parked", "bury") == {"buried": 1}
    assert told(fleet, "parked", "list") == []
    [letter] = told(fleet, "dead-letters", "list")
    expected = {"owner": "1", "contact": "9", "op": op, "at": T, "reason": "buried", "code": "40401", "outdated": False}
    assert expected.items() <= letter.items()
    assert balanced(fleet)
    assert fleet.client.hget(fleet.keys.totals(fleet.partition("1")), "dead:buried") == b"1"
    assert told(fleet, "dead-letters", "redrive") == {"redriven": 1, "refused": []}
    fleet.deliver()
    assert fleet.stand_in.contacts() == ({("1", "9")} if op == "upsert" else set())
    assert fleet.dead_letters() == []


def test_a_buried_upsert_is_outdated_by_a_delete_that_is_confirmed_later(fleet: Fleet) -> None:
    park(fleet, ("1", "9"))
    run(fleet, "parked", "bury")
    fleet.append("1", "9", "delete", T + 1)
    fleet.deliver()
    assert [each["outdated"] for each in told(fleet, "dead-letters", "list")] == [True]
    assert [each["why"] for each in told(fleet, "dead-letters", "redrive")["refused"]] == ["outdated"]


def test_an_upsert_behind_a_buried_delete_is_sent(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["9"], poison_code="40301")
    fleet.append_many([("1", "9", "delete", T), ("1", "9", "upsert", T + 5)])
    fleet.deliver()
    fleet.stand_in.settings(poisoned=[])
    assert told(fleet, "parked", "bury") == {"buried": 1}
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "9")}
    assert balanced(fleet)


def test_a_partition_that_a_worker_holds_is_said_and_nothing_of_it_is_moved(fleet: Fleet) -> None:
    park(fleet, ("1", "9"))
    p = fleet.partition("1")
    fleet.client.set(fleet.keys.lease(p), "1", px=60_000)
    ran = run(fleet, "parked", "bury", lease_seconds=1.6, request_timeout_seconds=0.5)
    assert ran.exit_code == 1
    assert f"partition {p} stays leased to a worker: 0 pairs were moved" in ran.stderr
    assert len(told(fleet, "parked", "list")) == 1


def test_status_counts_parked_pairs_and_neither_age_nor_drain_waits_for_them(fleet: Fleet) -> None:
    assert "parked" not in run(fleet, "status").stdout
    park(fleet, ("1", "9"))
    found = told(fleet, "status")
    assert (found["parked"], found["pending_pairs"], found["oldest_seconds"]) == (1, 0, None)
    assert found["endpoint"]["state"] == "ok"
    assert "1 pair is refused by the endpoint: contact-sync parked list" in run(fleet, "status").stdout
    drained = run(fleet, "drain", "--timeout", "0")
    assert drained.exit_code == 0
    assert "1 pair is parked, refused by the endpoint: contact-sync parked list" in drained.stderr


def test_what_is_parked_for_want_of_room_is_not_said_to_be_refused_with_an_unknown_code(fleet: Fleet) -> None:
    p = fleet.partition("1")
    fleet.client.hset(fleet.keys.dead(p), mapping={f"{p}-old{i}": b"{}" for i in range(DEAD_CAP)})
    fleet.stand_in.settings(poisoned=["9"])
    fleet.append("1", "9", "upsert", T)
    fleet.deliver()
    assert told(fleet, "status")["parked"] == 1
    for command in ("status", "drain"):
        said = run(fleet, command).output
        assert "parked list" in said
        assert "unknown code" not in said


def test_explain_says_since_when_why_and_when_a_parked_pair_is_tried_next(fleet: Fleet) -> None:
    [listed] = park(fleet, ("1", "9"))
    found = told(fleet, "explain", "1", "9")
    assert found["pending"] is None
    expected = {"since": listed["since"], "code": "40401", "field": None, "tries": 1, "next": listed["next"]}
    assert expected.items() <= found["parked"].items()
    assert found["parked"]["upsert"]["at"] == T
    said = run(fleet, "explain", "1", "9").stdout
    assert f"parked since {listed['since']}: the endpoint refused it once, last with code 40401" in said
    assert f"tried again at {listed['next']}" in said
    assert f"parked: upsert at {iso_utc(T)}" in said


def test_those_that_were_refused_first_are_listed_first_each_with_its_lane(fleet: Fleet) -> None:
    order: list[tuple[str, Lane]] = [("9", "live"), ("8", "bulk"), ("7", "live")]
    for contact, lane in order:
        fleet.stand_in.settings(poisoned=[contact], poison_code="40401")
        fleet.append("1", contact, "upsert", T, lane=lane)
        fleet.deliver()
    listed = told(fleet, "parked", "list")
    assert [(each["contact"], each["lane"]) for each in listed] == order


def test_a_pair_that_no_dead_letter_has_room_for_stays_parked_and_its_partition_is_free(fleet: Fleet) -> None:
    park(fleet, ("1", "9"))
    p = fleet.partition("1")
    fleet.client.hset(fleet.keys.dead(p), mapping={f"{p}-old{i}": b"{}" for i in range(DEAD_CAP)})
    ran = run(fleet, "parked", "bury")
    assert ran.exit_code == 1
    assert f"partition {p} has no room for more than 10,000 dead letters: 0 pairs were moved" in ran.stderr
    assert fleet.leases() == []
    assert len(told(fleet, "parked", "list")) == 1


def test_a_receipt_of_a_parked_change_says_that_it_waits(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["9"], poison_code="40401")
    with fleet.producer() as producer:
        receipt = producer.upsert("1", "9", at=T)
        fleet.deliver()
        assert producer.status_of(receipt) == "waiting"
        fleet.stand_in.settings(poisoned=[])
        run(fleet, "parked", "retry")
        fleet.flush_once()
        assert producer.status_of(receipt) == "confirmed"


def test_what_is_said_to_do_before_an_owner_is_forgotten_suffices(fleet: Fleet) -> None:
    park(fleet, ("1", "9"))
    fleet.append("1", "2", "upsert", T)
    both = "run contact-sync drain and contact-sync parked retry or bury with --owner first"
    assert both in run(fleet, "forget", "1", "--yes").stderr
    fleet.deliver()
    assert run(fleet, "drain", "--timeout", "0").exit_code == 0
    assert "run contact-sync parked retry or bury" in run(fleet, "forget", "1", "--yes").stderr
    run(fleet, "parked", "bury", "--owner", "1")
    assert run(fleet, "forget", "1", "--yes").exit_code == 0


def test_forgetting_an_owner_removes_its_parked_pairs_only_if_told_to(fleet: Fleet) -> None:
    park(fleet, ("1", "9"))
    ran = run(fleet, "forget", "1", "--yes")
    assert ran.exit_code == 1
    assert "1 parked pair" in ran.stderr
    assert "run contact-sync parked retry or bury with --owner first, or add --also-waiting" in ran.stderr
    assert told(fleet, "forget", "1", "--yes", "--also-waiting")["removed"]["parked_pairs"] == 1
    assert told(fleet, "parked", "list") == []
    assert told(fleet, "status")["waiting_changes"] == 0
    assert "parked_due" not in fleet.client.hgetall(fleet.keys.partition(fleet.partition("1")))


def test_parked_pairs_are_in_the_way_of_a_repartition(fleet: Fleet) -> None:
    park(fleet, ("1", "9"))
    run(fleet, "pause")
    ran = run(fleet, "repartition", "4")
    assert ran.exit_code == 1
    assert f"partition {fleet.partition('1')}: pairs are parked in it: contact-sync parked retry or bury" in ran.stderr
