"""Dead letters: which they are, and what of them comes back into the log."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.commands import ENDS, dead_letter, run, told
from tests.support.fleet import PARTITIONS, Fleet, T
from worker.core.codec import decode_dead_pair, encode_remembered
from worker.core.dead_letter import read_letter
from worker.core.pair import Remembered, state_of, verdict


def test_letters_are_listed_and_shown_with_all_their_fields(fleet: Fleet) -> None:
    letter_id = dead_letter(fleet, "delete", T)
    (listed,) = told(fleet, "dead-letters", "list")
    expected = {"id": letter_id, "owner": "1", "contact": "9", "op": "delete", "at": T, "reason": "refused"}
    expected |= {"code": "40002", "field": "103", "outdated": False, "partition": fleet.partition("1")}
    assert expected.items() <= listed.items()
    assert {"source", "message", "since"} <= listed.keys()
    assert letter_id in run(fleet, "dead-letters", "list").stdout
    assert "reason     refused" in run(fleet, "dead-letters", "show", letter_id).stdout


def test_letters_are_chosen_by_id_owner_contact_and_reason(fleet: Fleet) -> None:
    first, second = dead_letter(fleet), dead_letter(fleet, owner="2")
    fleet.append_raw(0, {"owner": "1", "op": "upsert"})
    fleet.deliver()

    def chosen(*args: str) -> set[str]:
        return {each["id"] for each in told(fleet, "dead-letters", "list", *args)}

    assert chosen() == {first, second, "0-1"}
    assert chosen(second, first) == {first, second}
    assert chosen("--owner", "1") == {first, "0-1"}
    assert chosen("--owner", "1", "--reason", "refused") == {first}
    assert chosen("--contact", "9") == {first, second}
    assert chosen("--reason", "missing_contact") == {"0-1"}


def test_letters_are_chosen_by_how_long_they_have_lain_there(fleet: Fleet) -> None:
    old, new = dead_letter(fleet, owner="1"), dead_letter(fleet, owner="2")
    partition = int(old.partition("-")[0])
    key = fleet.keys.dead(partition)
    value = fleet.client.hget(key, old)
    since = read_letter(partition, old.encode(), value).since_ms
    fleet.client.hset(key, old, value.replace(b"%d" % since, b"%d" % (since - 31 * 86_400_000)))
    assert [each["id"] for each in told(fleet, "dead-letters", "list", "--older-than", "30d")] == [old]
    assert told(fleet, "dead-letters", "list", "--older-than", "40d") == []
    assert told(fleet, "dead-letters", "purge", "--older-than", "30d", "--yes") == {"purged": 1}
    assert [each["id"] for each in fleet.dead_letters()] == [new]


@pytest.mark.parametrize("wild", ["30", "d", "0d", "-1d", "1w", "1.5h", "٣d", ""])
def test_a_wild_duration_is_a_mistake_of_usage(fleet: Fleet, wild: str) -> None:
    ran = run(fleet, "dead-letters", "purge", "--yes", "--older-than", wild)
    assert ran.exit_code == 2
    assert "a whole number followed by s, m, h or d, such as 6h" in ran.stderr


def test_an_id_that_names_no_letter_is_said_and_the_others_are_done(fleet: Fleet) -> None:
    letter_id = dead_letter(fleet)
    ran = run(fleet, "dead-letters", "redrive", letter_id, "0-77")
    assert ran.exit_code == 1
    assert "no such dead letter: 0-77" in ran.stderr
    assert fleet.dead_letters() == []


def test_a_redriven_letter_is_delivered_with_the_at_it_had(fleet: Fleet) -> None:
    letter_id = dead_letter(fleet, at=T)
    assert told(fleet, "dead-letters", "redrive", letter_id) == {"redriven": 1, "refused": []}
    assert fleet.dead_letters() == []
    assert not fleet.client.exists(fleet.keys.dead_pairs(fleet.partition("1")))
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "9")}
    assert fleet.remembered()["1", "9"] == Remembered("upsert", 0, T)


def test_a_redriven_letter_without_at_counts_as_of_the_time_of_its_entry(fleet: Fleet) -> None:
    dead_letter(fleet, at=None)
    entry_ms = fleet.dead_letters()[0]["entry_ms"]
    run(fleet, "dead-letters", "redrive")
    fleet.deliver()
    assert fleet.remembered()["1", "9"].upsert_at == entry_ms


def test_a_redriven_letter_is_a_new_event(fleet: Fleet) -> None:
    dead_letter(fleet)
    run(fleet, "dead-letters", "redrive")
    found = told(fleet, "status")
    assert found["totals"]["events"] == 2
    assert found["waiting_changes"] == 1
    fleet.deliver()
    totals = told(fleet, "status")["totals"]
    assert [totals[name] for name in ENDS] == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("op", "at", "newer", "newer_at"),
    [
        ("upsert", T, "delete", T + 1),
        ("upsert", T, "delete", T),
        ("delete", T, "upsert", T + 1),
        ("upsert", None, "delete", None),
        ("delete", None, "upsert", None),
    ],
)
def test_what_newer_knowledge_outdates_is_marked_and_never_brought_back(
    fleet: Fleet, op: str, at: int | None, newer: str, newer_at: int | None
) -> None:
    letter_id = dead_letter(fleet, op, at)
    fleet.append("1", "9", newer, newer_at)
    fleet.deliver()
    assert [each["outdated"] for each in told(fleet, "dead-letters", "list")] == [True]
    ran = run(fleet, "dead-letters", "redrive", letter_id)
    assert ran.exit_code == 1
    assert f"{letter_id} not redriven: a newer change" in ran.stderr
    assert fleet.backlog() == 0
    assert len(fleet.dead_letters()) == 1


def test_newer_knowledge_counts_however_long_ago_the_ledger_forgot_it(fleet: Fleet) -> None:
    dead_letter(fleet, "upsert", T)
    fleet.append("1", "9", "delete", T + 1)
    fleet.deliver()
    p = fleet.partition("1")
    fleet.client.delete(fleet.keys.ledger_new(p), fleet.keys.ledger_old(p))
    assert told(fleet, "dead-letters", "redrive")["refused"][0]["why"] == "outdated"


def test_the_other_letters_of_a_pair_stay_counted(fleet: Fleet) -> None:
    first, second = dead_letter(fleet, at=T), dead_letter(fleet, at=T + 1)
    run(fleet, "dead-letters", "redrive", second)
    fleet.deliver()
    (left,) = told(fleet, "dead-letters", "list")
    assert (left["id"], left["outdated"]) == (first, True)
    kept: Any = fleet.client.hgetall(fleet.keys.dead_pairs(fleet.partition("1")))
    assert [decode_dead_pair(value).letters for value in kept.values()] == [1]


def test_an_entry_in_the_wrong_partition_is_redriven_into_the_right_one(fleet: Fleet) -> None:
    wrong = (fleet.partition("1") + 1) % PARTITIONS
    fleet.append_raw(wrong, {"owner": "1", "contact": "9", "op": "upsert", "at": str(T), "source": "crm"})
    fleet.deliver()
    assert told(fleet, "dead-letters", "redrive") == {"redriven": 1, "refused": []}
    assert fleet.dead_letters() == []
    assert told(fleet, "explain", "1", "9")["waiting"][0].items() >= {"at": T, "source": "crm"}.items()
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "9")}


def test_an_entry_of_the_wrong_partition_stays_dead_where_the_ledger_no_longer_reaches_back_to_it(fleet: Fleet) -> None:
    wrong = (fleet.partition("1") + 1) % PARTITIONS
    fleet.append_raw(wrong, {"owner": "1", "contact": "9", "op": "upsert", "at": str(T)})
    fleet.append("1", "9", "delete", T + 1)
    fleet.deliver()
    p = fleet.partition("1")
    fleet.client.delete(fleet.keys.ledger_new(p), fleet.keys.ledger_old(p))
    fleet.client.hset(fleet.keys.partition(p), "vouched", str(fleet.now_ms()))
    assert told(fleet, "dead-letters", "redrive")["refused"] == [{"id": f"{wrong}-1", "why": "forgotten"}]


@pytest.mark.parametrize(("before_ms", "why"), [(0, ["forgotten"]), (1, [])])
def test_the_ledger_reaches_back_to_what_is_newer_than_the_time_it_vouches_from(
    fleet: Fleet, before_ms: int, why: list[str]
) -> None:
    wrong = (fleet.partition("1") + 1) % PARTITIONS
    entry_ms = fleet.now_ms() - 60_000
    fleet.append_raw(wrong, {"owner": "1", "contact": "9", "op": "upsert", "at": str(T)}, entry=f"{entry_ms}-0")
    fleet.deliver()
    fleet.client.hset(fleet.keys.partition(fleet.partition("1")), "vouched", str(entry_ms - before_ms))
    assert [each["why"] for each in told(fleet, "dead-letters", "redrive")["refused"]] == why


def test_a_delete_of_the_wrong_partition_undoes_no_upsert_whose_time_nobody_kept(fleet: Fleet) -> None:
    wrong = (fleet.partition("1") + 1) % PARTITIONS
    fleet.append_raw(wrong, {"owner": "1", "contact": "2", "op": "delete"})
    fleet.deliver()
    fleet.append("1", "2", "upsert")
    fleet.deliver()
    assert told(fleet, "dead-letters", "redrive")["refused"] == [{"id": f"{wrong}-1", "why": "forgotten"}]
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_a_redrive_goes_by_what_was_forgotten_and_not_by_the_setting_of_who_redrives(fleet: Fleet) -> None:
    fleet.change(ledger_seconds=1)
    wrong = (fleet.partition("1") + 1) % PARTITIONS
    fleet.append_raw(wrong, {"owner": "1", "contact": "9", "op": "upsert", "at": str(T)})
    fleet.append("1", "9", "delete", T + 1)
    fleet.deliver()
    for n in range(3):  # what was confirmed is forgotten
        time.sleep(1.1)
        fleet.append("1", str(n), "upsert")
        fleet.deliver()
    fleet.change(ledger_seconds=86_400)
    assert told(fleet, "dead-letters", "redrive")["refused"] == [{"id": f"{wrong}-1", "why": "forgotten"}]


def test_an_entry_that_breaks_a_rule_is_not_redriven(fleet: Fleet) -> None:
    fleet.append_raw(fleet.partition("1"), {"owner": "1", "contact": "9", "op": "add"})
    fleet.deliver()
    ran = run(fleet, "dead-letters", "redrive")
    assert ran.exit_code == 1
    assert "the entry breaks a rule of the log" in ran.stderr
    assert len(fleet.dead_letters()) == 1


def test_the_script_judges_as_the_rules_do(fleet: Fleet) -> None:
    letter_id = dead_letter(fleet, at=T)
    p = fleet.partition("1")
    letter = fleet.client.hget(fleet.keys.dead(p), letter_id)
    assert letter is not None
    pair = b"1\x1f9"
    for letter_op, op in (("upsert", "upsert"), ("upsert", "delete"), ("delete", "upsert"), ("delete", "delete")):
        for delete_at in (0, T - 1, T, T + 1):
            for upsert_at in (0, T - 1, T, T + 1):
                known = Remembered(op, delete_at, upsert_at)  # type: ignore[arg-type] # parametrized by text
                changed = json.dumps(json.loads(letter) | {"op": letter_op})
                fleet.client.hset(fleet.keys.dead(p), letter_id, changed)
                fleet.client.hset(fleet.keys.dead_pairs(p), pair, b"1;" + encode_remembered(known))
                stale = verdict(state_of(letter_op, T, T), known, "resend").op is None  # type: ignore[arg-type] # as above
                assert told(fleet, "dead-letters", "list")[0]["outdated"] is stale
                assert told(fleet, "dead-letters", "redrive")["redriven"] == (not stale), (letter_op, known)


def test_purged_letters_are_gone_for_good_and_their_pairs_with_them(fleet: Fleet) -> None:
    dead_letter(fleet)
    dead_letter(fleet, owner="2")
    assert told(fleet, "dead-letters", "purge", "--owner", "1", "--yes") == {"purged": 1}
    assert [each["owner"] for each in fleet.dead_letters()] == ["2"]
    assert not fleet.client.exists(fleet.keys.dead_pairs(fleet.partition("1")))
    assert fleet.client.exists(fleet.keys.dead_pairs(fleet.partition("2")))


def test_purging_without_anybody_to_ask_removes_nothing(fleet: Fleet) -> None:
    dead_letter(fleet)
    ran = run(fleet, "dead-letters", "purge")
    assert ran.exit_code == 2
    assert "add --yes" in ran.stderr
    assert len(fleet.dead_letters()) == 1


@pytest.mark.parametrize("option", ["--owner", "--contact"])
def test_an_id_that_no_change_can_have_selects_nothing_in_silence(fleet: Fleet, option: str) -> None:
    ran = run(fleet, "dead-letters", "list", option, "\udcff")
    assert (ran.exit_code, "bytes of UTF-8" in ran.stderr) == (2, True)
