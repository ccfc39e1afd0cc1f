"""What a snapshot of the gate says of the endpoint."""

from __future__ import annotations

import pytest

from worker.core.concurrency import Concurrency
from worker.core.flow import Flow, FlowLimits
from worker.core.gate import FIELDS, GateSnapshot, read_snapshot

QUICK = GateSnapshot(0, "ok", 0, 0, None, "", "", 0, 0, throughput=100.0)


def test_an_endpoint_that_takes_more_than_workers_prepare_takes_all() -> None:
    assert QUICK.takes_all(500)
    assert QUICK._replace(throughput=None).takes_all(500), "nothing is known yet"


@pytest.mark.parametrize(
    "slow",
    [
        QUICK._replace(throughput=4.0),
        QUICK._replace(throughput=0.0),
        QUICK._replace(rate=20.0),
        QUICK._replace(state="backing_off"),
        QUICK._replace(state="held"),
    ],
)
def test_one_that_is_slow_or_limits_does_not(slow: GateSnapshot) -> None:
    assert not slow.takes_all(500)


def test_its_throughput_follows_from_the_latency_and_the_limit() -> None:
    flow = Flow(concurrency=Concurrency(limit=8.0, mean=20.0))
    assert flow.throughput(FlowLimits()) == 400.0
    assert Flow().throughput(FlowLimits()) is None
    assert flow.throughput(FlowLimits(in_flight=8)) == 0.0, "a fixed limit learns no latency"


def test_half_as_many_single_rejections_as_hold_the_endpoint_make_it_doubtful() -> None:
    assert not QUICK._replace(single_rejections=9).doubtful
    assert QUICK._replace(single_rejections=10).doubtful


@pytest.mark.parametrize(("moved", "waits"), [(10_000, True), (11_000, True), (11_001, False)])
def test_times_to_wait_for_mean_nothing_if_the_gate_moved_more_than_a_second_from_now(moved: int, waits: bool) -> None:  # noqa: FBT001 - a case
    stored = dict.fromkeys(FIELDS) | {"state": b"backing_off", "not_before": b"70000", "moved": b"%d" % moved}
    assert read_snapshot(stored, now_ms=10_000).wait_ms == (60_000 if waits else 0)


@pytest.mark.parametrize("stored", [b"ok", None])
def test_an_open_gate_backs_off_if_the_endpoint_asked_for_a_long_wait(stored: bytes | None) -> None:
    fields = dict.fromkeys(FIELDS) | {"state": stored, "not_before": b"70000", "moved": b"10000"}
    waits, passed = read_snapshot(fields, now_ms=10_000), read_snapshot(fields, now_ms=70_000)
    assert (waits.state, waits.wait_ms) == ("backing_off", 60_000)
    assert (passed.state, passed.wait_ms) == ("ok", 0)
    short = read_snapshot(fields, now_ms=68_000)
    assert (short.state, short.wait_ms) == ("ok", 2_000), "as a rest of the pace, it closes nothing"
    assert read_snapshot(fields | {"paused": b"1"}, now_ms=10_000).state == "held"
