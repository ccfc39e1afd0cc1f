"""The ticker: one for the fleet, as many hints as there is work for, and none needed where the broker is away."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from tests.support.fleet import PARTITIONS, T
from tests.support.tickers import ticker_of
from tests.support.waiting import wait_until
from worker.process.bootsteps import HintQueue
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fleet import Fleet
    from worker.process.ticker import Ticker

NOWHERE = "redis://127.0.0.1:1/0"
"""A broker that refuses every connection."""


def flush() -> None:
    """The task that hints are of; nobody runs it here."""


class Hall:
    """Tickers of one fleet, with a queue that nobody takes hints from."""

    def __init__(self, fleet: Fleet, undo: ExitStack) -> None:
        self._fleet = fleet
        self._undo = undo

    def ticker(self, token: str, **overrides: Any) -> Ticker:
        """One more ticker, as a worker process makes it."""
        settings = self._fleet.settings(**overrides)
        app = Celery("test")
        app.contact_sync_settings = settings  # type: ignore[attr-defined] # as a worker's app has them
        app.conf.update(broker_url=settings.celery_broker_url, task_default_queue=settings.namespace)
        app.task(name="contact_sync.flush")(flush)
        app.finalize()
        queue = HintQueue(app, settings.namespace)
        client = self._undo.enter_context(connect(settings.redis_url, timeout_seconds=5))
        self._undo.callback(queue.close)
        flush_here = self._fleet.first.flusher.run
        return ticker_of(settings, client, PARTITIONS, broker=queue, flush=flush_here, token=token)

    def hints(self) -> int:
        length: int = self._fleet.client.llen(self._fleet.keys.namespace)
        return length

    def leader(self) -> bytes | None:
        """Token of the ticker that the fleet has."""
        token: bytes | None = self._fleet.client.get(self._fleet.keys.ticker)
        return token


@pytest.fixture
def hall(fleet: Fleet) -> Iterator[Hall]:
    with ExitStack() as undo:
        yield Hall(fleet, undo)


@contextmanager
def ticking(*tickers: Ticker) -> Iterator[None]:
    """These tickers in threads, as their processes run them."""
    threads = [threading.Thread(target=ticker.run) for ticker in tickers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for ticker in tickers:
            ticker.stop()
        for thread in threads:
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_a_change_makes_the_ticker_leave_a_hint(fleet: Fleet, hall: Hall) -> None:
    with ticking(hall.ticker("a")):
        fleet.append("1", "2", "upsert", T)
        wait_until(lambda: hall.hints() == 1, what="a hint lies in the queue")


def test_hints_that_nobody_took_are_not_left_again_and_lost_ones_are(fleet: Fleet, hall: Hall) -> None:
    with ticking(hall.ticker("a")):
        fleet.append("1", "2", "upsert", T)
        wait_until(hall.hints, what="a hint lies in the queue")
        looks = commands(fleet, "xread")
        wait_until(lambda: commands(fleet, "xread") > looks + 10, what="it has looked ten times more")
        assert hall.hints() == 1
        fleet.client.delete(fleet.keys.namespace)  # somebody flushes the broker
        wait_until(hall.hints, what="a new hint lies in the queue")


def commands(fleet: Fleet, name: str) -> int:
    """How often Redis was asked this, by anybody."""
    found: Any = fleet.client.info("commandstats")
    return int(found.get(f"cmdstat_{name}", {}).get("calls", 0))


@pytest.mark.parametrize(("owners", "batch_size", "hints"), [(8, 500, 1), (8, 2, 4), (8, 1, 8), (1, 1, 1)])
def test_there_are_as_many_hints_as_there_are_batches_in_partitions_that_are_due(
    fleet: Fleet, hall: Hall, owners: int, batch_size: int, hints: int
) -> None:
    by_partition = {fleet.partition(str(i)): str(i) for i in range(200)}
    fleet.append_many((by_partition[p], "x", "upsert", T) for p in range(owners))
    with ticking(hall.ticker("a", batch_size=batch_size)):
        wait_until(lambda: hall.hints() >= hints, what="the hints lie in the queue")
    assert hall.hints() == hints


def test_nothing_is_hinted_at_before_it_has_lingered(fleet: Fleet, hall: Hall) -> None:
    fleet.append("1", "2", "upsert", T)
    looks = commands(fleet, "xread")
    with ticking(hall.ticker("a", linger_seconds=3600.0)):
        wait_until(lambda: commands(fleet, "xread") > looks + 3, what="it has looked a few times")
    assert hall.hints() == 0


def test_the_next_look_comes_when_the_next_change_is_due(fleet: Fleet, hall: Hall) -> None:
    ticker = hall.ticker("a", linger_seconds=0.04)

    def waits() -> bool:
        fleet.client.flushdb()
        fleet.append("1", "2", "upsert", T)
        seconds = ticker._tick()  # noqa: SLF001 - how long it waits is all that is asked
        if hall.hints():
            return False  # this machine was too slow, and it was due already
        assert seconds <= 0.041
        return True

    wait_until(waits, seconds=30, what="a look before it is due")


def test_nothing_is_hinted_at_before_the_gate_opens_for_a_probe(fleet: Fleet, hall: Hall) -> None:
    fleet.first.gate.report(0, "retry", delay_seconds=0.5, error="HTTP 503")
    fleet.append("1", "2", "upsert", T)
    with ticking(hall.ticker("a")):
        wait_until(hall.hints, what="a hint for the probe lies in the queue")
        assert not fleet.first.gate.snapshot().closed


def test_one_ticker_at_a_time_is_the_fleets_and_another_takes_over_when_it_stops(fleet: Fleet, hall: Hall) -> None:
    first, second = hall.ticker("first"), hall.ticker("second")
    with ticking(second):
        with ticking(first):
            wait_until(hall.leader, what="one of them has the lease")
        wait_until(lambda: hall.leader() == b"second", what="the other one has it")
        fleet.append("1", "2", "upsert", T)
        wait_until(hall.hints, what="a hint lies in the queue")
    assert hall.leader() is None  # given back, so that whoever starts next need not wait for it


def test_the_lease_of_a_ticker_that_died_expires(fleet: Fleet, hall: Hall) -> None:
    fleet.client.set(fleet.keys.ticker, "dead", px=100)
    with ticking(hall.ticker("b")):
        wait_until(lambda: hall.leader() == b"b", what="the lease passed on")


def test_a_broker_that_is_away_makes_the_ticker_flush_by_itself(
    fleet: Fleet, hall: Hall, capfd: pytest.CaptureFixture[str]
) -> None:
    with ticking(hall.ticker("a", broker_url=NOWHERE)):
        for at in (T, T + 1):
            fleet.append("1", str(at), "upsert", at)
            wait_until(lambda: not fleet.backlog(), what="it was delivered without the broker")
    assert len(fleet.stand_in.contacts()) == 2
    assert "".join(capfd.readouterr()).count("broker_away") == 1


def test_only_the_fleets_ticker_tells_what_it_met(fleet: Fleet, hall: Hall) -> None:
    ticker = hall.ticker("a", broker_url=NOWHERE)
    with ticking(ticker):
        fleet.append("1", "2", "upsert", T)
        wait_until(lambda: ticker.trouble() == "broker_away", what="the broker is away")
        fleet.client.set(fleet.keys.ticker, "another", px=60_000)
        wait_until(lambda: not ticker.trouble(), what="another ticker tells it now")


def test_what_nobody_foresaw_does_not_end_the_ticker(
    fleet: Fleet, hall: Hall, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet.client.hset(fleet.keys.gate, mapping={"limit": "no number", "limit_at": fleet.now_ms()})
    fleet.append("1", "2", "upsert", T)
    said = ""

    def failed() -> bool:
        nonlocal said
        said += "".join(capfd.readouterr())
        return "ticker_failed" in said

    with ticking(hall.ticker("a")):
        wait_until(failed, what="it says that it failed")
        assert hall.hints() == 0
        fleet.client.hdel(fleet.keys.gate, "limit")
        wait_until(hall.hints, what="a hint lies in the queue")


def test_an_idle_ticker_asks_redis_little(fleet: Fleet, hall: Hall) -> None:
    with ticking(hall.ticker("a")):
        wait_until(hall.leader, what="it has the lease")
        looks, leases = commands(fleet, "xread"), commands(fleet, "set")
        wait_until(lambda: commands(fleet, "xread") >= looks + 2, what="two looks")
        assert commands(fleet, "set") <= leases + 2
