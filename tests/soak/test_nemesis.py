from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from tests.soak.nemesis import KINDS, plan

if TYPE_CHECKING:
    from tests.soak.homes import On


def test_a_seed_decides_every_step() -> None:
    assert list(islice(plan(7), 200)) == list(islice(plan(7), 200))
    assert list(islice(plan(7), 5)) != list(islice(plan(8), 5))


@pytest.mark.parametrize("on", ["redis", "sentinel", "cluster"])
def test_every_kind_strikes_once_before_any_strikes_again(on: On) -> None:
    kinds = [kind.name for kind in KINDS if on in kind.on]
    struck = [fault.kind.name for step in islice(plan(1, on=on), 500) for fault in step.faults]
    for first in range(0, len(struck) - len(kinds), len(kinds)):
        assert Counter(struck[first : first + len(kinds)]) == Counter(kinds)


def test_two_that_strike_together_are_of_different_sorts_and_last_as_long_as_their_kinds_may() -> None:
    steps = list(islice(plan(3), 500))
    assert any(len(step.faults) == 2 for step in steps)
    for step in steps:
        assert len({fault.kind.sort for fault in step.faults}) == len(step.faults)
        assert all(fault.kind.shortest <= fault.seconds <= fault.kind.longest for fault in step.faults)


def test_only_what_is_asked_for_strikes() -> None:
    steps = islice(plan(1, ["redis killed", "worker killed"]), 50)
    assert {fault.kind.name for step in steps for fault in step.faults} == {"redis killed", "worker killed"}
