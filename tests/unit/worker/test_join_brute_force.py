"""Every history of one pair that fits: changes, splits into rounds, silence, late acts, lost leases."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.worker.pair_model import START_MS, World, round_of, steps
from tests.unit.worker.pair_oracle import Said

if TYPE_CHECKING:
    from producers.change import Op
    from worker.join import Readd

# Before every entry, between two entries, and ahead of every entry: what carries no `at` is compared by its entry.
STAMPS: Final = (START_MS - 5, START_MS, START_MS + 200_000)
STAMPED: Final[list[tuple[Op, int | None]]] = [(op, at) for op in ("upsert", "delete") for at in STAMPS]
ALPHABET: Final[list[tuple[Op, int | None]]] = [*STAMPED, ("upsert", None), ("delete", None)]


class Explorer:
    """Visits every world that can follow, each once, and counts the histories that lead to an end."""

    def __init__(self, alphabet: list[tuple[Op, int | None]], readd: Readd) -> None:
        self.alphabet = alphabet
        self.readd = readd
        self.seen: dict[World, int] = {}

    def histories(self, world: World) -> int:
        known = self.seen.get(world)
        if known is not None:
            return known
        try:
            check_end(world, self.readd)
            count = 0
            for step, then in steps(world, self.alphabet, self.readd):
                try:
                    count += self.histories(then)
                except AssertionError as error:
                    error.add_note(f"after: {step}")
                    raise
            assert count or world.quiet, f"stuck with work left: {world}"
        except AssertionError:
            raise
        self.seen[world] = count or 1
        return count or 1


def check_end(world: World, readd: Readd) -> None:
    if not world.quiet:
        return
    if world.told.last is None:
        return
    assert world.endpoint == world.known.confirmed
    assert world.endpoint in world.told.allows(readd), f"ends as {world.endpoint}: {world.told}"


@pytest.mark.parametrize("readd", ["resend"])
@pytest.mark.parametrize(("changes", "faults"), [(2, 2), (3, 1), (4, 0),(3,2)])
def test_x(readd: Readd, changes: int, faults: int) -> None:
    import time
    t = time.time()
    e = Explorer(ALPHABET, readd)
    n = e.histories(World(changes, faults))
    print(changes, faults, n, len(e.seen), round_of.cache_info(), time.time() - t)
