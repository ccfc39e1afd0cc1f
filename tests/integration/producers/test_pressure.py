"""Pressure and time to wait, asked of a real Redis, with workers and without."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import threading
from typing import TYPE_CHECKING

import pytest

from producers import AsyncContactProducer, ContactProducer, Receipt
from producers.send import pressure
from tests.support.commands import run
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from tests.support.fleet import Fleet


def test_an_empty_log_has_no_pressure_and_a_change_that_is_done_no_time_to_wait(fleet: Fleet) -> None:
    with ContactProducer(settings=fleet.settings()) as contacts:
        assert 0.0 <= contacts.pressure() < 0.5
        receipt = contacts.upsert("1", "2")
        assert receipt.eta() == math.inf  # no worker runs
        fleet.deliver()
        assert receipt.eta() == 0.0


def test_the_time_to_wait_is_what_waits_at_the_measured_rate(fleet: Fleet) -> None:
    with ContactProducer(settings=fleet.settings()) as contacts:
        contacts.send({"owner": str(n), "contact": "9", "op": "upsert"} for n in range(2_000))
        receipt = contacts.upsert("last", "9")
        contacts.pressure()
        over = threading.Event()

        def confirm() -> None:
            while not over.wait(0.01):
                fleet.client.hincrby(fleet.first.namespace.keys.totals(0), "records_confirmed", 10)

        thread = threading.Thread(target=confirm)
        thread.start()
        try:
            seconds = receipt.eta()
        finally:
            over.set()
            thread.join()
    assert 1.5 < seconds < 30  # 2,001 changes at 1,000 a second and less, for the machine may be busy


def test_a_change_that_waits_in_a_partition_that_is_not_read_is_not_taken_for_done(fleet: Fleet) -> None:
    fleet.change(partitions=1_024)
    with ContactProducer(settings=fleet.settings()) as contacts:
        receipts = [contacts.upsert(str(owner), "2") for owner in range(3)]
        assert [each.eta() for each in receipts] == [math.inf] * 3


def test_the_asynchronous_producer_knows_both_too(fleet: Fleet) -> None:
    async def ask() -> tuple[float, float]:
        async with AsyncContactProducer(settings=fleet.settings()) as contacts:
            receipt = await contacts.upsert("1", "2", lane="bulk")
            return await contacts.pressure(), await receipt.eta()

    found, seconds = asyncio.run(ask())
    assert 0.0 <= found < 0.5
    assert seconds == math.inf


def test_a_copy_of_a_receipt_is_a_plain_one_of_the_same_change(fleet: Fleet) -> None:
    with ContactProducer(settings=fleet.settings()) as contacts:
        receipt = contacts.delete("1", "2", lane="bulk")
        for each in (copy.copy(receipt), pickle.loads(pickle.dumps(receipt))):  # noqa: S301 - our own
            assert type(each) is Receipt
            assert (each, each.owner, each.op, each.at, each.lane) == (receipt, "1", "delete", receipt.at, "bulk")
            assert contacts.status_of(each) == "waiting"


def test_memory_that_runs_out_is_pressure(fleet: Fleet) -> None:
    with EmbeddedRedis(config={"maxmemory": "8mb"}) as server:
        fleet.change(redis_url=server.url)
        with ContactProducer(settings=fleet.settings()) as contacts:
            before = contacts.pressure()
            contacts.send(({"owner": str(n), "contact": "9" * 200, "op": "upsert"} for n in range(20_000)), lane="bulk")
            assert contacts.pressure() > before + 0.2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--lane", "bulk"), '{"owner": "1", "contact": "2", "op": "upsert"}'),
        ((), '{"owner": "1", "contact": "2", "op": "upsert", "lane": "bulk"}'),
    ],
)
def test_a_bulk_emit_says_why_it_waits_and_goes_on(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], line: str
) -> None:
    monkeypatch.setattr(pressure, "BULK_WAITING_MAX", 1)
    monkeypatch.setattr(pressure, "POLL_SECONDS", 0.05)
    key = fleet.first.namespace.keys.bulk(0)
    fleet.client.xadd(key, {"owner": "x"})
    timer = threading.Timer(0.5, fleet.client.delete, (key,))
    timer.start()
    ran = run(fleet, "emit", *options, given=f"{line}\n")
    timer.join()
    assert ran.exit_code == 0
    lines = ran.stderr.splitlines()
    assert lines[0].startswith("contact-sync: waits: 1 bulk changes are waiting, and Redis uses ")
    assert lines[1:] == ["contact-sync: goes on", "contact-sync: changes accepted: 1; bad lines: 0"]
