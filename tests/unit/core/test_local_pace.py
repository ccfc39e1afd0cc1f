"""The pace of one process while nobody tells it the fleet's: rate, requests under way, failures."""

from __future__ import annotations

from worker.core.gate import SINGLE_REJECTIONS_MAX
from worker.core.local_pace import ASK_AGAIN_SECONDS, LocalPace

FAR = 1e9


def test_without_limits_all_go() -> None:
    pace = LocalPace()
    assert [pace.ask(str(n), 5.0, FAR, None, None) for n in range(100)] == [0.0] * 100


def test_a_rate_spaces_requests() -> None:
    pace = LocalPace()
    assert pace.ask("a", 5.0, FAR, 20.0, None) == 0.0
    assert round(pace.ask("b", 5.01, FAR, 20.0, None), 6) == 0.04
    assert pace.ask("b", 5.05, FAR, 20.0, None) == 0.0


def test_a_place_is_free_when_its_request_has_ended_or_its_time_is_over() -> None:
    pace = LocalPace()
    assert pace.ask("a", 5.0, 6.0, None, 2) == pace.ask("b", 5.0, 7.0, None, 2) == 0.0
    assert pace.ask("c", 5.0, FAR, None, 2) == ASK_AGAIN_SECONDS
    pace.end("b")
    assert pace.ask("c", 5.0, FAR, None, 2) == 0.0
    assert pace.ask("d", 5.9, FAR, None, 2) == ASK_AGAIN_SECONDS
    assert pace.ask("d", 6.0, FAR, None, 2) == 0.0


def test_after_a_failure_none_goes_for_as_long_and_then_one_at_a_time() -> None:
    pace = LocalPace()
    assert pace.ask("a", 5.0, FAR, None, None) == pace.ask("b", 5.0, FAR, None, None) == 0.0
    pace.end("a")
    pace.fail(7.0)
    assert (pace.closed(6.9), pace.closed(7.0), pace.attempts) == (True, False, 1)
    assert pace.ask("c", 6.0, FAR, None, None) == 1.0
    assert pace.ask("c", 7.0, FAR, None, None) == ASK_AGAIN_SECONDS  # the other one is still under way
    pace.end("b")
    assert pace.ask("c", 7.0, FAR, None, None) == 0.0
    assert pace.ask("d", 7.0, FAR, None, None) == ASK_AGAIN_SECONDS
    pace.fail(6.0)
    assert pace.attempts == 2
    pace.succeed()
    assert pace.ask("d", 7.0, FAR, None, None) == 0.0


def test_records_that_are_rejected_one_after_another_hold_the_endpoint_until_one_is_confirmed() -> None:
    pace = LocalPace()
    assert not any(pace.reject(7.0, alone=True) for _ in range(SINGLE_REJECTIONS_MAX - 1))
    assert not pace.reject(7.0, alone=False)
    assert not pace.closed(5.0)
    assert pace.reject(7.0, alone=True)
    assert (pace.closed(6.9), pace.closed(7.0)) == (True, False)
    assert pace.reject(8.0, alone=False)
    assert pace.closed(7.9)
    pace.succeed()
    assert not pace.reject(9.0, alone=True)
