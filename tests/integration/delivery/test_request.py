"""One request: when it began and when it is over for us, by Redis' clock, whatever the process is held up by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support.partition_zero import partitions_of
from tests.support.sync_request import key
from worker.core.batch import Batch
from worker.core.outcome import Confirmed
from worker.core.round import Round
from worker.delivery.endpoint import Endpoint
from worker.delivery.request import RequestSender

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fleet import Fleet
    from worker.core.gate import Permit

ONE = Batch(chosen=(frozenset({b"1\x1f2"}),), repairs=(frozenset(),), upserts=(b"1\x1f2",), deletes=())
STALL_SECONDS = 0.25


def clock_that_stalls(at_call: int) -> Callable[[], float]:
    """A monotonic clock of a process that is not scheduled for a while before it looks that many times."""
    calls = 0

    def monotonic() -> float:
        nonlocal calls
        calls += 1
        return time.monotonic() + (STALL_SECONDS if calls >= at_call else 0.0)

    return monotonic


def test_a_request_counts_as_begun_before_a_stall_and_as_over_after_it(fleet: Fleet) -> None:
    settings, gate = fleet.settings(), fleet.first.gate
    fleet.append("1", "2", "upsert")
    gate.ask(settings.lease_seconds)  # loads the script, which takes longer than asking does
    looked = time.monotonic()
    place = gate.ask(settings.lease_seconds)
    (lease,) = partitions_of(fleet, fleet.first.namespace.client).claim([fleet.partition("1")])
    this = Round(place.gate, looked, time.monotonic(), [lease], 500, place.token)
    requests = RequestSender(
        settings,
        gate=gate,
        endpoint=Endpoint(settings.endpoint_url, settings.request_timeout_seconds, time.monotonic),
        server_key=lambda _permit: key()["Server-Key"],
        monotonic=clock_that_stalls(at_call=2),
        draw=lambda: 0.5,
        parks=lambda: True,
    )
    begins_ms = fleet.now_ms()
    sent = requests.send(this, ONE)
    timeout_ms = int(settings.request_timeout_seconds * 1000)
    assert isinstance(sent.outcome, Confirmed)
    assert begins_ms - 5 <= sent.begun_ms <= fleet.now_ms()
    # What it does at the endpoint without an answer may come as long after this as CONTACT_SYNC_LATE_SECONDS says.
    assert sent.deadline_ms >= sent.begun_ms + STALL_SECONDS * 1000 + timeout_ms


def test_by_redis_clock_a_moment_lies_between_its_two_bounds(fleet: Fleet) -> None:
    gate = fleet.first.gate
    gate.ask(15.0)  # loads the script, which takes longer than asking does
    looked = time.monotonic()
    seen = gate.ask(15.0).gate
    slow = 0.2  # so long the answer of Redis was on its way, after or before the clock was read
    this = Round(seen, looked - slow, looked + slow, [], 500)
    now, now_ms = time.monotonic(), fleet.now_ms()
    assert this.at_least_ms(now) <= now_ms - slow * 1000 + 50
    assert this.at_ms(now) >= now_ms + slow * 1000 - 50


def test_a_request_goes_out_at_its_time_and_not_before(fleet: Fleet) -> None:
    settings, gate = fleet.settings(), fleet.first.gate
    place = gate.ask(settings.lease_seconds)
    (lease,) = partitions_of(fleet, fleet.first.namespace.client).claim([fleet.partition("1")])
    now = time.monotonic()
    this = Round(place.gate, now, now, [lease], 500, place.token, start=now + STALL_SECONDS)
    went: list[float] = []

    def key_when_sent(_permit: Permit) -> str:
        went.append(time.monotonic())
        return key()["Server-Key"]

    requests = RequestSender(
        settings,
        gate=gate,
        endpoint=Endpoint(settings.endpoint_url, settings.request_timeout_seconds, time.monotonic),
        server_key=key_when_sent,
        monotonic=time.monotonic,
        draw=lambda: 0.5,
        parks=lambda: True,
    )
    assert isinstance(requests.send(this, ONE).outcome, Confirmed)
    assert went[0] >= now + STALL_SECONDS
