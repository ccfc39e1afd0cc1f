"""A limit of characters in ids: producers refuse longer ids, and in the log they become dead letters."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from producers import AsyncContactProducer, ContactChange, InvalidChange
from tests.support.commands import run, told
from tests.support.fleet import T
from worker.store.inbox import Inbox

if TYPE_CHECKING:
    from producers.contract.change import Lane
    from tests.support.fleet import Fleet

FITS, LONG = "界" * 50, "u" * 51
RULE = "must have at most 50 characters (CONTACT_SYNC_ID_MAX_CHARACTERS)"


@pytest.fixture
def limited(fleet: Fleet) -> Fleet:
    fleet.change(id_max_characters=50)
    return fleet


@pytest.mark.parametrize("lane", ["live", "bulk"])
@pytest.mark.parametrize(("owner", "contact"), [(LONG, "2"), ("1", LONG), ("界" * 51, "2"), ("1", "界" * 51)])
def test_a_longer_id_in_the_log_is_a_dead_letter(limited: Fleet, owner: str, contact: str, lane: Lane) -> None:
    limited.append(owner, contact, "upsert", T, lane=lane)
    limited.append("1", FITS, "upsert", T, lane=lane)
    limited.append(FITS, "2", "delete", T + 1, lane=lane)
    limited.deliver()
    (letter,) = limited.dead_letters()
    assert (letter["reason"], letter["owner"], letter["contact"]) == ("id_too_long", owner, contact)
    assert limited.stand_in.contacts() == {("1", FITS)}


def test_without_the_setting_ids_of_256_bytes_are_sent(fleet: Fleet) -> None:
    fleet.append("1", "u" * 256, "upsert", T)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "u" * 256)}


def test_the_inbox_knows_the_limit(limited: Fleet) -> None:
    limited.client.xadd(limited.keys.inbox, {"owner": LONG, "contact": "2", "op": "upsert"})
    assert Inbox(limited.first.namespace).move() == 1
    limited.deliver()
    assert [each["reason"] for each in limited.dead_letters()] == ["id_too_long"]


def test_a_redrive_delivers_once_the_limit_is_raised(limited: Fleet) -> None:
    limited.append("1", LONG, "upsert", T)
    limited.deliver()
    limited.change(id_max_characters=60)
    assert run(limited, "dead-letters", "redrive", "--reason", "id_too_long").exit_code == 0
    limited.deliver()
    assert limited.stand_in.contacts() == {("1", LONG)}
    assert limited.dead_letters() == []


def test_both_producers_refuse_a_longer_id_and_send_what_came_before_it(limited: Fleet) -> None:
    contacts = limited.producer()
    with pytest.raises(InvalidChange, match=f"^contact {RULE.replace('(', '.').replace(')', '.')}$"):
        contacts.upsert("1", LONG)
    with pytest.raises(InvalidChange, match=r"^changes\[1\]: owner must have at most 50 characters") as refused:
        contacts.send(
            [{"owner": "1", "contact": FITS, "op": "upsert"}, {"owner": LONG, "contact": "2", "op": "delete"}]
        )
    assert LONG not in str(refused.value)

    async def append() -> None:
        async with AsyncContactProducer(settings=limited.settings()) as others:
            await others.upsert(FITS, "2")
            with pytest.raises(InvalidChange, match=r"^owner must have at most 50 characters"):
                await others.delete(LONG, "2")
            with pytest.raises(InvalidChange, match=r"^changes\[0\]: contact must have at most 50 characters"):
                await others.send([ContactChange(owner="1", contact=LONG, op="upsert")])

    asyncio.run(append())
    assert limited.backlog() == 2


def test_emit_reports_the_line(limited: Fleet) -> None:
    lines = [{"owner": "1", "contact": LONG, "op": "upsert"}, {"owner": "1", "contact": "2", "op": "upsert"}]
    ran = run(limited, "emit", given="".join(json.dumps(line) + "\n" for line in lines))
    assert ran.exit_code == 1
    assert f"line 1: contact {RULE}" in ran.stderr
    assert limited.backlog() == 1


def test_reconcile_rejects_the_row_before_anything_is_sent(limited: Fleet) -> None:
    ran = run(limited, "reconcile", "run", "-", given=f"owner,contact\n1,2\n1,{LONG}\n")
    assert ran.exit_code == 1
    assert "3" in ran.stderr
    assert f"contact {RULE}" in ran.stderr
    limited.deliver()
    assert limited.stand_in.contacts() == {("1", "2")}
    assert limited.dead_letters() == []


def test_conform_and_explain_say_it(limited: Fleet) -> None:
    limited.append("1", LONG, "upsert", T)
    (wrong,) = told(limited, "conform")["rules"]["contact"]["wrong"]
    assert wrong["fault"] == "more than 50 characters (CONTACT_SYNC_ID_MAX_CHARACTERS)"
    assert "id_too_long" in run(limited, "explain", "1", LONG).stdout
