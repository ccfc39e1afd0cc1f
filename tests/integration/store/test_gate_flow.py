"""The gate's pace and its places in a real Redis: one for the whole fleet, and free again in any case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import wait_until
from worker.core.flow import FlowLimits, Left
from worker.store.gate import Gate

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

LIFE_SECONDS = 30.0


def gates(fleet: Fleet, rate: float = 0.0, in_flight: int = 0) -> tuple[Gate, Gate]:
    """Those of two processes."""
    limits = FlowLimits(rate, in_flight)
    return Gate(fleet.first.namespace, limits), Gate(fleet.worker().namespace, limits)


def test_two_processes_share_one_rate(fleet: Fleet) -> None:
    one, other = gates(fleet, rate=5.0)
    begun, went = time.monotonic(), 0
    while time.monotonic() - begun < 2.0:
        for gate in (one, other):
            place = gate.ask(LIFE_SECONDS)
            assert place.token or place.gate.closed
            if place.token:
                went += 1
                gate.report(0, "confirmed", left=Left(place.token, latency_ms=1.0))
        time.sleep(0.005)
    assert 9 <= went <= 12


def test_two_processes_share_one_limit_of_requests_under_way(fleet: Fleet) -> None:
    one, other = gates(fleet, in_flight=3)
    places = [gate.ask(LIFE_SECONDS) for gate in (one, other, one, other)]
    assert [bool(place.token) for place in places] == [True, True, True, False]
    assert (places[3].gate.in_flight, places[3].gate.in_flight_limit) == (3, 3)
    one.report(0, "confirmed", left=Left(places[0].token, latency_ms=5.0))
    assert other.ask(LIFE_SECONDS).token


@pytest.mark.parametrize("what", ["confirmed", "answered", "single_rejection", "too_large", "unused"])
def test_whatever_becomes_of_a_request_its_place_is_free(fleet: Fleet, what: str) -> None:
    gate, _ = gates(fleet, in_flight=1)
    place = gate.ask(LIFE_SECONDS)
    gate.report(0, what, left=Left(place.token, unused=what == "unused"), limit=1)  # type: ignore[arg-type] # one of them
    assert gate.snapshot().in_flight == 0


def test_the_place_of_a_process_that_died_is_free_after_its_time(fleet: Fleet) -> None:
    gate, other = gates(fleet, in_flight=1)
    assert gate.ask(0.1).token
    assert not other.ask(LIFE_SECONDS).token
    wait_until(lambda: bool(other.ask(LIFE_SECONDS).token), what="its place is free")


def test_a_place_is_given_before_its_time_and_says_when_that_is(fleet: Fleet) -> None:
    gate, other = gates(fleet, rate=20, in_flight=10)
    while True:
        places = [gate.ask(LIFE_SECONDS), other.ask(LIFE_SECONDS), gate.ask(LIFE_SECONDS), other.ask(LIFE_SECONDS)]
        if places[-1].gate.now_ms - places[0].gate.now_ms < 45:
            break
        fleet.client.delete(fleet.keys.gate)  # the machine stood still, so that the fourth has its time, too
    assert [bool(each.token) for each in places] == [True, True, True, False]
    assert places[0].start_ms == 0
    first, *others = [each.gate.now_ms + each.start_ms for each in places[:3]]
    assert [each - first for each in others] == pytest.approx([50, 100], abs=2)
    assert [each.next_ms - each.start_ms for each in places[:3]] == [50, 50, 50]


def test_the_429s_of_one_generation_lower_the_rate_once_and_close_nothing(fleet: Fleet) -> None:
    gate, _ = gates(fleet)
    for _ in range(20):
        place = gate.ask(LIFE_SECONDS)
        gate.report(0, "confirmed", left=Left(place.token, latency_ms=1.0))
    under_way = [gate.ask(LIFE_SECONDS) for _ in range(3)]
    for place in under_way:
        gate.report(0, "limited", delay_seconds=60, left=Left(wait_ms=100))
        gate.report(0, "confirmed", left=Left(place.token, latency_ms=1.0))  # it was let out before
    snapshot = gate.snapshot()
    assert (snapshot.state, snapshot.generation) == ("ok", 1)
    assert snapshot.rate == pytest.approx(0.96 * 23)  # three had a place as the first 429 came, and were let through


def test_a_429_with_nothing_confirmed_before_it_is_an_outage(fleet: Fleet) -> None:
    gate, _ = gates(fleet)
    assert gate.report(0, "limited", delay_seconds=60, error="HTTP 429", left=Left(wait_ms=1000)) == "backing_off"
    assert (gate.snapshot().attempts, gate.snapshot().rate) == (1, None)


def test_a_stated_rate_is_the_fleets(fleet: Fleet) -> None:
    gate, other = gates(fleet)
    place = gate.ask(LIFE_SECONDS)
    gate.report(0, "confirmed", left=Left(place.token, latency_ms=1.0, stated=2.5))
    assert other.snapshot().rate == 2.5


def test_a_moved_gate_lets_out_no_request_that_was_begun_before(fleet: Fleet) -> None:
    gate, _ = gates(fleet)
    place = gate.ask(LIFE_SECONDS)
    gate.report(0, "retry")
    assert gate.enter("a probe", 10.0).probe
    gate.report(1, "confirmed")
    assert not gate.enter(place.token, 10.0, place.gate.generation).go


def test_places_that_were_taken_before_the_rate_was_learned_shorten_no_rest(fleet: Fleet) -> None:
    gate, _ = gates(fleet)
    first, *others = [gate.ask(LIFE_SECONDS) for _ in range(4)]
    gate.report(0, "confirmed", left=Left(first.token, latency_ms=1.0))
    gate.report(0, "limited", left=Left(wait_ms=1_500))
    for place in others:
        gate.report(0, "unused", left=Left(place.token, unused=True))
    assert 1_300 <= gate.snapshot().wait_ms <= 2_000  # a place is given at most 0.1 s before its time
