"""The gate's two scripts: who may send, and how an outcome moves the gate (DESIGN: generation, attempts, hold)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from producers.nodes.trip import NodeAwayError
from tests.support.waiting import wait_until
from worker.core.flow import Left
from worker.core.gate import LIMIT_DOUBLES_SECONDS, SINGLE_REJECTIONS_MAX
from worker.store.gate import Gate

if TYPE_CHECKING:
    from tests.support.fleet import Fleet
    from worker.core.gate import What


@pytest.fixture
def gate(fleet: Fleet) -> Gate:
    return fleet.first.gate


def closed_by(gate: Gate, what: What, delay_seconds: float = 60.0) -> None:
    gate.report(gate.snapshot().generation, what, delay_seconds=delay_seconds, reason="a reason", error="HTTP 503")


def test_a_gate_that_nobody_has_moved_is_open_to_all(gate: Gate) -> None:
    assert [gate.enter(token, 10.0)[:2] for token in "ab"] == [(True, False), (True, False)]
    assert (gate.snapshot().state, gate.snapshot().closed, gate.snapshot().attempts) == ("ok", False, 0)


@pytest.mark.parametrize(("what", "state"), [("retry", "backing_off"), ("hold", "held")])
def test_a_closed_gate_lets_nobody_through_until_its_wait_is_over(gate: Gate, what: What, state: str) -> None:
    closed_by(gate, what)
    snapshot = gate.snapshot()
    assert (snapshot.state, snapshot.closed, snapshot.error) == (state, True, "HTTP 503")
    assert 59_000 < snapshot.wait_ms <= 60_000
    assert not gate.enter("a", 10.0).go


def test_after_the_wait_one_probe_goes_out_and_the_others_wait_for_it(gate: Gate) -> None:
    closed_by(gate, "retry", delay_seconds=0.0)
    assert not gate.snapshot().closed
    assert gate.enter("a", 10.0)[:2] == (True, True)
    assert gate.enter("b", 10.0).go is False
    assert gate.snapshot().closed


def test_the_right_to_probe_ends_by_itself(gate: Gate) -> None:
    closed_by(gate, "retry", delay_seconds=0.0)
    assert gate.enter("a worker that dies now", 0.05).probe
    wait_until(lambda: gate.enter("b", 10.0).probe, what="another may probe")


def test_a_probe_that_was_not_sent_is_left_to_another(gate: Gate) -> None:
    closed_by(gate, "retry", delay_seconds=0.0)
    assert gate.enter("a", 10.0).probe
    gate.report(0, "unused", left=Left("b", unused=True))
    assert not gate.enter("c", 10.0).go, "it is still that of the first one"
    gate.report(0, "unused", left=Left("a", unused=True))
    assert gate.enter("c", 10.0).probe


@pytest.mark.parametrize("what", ["retry", "hold"])
def test_each_close_is_a_generation_of_its_own(gate: Gate, what: What) -> None:
    before = gate.snapshot().generation
    for later in range(1, 4):
        closed_by(gate, what, delay_seconds=0.0)
        assert gate.snapshot().generation == before + later


def test_every_failed_probe_is_one_attempt_more(gate: Gate) -> None:
    for attempt in range(1, 4):
        closed_by(gate, "retry", delay_seconds=0.0)
        assert gate.snapshot().attempts == attempt
        assert gate.enter("a", 10.0).attempts == attempt


def test_of_outcomes_of_one_generation_the_first_alone_counts(gate: Gate) -> None:
    generation = gate.enter("a", 10.0).generation
    for _ in range(8):
        gate.report(generation, "retry", delay_seconds=60, error="HTTP 503")
    assert gate.snapshot().attempts == 1


def test_a_late_success_of_an_earlier_generation_reopens_nothing(gate: Gate) -> None:
    generation = gate.enter("a", 10.0).generation
    closed_by(gate, "retry")
    assert gate.report(generation, "confirmed") == "backing_off"
    assert gate.snapshot().closed


def test_a_late_failure_of_an_earlier_generation_closes_nothing(gate: Gate) -> None:
    closed_by(gate, "retry", delay_seconds=0.0)
    earlier = gate.snapshot().generation
    gate.report(gate.enter("a", 10.0).generation, "confirmed")
    assert gate.report(earlier, "retry", delay_seconds=60, error="HTTP 503") == "ok"


def asked_to_wait(gate: Gate, generation: int, what: What, seconds: int) -> None:
    """The report of a failure whose answer has a Retry-After."""
    gate.report(generation, what, delay_seconds=seconds, error="HTTP 503", left=Left(wait_ms=seconds * 1000))


def not_before_ms(fleet: Fleet) -> int:
    return int(fleet.client.hget(fleet.keys.gate, "not_before") or 0)


def let_it_pass(fleet: Fleet) -> None:
    """As if the endpoint had asked to wait until now."""
    fleet.client.hset(fleet.keys.gate, "not_before", fleet.now_ms())


@pytest.mark.parametrize("what", ["retry", "limited", "hold"])
@pytest.mark.parametrize("later", ["retry", "limited", "hold"])
def test_a_late_failure_moves_the_wait_that_the_endpoint_asked_for_and_nothing_else(
    fleet: Fleet, gate: Gate, what: What, later: What
) -> None:
    generation = gate.enter("a", 10.0).generation
    closed_by(gate, what, delay_seconds=1.0)
    before, at_ms = fleet.client.hgetall(fleet.keys.gate), fleet.now_ms()
    asked_to_wait(gate, generation, later, 60)
    after = fleet.client.hgetall(fleet.keys.gate)
    assert not_before_ms(fleet) >= at_ms + 60_000
    moves = {b"not_before", b"moved", b"seen"}
    assert {name for name in before | after if before.get(name) != after.get(name)} <= moves


def test_a_late_failure_shortens_no_wait(fleet: Fleet, gate: Gate) -> None:
    generation = gate.enter("a", 10.0).generation
    asked_to_wait(gate, generation, "retry", 60)
    before_ms = not_before_ms(fleet)
    asked_to_wait(gate, generation, "retry", 1)
    assert not_before_ms(fleet) == before_ms


@pytest.mark.parametrize("what", ["confirmed", "answered", "single_rejection", "too_large"])
def test_a_late_answer_that_is_no_failure_asks_for_no_wait(gate: Gate, what: What) -> None:
    generation = gate.enter("a", 10.0).generation
    closed_by(gate, "retry", delay_seconds=0.0)
    asked_to_wait(gate, generation, what, 60)
    assert gate.enter("a", 10.0).probe


def test_a_wait_that_a_late_429_asks_for_holds_in_an_open_gate_too(fleet: Fleet, gate: Gate) -> None:
    gate.report(0, "confirmed", left=Left(gate.ask(10.0).token, latency_ms=1.0))
    place = gate.ask(10.0)
    assert gate.report(0, "limited", left=Left(wait_ms=1)) == "ok", "it lowers the rate alone"
    generation = gate.snapshot().generation
    assert gate.enter(place.token, 10.0, generation).go
    asked_to_wait(gate, 0, "limited", 60)
    snapshot = gate.snapshot()
    assert (snapshot.state, snapshot.closed) == ("backing_off", True)
    assert not gate.enter(place.token, 10.0, generation).go, "it has a place, and must not go out all the same"
    asked = gate.ask(10.0)
    assert (asked.token, asked.gate.wait_ms > 1) == ("", True), "nobody asks again before"
    let_it_pass(fleet)
    assert gate.enter(place.token, 10.0, generation)[:2] == (True, False)
    assert (gate.snapshot().state, gate.snapshot().generation) == ("ok", generation)


@pytest.mark.parametrize("what", ["confirmed", "answered", "retry", "hold"])
def test_no_outcome_of_a_probe_ends_a_wait_that_a_late_failure_asks_for(fleet: Fleet, gate: Gate, what: What) -> None:
    generation = gate.enter("a", 10.0).generation
    closed_by(gate, "retry", delay_seconds=0.0)
    probe = gate.enter("a", 10.0)
    asked_to_wait(gate, generation, "retry", 60)
    gate.report(probe.generation, what)
    assert (gate.snapshot().closed, gate.enter("b", 10.0).go, gate.ask(10.0).token) == (True, False, "")
    let_it_pass(fleet)
    assert gate.enter("b", 10.0).go


def test_while_its_node_is_away_a_gate_that_was_open_is_so_after_the_wait_that_was_asked_for(
    fleet: Fleet, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    seen = Gate(fleet.first.namespace, monotonic=lambda: now)
    generation = gate.enter("a", 10.0).generation
    closed_by(gate, "retry", delay_seconds=0.0)
    probe = gate.enter("a", 10.0)
    asked_to_wait(gate, generation, "retry", 60)
    gate.report(probe.generation, "confirmed")
    seen.snapshot()

    def away(*_: object) -> None:
        raise NodeAwayError("node:1", written=False)

    monkeypatch.setattr(seen, "_run", away)
    with pytest.raises(NodeAwayError):
        seen.ask(10.0)
    now += 61.0
    place = seen.ask(10.0)
    assert (bool(place.token), place.gate.state) == (True, "ok")


def test_a_wait_that_was_asked_for_is_over_where_the_clock_went_back(fleet: Fleet, gate: Gate) -> None:
    generation = gate.enter("a", 10.0).generation
    asked_to_wait(gate, generation, "retry", 60)
    for field in ("moved", "not_before"):
        fleet.client.hincrby(fleet.keys.gate, field, 3_600_000)  # as an hour later; then the clock went back
    asked_to_wait(gate, generation, "retry", 5)
    assert not_before_ms(fleet) - int(fleet.client.hget(fleet.keys.gate, "moved") or 0) == 5_000


@pytest.mark.parametrize("what", ["confirmed", "answered", "single_rejection", "too_large"])
def test_a_probe_that_the_endpoint_answers_as_it_should_opens_the_gate(gate: Gate, what: What) -> None:
    closed_by(gate, "hold", delay_seconds=0.0)
    assert gate.report(gate.enter("a", 10.0).generation, what, limit=5) == "ok"
    snapshot = gate.snapshot()
    assert (snapshot.state, snapshot.attempts, snapshot.reason, snapshot.closed) == ("ok", 0, "", False)


def test_a_hold_burns_no_attempt(gate: Gate) -> None:
    closed_by(gate, "retry", delay_seconds=0.0)
    closed_by(gate, "hold", delay_seconds=0.0)
    assert (gate.snapshot().attempts, gate.snapshot().reason) == (1, "a reason")


def test_single_rejections_hold_the_endpoint_at_the_largest_number_in_a_row(gate: Gate) -> None:
    for _ in range(SINGLE_REJECTIONS_MAX - 1):
        assert gate.report(gate.snapshot().generation, "single_rejection", error="code 40002") == "ok"
    assert gate.enter("a", 10.0).single_rejections == SINGLE_REJECTIONS_MAX - 1
    generation = gate.snapshot().generation
    assert gate.report(generation, "single_rejection", delay_seconds=60, error="code 40002") == "held"
    assert gate.snapshot().reason == "every_record_rejected"


def test_a_confirmation_begins_the_count_of_single_rejections_anew(gate: Gate) -> None:
    for _ in range(SINGLE_REJECTIONS_MAX - 1):
        gate.report(gate.snapshot().generation, "single_rejection")
    gate.report(gate.snapshot().generation, "confirmed")
    assert gate.report(gate.snapshot().generation, "single_rejection") == "ok"


def test_another_rejected_batch_does_not_open_an_endpoint_that_refuses_everything(gate: Gate) -> None:
    for _ in range(SINGLE_REJECTIONS_MAX):
        gate.report(gate.snapshot().generation, "single_rejection", delay_seconds=0)
    assert gate.report(gate.enter("a", 10.0).generation, "answered", delay_seconds=0) == "held"
    assert gate.report(gate.enter("a", 10.0).generation, "single_rejection", delay_seconds=0) == "held"
    assert gate.report(gate.enter("a", 10.0).generation, "confirmed") == "ok"


@pytest.mark.parametrize(
    ("age_seconds", "limit"),
    [
        (0, 25),
        (LIMIT_DOUBLES_SECONDS - 1, 25),
        (LIMIT_DOUBLES_SECONDS + 1, 50),
        (3 * LIMIT_DOUBLES_SECONDS + 1, 200),
        (1_000_000, None),
        (-1_000, None),
    ],
)
def test_a_size_that_was_too_large_doubles_again_by_and_by(
    fleet: Fleet, gate: Gate, age_seconds: int, limit: int | None
) -> None:
    gate.report(0, "too_large", limit=25)
    assert (gate.snapshot().limit, gate.snapshot().state) == (25, "ok")
    fleet.client.hincrby(fleet.keys.gate, "limit_at", -age_seconds * 1000)
    assert gate.snapshot().limit == limit


def test_a_small_size_outlives_a_fault_of_the_endpoint_by_little(fleet: Fleet) -> None:
    """Or the fleet would go on with tiny requests for as long as it remembers."""
    fleet.change(batch_size=64)
    fleet.stand_in.settings(largest_batch=2)
    fleet.append_many(("1", str(contact), "upsert", None) for contact in range(500))
    fleet.flush_once()
    fleet.stand_in.settings(largest_batch=1000)
    fleet.client.hincrby(fleet.keys.gate, "limit_at", -6 * LIMIT_DOUBLES_SECONDS * 1000)
    before = fleet.stand_in.counts()["requests"]
    fleet.deliver()
    assert fleet.stand_in.counts()["requests"] - before <= 8


def test_a_wait_is_over_where_the_clock_went_back_behind_its_begin(fleet: Fleet, gate: Gate) -> None:
    closed_by(gate, "retry", delay_seconds=30.0)
    hour_ms = 3_600_000
    for field in ("moved", "not_before"):
        fleet.client.hincrby(fleet.keys.gate, field, hour_ms)  # as an hour later; then the clock went back
    assert (gate.snapshot().state, gate.snapshot().wait_ms) == ("backing_off", 0)
    assert gate.enter("a", 10.0).probe
    assert not gate.enter("b", 10.0).go
    assert 0 < gate.snapshot().wait_ms <= 10_000  # from here on by the new time


def test_since_says_when_the_state_changed_and_not_when_it_was_confirmed(fleet: Fleet, gate: Gate) -> None:
    closed_by(gate, "retry", delay_seconds=0.0)
    since = fleet.client.hget(fleet.keys.gate, "since")
    first_ms = fleet.now_ms()
    wait_until(lambda: fleet.now_ms() > first_ms, what="the clock moves")
    closed_by(gate, "retry", delay_seconds=0.0)
    assert fleet.client.hget(fleet.keys.gate, "since") == since
    closed_by(gate, "hold", delay_seconds=0.0)
    assert fleet.client.hget(fleet.keys.gate, "since") != since
