"""Receipts against workers: how a change stands while it waits, and how it ended."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
import redis

from producers import AsyncContactProducer, ContactChange, ContactProducer, NotAccepted, Receipt
from tests.support.fleet import T

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fleet import Fleet


@pytest.fixture
def contacts(fleet: Fleet) -> Iterator[ContactProducer]:
    with fleet.producer() as producer:
        yield producer


def test_a_change_waits_until_the_endpoint_has_confirmed_it(fleet: Fleet, contacts: ContactProducer) -> None:
    receipt = contacts.upsert("1", "2")
    assert contacts.status_of(receipt) == "waiting"
    assert contacts.wait(receipt, timeout=0.0) == "waiting"
    fleet.deliver()
    assert contacts.status_of(receipt) == contacts.wait(receipt) == "confirmed"
    assert contacts.standing(receipt) == "confirmed"  # its former name


def test_who_waits_hears_of_the_end(fleet: Fleet, contacts: ContactProducer) -> None:
    receipt = contacts.delete("1", "2")
    flushing = threading.Thread(target=fleet.deliver)
    flushing.start()
    assert contacts.wait(receipt, timeout=20.0) == "confirmed"
    flushing.join()


def test_an_upsert_that_a_delete_wins_over_is_superseded(fleet: Fleet, contacts: ContactProducer) -> None:
    receipts = [contacts.upsert("1", "2", at=T), contacts.delete("1", "2", at=T), contacts.upsert("1", "2", at=T - 9)]
    fleet.deliver()
    late = contacts.upsert("1", "2", at=T - 1)
    again = contacts.upsert("1", "2", at=T + 1)
    fleet.deliver()
    assert [contacts.status_of(each) for each in (*receipts, late)] == [
        "superseded",  # from here on by the one that was added again since
        "superseded",
        "superseded",
        "superseded",
    ]
    assert contacts.status_of(again) == "confirmed"


def test_what_the_endpoint_refuses_is_dead_until_it_is_redriven(fleet: Fleet, contacts: ContactProducer) -> None:
    fleet.stand_in.settings(poisoned=[["1", "2"]])
    receipt = contacts.upsert("1", "2")
    fleet.deliver()
    assert contacts.status_of(receipt) == "dead"


def test_in_an_outage_it_waits_also_behind_the_log(fleet: Fleet, contacts: ContactProducer) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 503})
    receipt = contacts.upsert("1", "2", at=T)
    fleet.append("1", "3", "upsert")
    fleet.flush(1.0)
    assert contacts.status_of(receipt) == "waiting"
    fleet.stand_in.remove_faults()
    fleet.deliver()
    assert contacts.status_of(receipt) == "confirmed"


def test_what_the_ledger_forgot_is_settled(fleet: Fleet, contacts: ContactProducer) -> None:
    receipt = contacts.upsert("1", "2")
    fleet.deliver()
    fleet.client.delete(fleet.keys.ledger_new(fleet.partition("1")))
    assert contacts.status_of(receipt) == "settled"


def test_the_async_producer_has_receipts_too(fleet: Fleet) -> None:
    async def app() -> tuple[Receipt, str]:
        async with AsyncContactProducer(settings=fleet.settings()) as contacts:
            receipt = await contacts.upsert("1", "2")
            flushing = asyncio.to_thread(fleet.deliver)
            ended, _ = await asyncio.gather(contacts.wait(receipt, timeout=20.0), flushing)
            return receipt, ended

    receipt, ended = asyncio.run(app())
    assert (receipt.owner, receipt.contact, receipt.op, ended) == ("1", "2", "upsert", "confirmed")


def test_where_nothing_is_accepted_there_is_no_receipt() -> None:
    change = ContactChange(owner="1", contact="2", op="upsert", at=T)
    with ContactProducer("redis://127.0.0.1:1/0") as contacts:
        with pytest.raises(NotAccepted):
            contacts.upsert("1", "2")
        with pytest.raises(redis.ConnectionError):
            contacts.status_of(Receipt.of("1-0", change))
