"""One request: when it began and when it is over for us, by Redis' clock, whatever the process is held up by."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.partition_zero import partitions_of
from tests.support.sync_request import key
from worker.core.batch import Batch
from worker.core.outcome import Answer, Confirmed
from worker.core.round import Round
from worker.delivery.endpoint import Endpoint
from worker.delivery.request import RequestSender
from worker.store.scripts import run_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fleet import Fleet
    from worker.core.gate import Permit

SUCCESS = b'{"status":200,"error":{"code":"","message":"","field":""},"data":{"countInserted":1,"countDeleted":0}}'
RESTS = [
    {"RateLimit": '"d";r=0;t=%d', "RateLimit-Policy": '"d";q=100;w=60'},
    {"RateLimit": "limit=100, remaining=0, reset=%d"},
    {"RateLimit-Limit": "100", "RateLimit-Remaining": "0", "RateLimit-Reset": "%d"},
]
"""A rest of so many seconds, in each form of the drafts."""

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
    answered = time.monotonic()
    (lease,) = partitions_of(fleet, fleet.first.namespace.client).claim([fleet.partition("1")])
    this = Round(place.gate, looked, answered, [lease], 500, place.token)
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
    # It is early by no more than Redis' answer to the gate's question took, and what two clocks round off.
    early_ms = (answered - looked) * 1000 + 2
    assert begins_ms - early_ms <= sent.begun_ms <= fleet.now_ms()
    # What it does at the endpoint without an answer may come as long after this as CONTACT_SYNC_LATE_SECONDS says.
    assert sent.deadline_ms >= sent.begun_ms + STALL_SECONDS * 1000 + timeout_ms


def test_by_redis_clock_a_moment_lies_between_its_two_bounds(fleet: Fleet) -> None:
    gate = fleet.first.gate
    gate.ask(15.0)  # loads the script, which takes longer than asking does
    looked = time.monotonic()
    seen = gate.ask(15.0).gate
    answered = time.monotonic()
    slow = 0.2  # so long the answer of Redis was on its way, after or before the clock was read
    this = Round(seen, looked - slow, answered + slow, [], 500)
    before, before_ms = time.monotonic(), fleet.now_ms()
    after_ms, after = fleet.now_ms(), time.monotonic()
    assert this.at_least_ms(before) <= before_ms - slow * 1000 + 2
    assert this.at_ms(after) >= after_ms + slow * 1000 - 2


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


@dataclass
class Says:
    """An endpoint that gives one answer."""

    answer: Answer

    def send(self, body: bytes, server_key: str, deadline_monotonic: float | None = None) -> Answer:
        _ = body, server_key, deadline_monotonic
        return self.answer

    def distrust(self) -> None: ...


def answered(fleet: Fleet, answer: Answer, **overrides: Any) -> None:
    """One request past the gate, and its report."""
    fleet.change(**{"backoff_base_seconds": 0.001, "retry_after_max_seconds": 100.0} | overrides)
    gate = fleet.first.gate
    requests = RequestSender(
        fleet.settings(),
        gate=gate,
        endpoint=Says(answer),
        server_key=lambda _generation: key()["Server-Key"],
        monotonic=time.monotonic,
        draw=lambda: 0.5,
        parks=lambda: True,
    )
    place, now = gate.ask(15.0), time.monotonic()
    sent = requests.send(Round(place.gate, now, now, [], 500, place.token), ONE)
    assert sent.posted
    for call in requests.leaving(sent):
        run_one(fleet.client, call)
    requests.report(sent, absorbed=True)


def rest_of(seconds: int, form: dict[str, str]) -> dict[str, str]:
    return {name: value % seconds if "%" in value else value for name, value in form.items()}


@pytest.mark.parametrize("form", RESTS)
@pytest.mark.parametrize("status", [429, 503, 401])
@pytest.mark.parametrize("rate", ["auto", "off"])
def test_a_rest_that_a_failure_states_is_a_floor_as_retry_after_is(
    fleet: Fleet, form: dict[str, str], status: int, rate: str
) -> None:
    answered(fleet, Answer(200, None, SUCCESS), rate=rate)
    answered(fleet, Answer(status, None, b"", rate_headers=rest_of(40, form)), rate=rate)
    not_before, moved = fleet.client.hmget(fleet.keys.gate, ["not_before", "moved"])
    assert fleet.first.gate.snapshot().state != "ok"
    assert int(not_before or 0) - int(moved or 0) == 40_000


@pytest.mark.parametrize(("retry_after", "waits_ms"), [("20", 40_000), ("60", 60_000), ("86400", 100_000)])
def test_of_a_rest_and_a_retry_after_the_longer_one_counts(fleet: Fleet, retry_after: str, waits_ms: int) -> None:
    answered(fleet, Answer(429, retry_after, b"", rate_headers=rest_of(40, RESTS[0])))
    not_before, moved = fleet.client.hmget(fleet.keys.gate, ["not_before", "moved"])
    assert int(not_before or 0) - int(moved or 0) == waits_ms


@pytest.mark.parametrize("form", RESTS)
def test_a_short_rest_that_a_429_states_lets_the_pace_rest(fleet: Fleet, form: dict[str, str]) -> None:
    answered(fleet, Answer(200, None, SUCCESS))
    answered(fleet, Answer(429, None, b"", rate_headers=rest_of(2, form)))
    pace, seen = fleet.client.hmget(fleet.keys.gate, ["pace", "seen"])
    assert fleet.first.gate.snapshot().state == "ok"
    assert float((pace or b"").split()[1]) - float(seen or 0) >= 2_000
