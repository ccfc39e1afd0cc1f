"""The flow in Lua beside the flow in Python: the same sequences on a clock of their own, the same states exactly."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.core.flow import Flow, FlowLimits, Left, read_flow, write_flow
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis

    from worker.local.redis import EmbeddedRedis

CLOCK_BACK_MS: Final = 1_000
TOKENS: Final = tuple(8 * letter for letter in "abcdefgh")

# What the gate's scripts do with the flow, at times that are handed in.
_STEPS: Final = """
local fields, at, out = { false, false, false, false }, 1, {}
while ARGV[at] do
  local op, now, most, places = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local token, value = ARGV[at + 4], tonumber(ARGV[at + 5])
  at = at + 6
  local pace, flight, requests = known_flow(fields[1], fields[2], fields[3], fields[4], now, 1000)
  local said, under_way, there = 0, #requests / ENTRY, false
  if op == 'ask' then
    said = -1
    if flight_ask(flight, now, under_way) then
      local denied_ms, start_ms = pace_ask(pace, now, most)
      said = denied_ms > 0 and -2 - denied_ms or start_ms
      if denied_ms == 0 then
        requests = requests .. token .. string.format('%013.0f', now + value)
      end
    end
  elseif op == 'limited' then
    said = pace_lower(pace, now, most, value, flight.mean) and 1 or 0
  elseif op == 'state' then
    pace_state(pace, now, value)
  elseif op == 'rest' then
    pace_rest(pace, now, value, most)
  else
    requests, there = without(requests, token)
    if there and op == 'succeed' then
      pace_confirm(pace, now, most, value)
      flight_succeed(flight, now, value, under_way)
    elseif there and op == 'fail' then
      flight_fail(flight, now)
    elseif there then
      pace_give_back(pace, most)
    end
  end
  fields = { written(pace, PACE), written(flight, FLIGHT), requests, number(now) }
  out[#out + 1] = { number(said), fields[1], fields[2], fields[3] }
end
return out
"""


class Step(NamedTuple):
    """One step: what happens, after how many ms, under which most, to which request, and a duration or a rate."""

    op: str
    after_ms: int
    most: float
    token: str
    value: float


def in_lua(server: redis.Redis, steps: Sequence[Step]) -> list[list[bytes]]:
    prelude = files("worker.store").joinpath("lua", "pace.lua").read_text(encoding="utf-8")
    args: list[Any] = []
    now = 1_000_000
    for step in steps:
        now += step.after_ms
        args += [step.op, now, step.most, 0, step.token, f"{_value(step):.17g}"]
    found: Any = server.eval(prelude + _STEPS, 0, *args)
    return list(found)


def in_python(steps: Sequence[Step]) -> list[list[bytes]]:
    stored: dict[str, bytes | None] = {"pace": None, "flight": None, "requests": None, "seen": None}
    found, now = [], 1_000_000
    for step in steps:
        now += step.after_ms
        flow = read_flow(stored, now, CLOCK_BACK_MS)
        said = _done(flow, step, now)
        kept = {name: value.encode() for name, value in write_flow(flow).items()}
        stored = {**kept, "seen": b"%d" % now}
        found.append([f"{said:.17g}".encode(), kept["pace"], kept["flight"], kept["requests"]])
    return found


def _value(step: Step) -> float:
    return float(int(step.value)) if step.op == "ask" else step.value  # a request is over at a whole millisecond


def _done(flow: Flow, step: Step, now: int) -> float:  # noqa: PLR0911 - one clause a step
    under_way = flow.under_way()
    match step.op:
        case "ask":
            if not flow.concurrency.ask(now, under_way):
                return -1
            slot = flow.pace.ask(now, step.most)
            if slot.denied_ms:
                return -2 - slot.denied_ms
            flow.begin(step.token, now + int(_value(step)))
            return slot.start_ms
        case "limited":
            return float(flow.pace.lower(now, step.most, step.value, flow.concurrency.mean))
        case "state":
            flow.pace.state(now, step.value)
            return 0
        case "rest":
            flow.pace.rest(now, step.most, step.value)
            return 0
        case "succeed":
            left = Left(step.token, latency_ms=step.value)
        case "fail":
            left = Left(step.token, overloaded=True)
        case _:
            left = Left(step.token, unused=True)
    flow.leave(now, FlowLimits(step.most), left, limited=False, open_and_current=True)
    return 0


TIMES = st.sampled_from([0, 1, 3, 17, 40, 50, 60, 200, 999, 1000, 1001, 2500, 61_000, -500, -1_001, -3_600_000])
STEPS = st.builds(
    Step,
    st.sampled_from(["ask"] * 6 + ["succeed"] * 6 + ["fail", "unused", "limited", "limited", "state", "rest"]),
    TIMES,
    st.sampled_from([0.0, 0.0, 0.0, 20.0, 3.7, -1.0]),
    st.sampled_from(TOKENS),
    st.sampled_from([0.5, 5.0, 20.25, 33.3, 100.0, 250.0, 1_000.0, 2_500.0, 15_000.0]),
)


@pytest.fixture(scope="module")
def server(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = connect(redis_server.url, timeout_seconds=10)
    yield client
    client.close()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=120))
def test_lua_and_python_keep_the_same_flow(server: redis.Redis, steps: list[Step]) -> None:
    assert in_lua(server, steps) == in_python(steps)


def test_they_agree_on_minutes_at_an_endpoint_that_grows_slow_and_limits(server: redis.Redis) -> None:
    """A long and plain life reaches what short random ones do not: the ramp, the knee, trials, holds and raises."""
    steps, under_way = [], 0
    for i in range(6_000):
        token = TOKENS[i % 8]
        steps.append(Step("ask", 7, 0.0, token, 15_000.0))
        under_way = min(under_way + 1, 8)
        latency = 70.0 if under_way > 6 and i % 900 > 450 else 30.0
        steps.append(Step("succeed", 5, 0.0, TOKENS[(i + 3) % 8], latency))
        if i % 700 == 699:
            steps.append(Step("limited", 0, 0.0, token, 1_000.0))
    assert in_lua(server, steps) == in_python(steps)


@pytest.mark.parametrize("rate", [7.0, 20.0, 33.3])
@pytest.mark.parametrize("bucket", [4, 20, 60])
@pytest.mark.parametrize("wait_ms", [0.0, 1_000.0, 3_000.0])
def test_they_agree_on_what_an_endpoint_allows(server: redis.Redis, rate: float, bucket: int, wait_ms: float) -> None:
    """Estimates follow from what is confirmed between two refusals, which random steps seldom bring about."""
    flow, steps, permits, now = Flow(), list[Step](), float(bucket), 1_000_000

    def take(op: str, after_ms: int, token: str, value: float) -> float:
        nonlocal now, permits
        now += after_ms
        permits = min(bucket, permits + rate * after_ms / 1000)
        steps.append(Step(op, after_ms, 0.0, token, value))
        return _done(flow, steps[-1], now)

    for i in range(2_000):
        token = TOKENS[i % 8]
        if take("ask", 11, token, 15_000.0) < 0:
            continue
        if permits < 1:
            take("limited", 3, token, wait_ms)
            take("unused", 0, token, 0.0)
        else:
            permits -= 1
            take("succeed", 9, token, 9.0)
    assert sum(each.op == "limited" for each in steps) >= 2
    assert in_lua(server, steps) == in_python(steps)


@pytest.mark.parametrize("slower", [2.0, 3.0, 5.0, 12.0])
@pytest.mark.parametrize("quick", [1, 3, 4, 6])
def test_they_agree_on_an_endpoint_that_suffers_from_many_requests(
    server: redis.Redis, quick: int, slower: float
) -> None:
    """The first limits are doubled until the answers show that they are too high."""
    flow, steps, free, under_way, now = Flow(), list[Step](), list(TOKENS), list[str](), 1_000_000
    for _ in range(800):
        while free:
            steps.append(Step("ask", 1, 0.0, free[0], 15_000.0))
            now += 1
            if _done(flow, steps[-1], now) < 0:
                break
            under_way.append(free.pop(0))
        latency = 20.0 if len(under_way) <= quick else 20.0 * slower
        steps.append(Step("succeed", 5, 0.0, under_way[0], latency))
        now += 5
        _done(flow, steps[-1], now)
        free.append(under_way.pop(0))
    assert in_lua(server, steps) == in_python(steps)
