"""That what the simulation is there for does happen in it: a world without faults would find none."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Final

import pytest

from tests.simulation.endpoint_model import CLIMATES
from tests.simulation.run import chance_of
from tests.simulation.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

WORLDS: Final = 200
RARELY: Final = 2_000
"""Within so many worlds everything has happened, what is rare too."""

HAPPENS: Final = {
    "a process is killed": r"killed: w",
    "an actor stands still": r"stands still",
    "Redis cannot be reached": r"cannot reach Redis",
    "a reply is lost after its effect": r"loses the reply",
    "a lease is lost before its time": r"the lease .* is lost",
    "the clock jumps ahead": r"clock jumps by \d",
    "the clock jumps back": r"clock jumps by -\d",
    "a worker settles that has lost its lease": r" settle .*-> \[b'fenced'\]",
    "a lease is released": r" release .*-> 1$",
    "a worker releases a lease that it has lost": r" release .*-> 0$",
    "an expired lease is taken over": r" claim .*, [1-9]\d{12}, [1-9]\d{12}(, \d+){12}\]$",
    "a request that may act late is marked": r" mark_late ",
    "what one did late is repaired": r"'repairs', \d",
    "one request at a time probes": r"-> \[b'probe'",
    "the gate is shut": r"-> \[b'closed'",
    "the endpoint is held": r" gate_report .*-> b'held'",
    "a request is too large": r"'too_large'",
    "a record is refused alone": r"'single_rejection'",
    "an entry is malformed": r"accepts .*'remove'",
    "a letter is redriven": r"-> \[b'redriven'",
    "a letter is redriven days later": r"^ *\d{6,}\..*-> \[b'redriven'",
    "a redrive comes too late": r"-> \[b'outdated'\]",
    "the endpoint refuses a record": r": a record refused$",
    "a node of a cluster is away": r"node:\d+ is away",
    "a node hangs": r"node:\d+ hangs",
    "a node cannot be reached": r"cannot reach node:",
    "a node's replies are lost": r"loses replies of node:",
    "a slot has moved": r"says MovedError",
    "keys are asked for where their slot moves to": r"says AskError",
    "a slot moves in the middle of a settle": r"says TryAgainError to settle",
    "a slot arrives": r"the slot of .* has arrived",
    "a replica takes over": r"fails over, and loses nothing",
    "a failover loses a tail": r"fails over, and loses its tail",
    "a loss is noticed": r"raises an alarm: redis_lost_changes",
    "somebody is erased": r"erased: .*dead_letters=0, busy_partitions=0\)",
    "an erasure comes to no end at once": r"erased: .*ended_ms=None",
    "an erasure is killed": r"killed: erase",
    "an upsert of somebody who was erased is refused": r"'suppressed', [1-9]",
}
WEATHERS: Final = sorted({weather.name for climate in CLIMATES for weather in climate})


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [line for seed in range(WORLDS) for line in simulate(chance_of(seed), told=True).story]


def any_line(stories: list[str], matches: Callable[[str], object]) -> bool:
    """Whether a line of the worlds that every test has, or of further ones, matches."""
    further = (line for seed in range(WORLDS, RARELY) for line in simulate(chance_of(seed), told=True).story)
    return any(matches(line) for line in chain(stories, further))


@pytest.mark.parametrize("what", HAPPENS)
def test_it_happens(stories: list[str], what: str) -> None:
    assert any_line(stories, re.compile(HAPPENS[what]).search)


@pytest.mark.parametrize("weather", WEATHERS)
def test_the_endpoint_answers_in_every_way(stories: list[str], weather: str) -> None:
    assert any_line(stories, lambda line: line.endswith(f": {weather}"))
