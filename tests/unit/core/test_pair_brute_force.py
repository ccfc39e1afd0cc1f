"""Every history of one pair, as far as that is affordable, through the code that decides.

A history is an order in which things happen: changes are appended (the same one twice too), rounds read whatever
waits by then, requests are confirmed, stay unanswered or are sent by a holder that loses its lease, act late or
never, and time passes. Worlds that are alike are visited once, so that more than thirty million histories fit in a
minute. At each round the record must be the one that the contract names, and the totals must add up; wherever a
history may end, the endpoint must hold what the contract allows.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.pair_oracle import Said
from tests.unit.core.pair_model import START_MS, World, round_of, steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from producers.contract.change import Op
    from worker.core.pair import Readd

Letter = tuple["Op", int | None]

# Before every entry, at the time of the first ones, and ahead of all: what carries no `at` is compared by its entry.
BEFORE, MEANWHILE, AHEAD = START_MS - 5, START_MS, START_MS + 200_000


def letters(*stamps: int | None) -> list[Letter]:
    return [(op, at) for at in stamps for op in ("upsert", "delete")]


EVERY: Final = letters(BEFORE, MEANWHILE, AHEAD, None)


def check_end(world: World, readd: Readd) -> None:
    """Where nothing waits and nothing may act any more, the endpoint holds what was confirmed, and what it should."""
    if not world.quiet or world.told.last is None:
        return
    assert world.endpoint == world.known.confirmed, "what was confirmed is not what the endpoint holds"
    assert world.endpoint in world.told.allows(readd), f"ends as {world.endpoint} after {world.told}"
    for op, at in letters(BEFORE, MEANWHILE, AHEAD):
        if world.told.greatest is not None and at is not None and (at, op == "delete") <= world.told.greatest:
            again = round_of(world.kept._replace(log=(Said(op, at, world.now_ms),)), world.now_ms, readd)
            assert again.op is None, f"{op} at {at} is sent again, redelivered after {world.told}"


class Explorer:
    """Visits each world that can follow once, and counts the histories through it."""

    def __init__(self, alphabet: Sequence[Letter], readd: Readd) -> None:
        self.alphabet = alphabet
        self.readd: Readd = readd
        self.known: dict[World, int] = {}
        self.happened: set[str] = set()

    def histories(self, world: World) -> int:
        count = self.known.get(world, 0)
        if not count:
            check_end(world, self.readd)
            for step, then in steps(world, self.alphabet, self.readd):
                self.happened.add(step)
                count += self._after(step, then)
            assert count or world.quiet, f"work is left, and nothing can happen: {world}"
            self.known[world] = count = max(count, 1)
        return count

    def _after(self, step: str, then: World) -> int:
        try:
            return self.histories(then)
        except AssertionError as error:
            error.add_note(f"after: {step}")  # read from the bottom up they are the history
            raise


SLOW = pytest.mark.slow
MOST = (SLOW, pytest.mark.thorough)


@pytest.fixture(autouse=True)
def _forget_rounds() -> Iterator[None]:
    yield
    round_of.cache_clear()


@pytest.mark.parametrize(
    ("changes", "faults", "alphabet", "readd", "expected"),
    [
        pytest.param(4, 0, EVERY, "resend", 300_000, id="all-splits-of-four", marks=SLOW),
        pytest.param(4, 0, EVERY, "absorb", 300_000, id="all-splits-of-four-absorb", marks=SLOW),
        pytest.param(3, 1, EVERY, "resend", 3_000_000, id="three-and-a-fault", marks=SLOW),
        pytest.param(3, 1, EVERY, "absorb", 3_000_000, id="three-and-a-fault-absorb", marks=MOST),
        pytest.param(2, 2, EVERY, "resend", 3_000_000, id="two-and-two-faults", marks=SLOW),
        pytest.param(4, 1, letters(MEANWHILE, AHEAD), "resend", 1_000_000, id="four-stamped-and-a-fault", marks=MOST),
        pytest.param(4, 1, letters(MEANWHILE, None), "resend", 1_000_000, id="four-mixed-and-a-fault", marks=SLOW),
        pytest.param(5, 0, letters(BEFORE, MEANWHILE), "resend", 10_000, id="all-splits-of-five-stamped"),
        pytest.param(5, 0, letters(BEFORE, None), "resend", 10_000, id="all-splits-of-five-mixed"),
    ],
)
def test_every_history_ends_as_the_contract_says(
    changes: int,
    faults: int,
    alphabet: Sequence[Letter],
    readd: Readd,
    expected: int,
) -> None:
    explorer = Explorer(alphabet, readd)
    count = explorer.histories(World(changes, faults))
    print(f"{count:,} histories over {len(explorer.known):,} worlds")  # noqa: T201 - shown with -s, or where it fails
    assert count > expected, "the model explores less than it did"
    if faults:
        repaired = {"repair upsert confirmed", "repair delete confirmed", "late upsert acts and is marked"}
        assert repaired <= explorer.happened


@pytest.mark.parametrize("readd", ["resend", "absorb"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=SLOW) for n in range(1, 8))])
def test_long_histories_with_many_faults_end_as_the_contract_says(seed: int, readd: Readd) -> None:
    draw = random.Random(seed)
    for _ in range(500):
        world, history = World(left=draw.choice((5, 6, 8)), faults=3), []
        try:
            while then := list(steps(world, [draw.choice(EVERY)], readd)):
                step, world = draw.choice(then)
                history.append(step)
                check_end(world, readd)
        except AssertionError as error:
            error.add_note("\n".join(history))
            raise
        assert world.quiet
