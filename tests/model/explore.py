"""Tries everything that can happen to one pair, state by state, shortest ways first."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from tests.model.bugs import NO_BUG, Bug
from tests.model.world import HEALINGS, Broken, World, digest

if TYPE_CHECKING:
    from tests.model.scenes import Scene


class Explored(NamedTuple):
    """What came of one scene.

    Attributes:
        states: different states that were reached.
        moves: how many moves lead from one to another.
        broken: what does not hold, empty if all does.
        story: the shortest way to it, move by move.
        whole: whether every state was reached.
    """

    states: int
    moves: int
    broken: str = ""
    story: tuple[str, ...] = ()
    whole: bool = True


def explore(scene: Scene, *, bug: Bug = NO_BUG, most: int | None = None) -> Explored:
    """Reaches every state, and heals each in every way: it must come to rest, and end as the contract says.

    Args:
        scene: what is said, and what may go wrong.
        bug: planted.
        most: stop after so many states.
    """
    world = World(scene.seconds, bug)
    first = world.begin(scene.changes, scene.faults)
    came_from: dict[bytes, tuple[bytes, str]] = {digest(first): (b"", "")}
    queue = deque([first])
    moves = 0
    healed: set[bytes] = set()
    while queue:
        here = queue.popleft()
        name, last = digest(here), ""
        try:
            for requests in HEALINGS:
                last = f"all is well; requests under way act {requests}"
                world.thaw(here)
                world.heal(requests, healed)
            world.thaw(here)
            for move in world.moves():
                last = f"{move[0]} {move[1]}"
                world.thaw(here)
                world.do(move)
                moves += 1
                there = world.freeze()
                if (known := digest(there)) not in came_from:
                    came_from[known] = (name, last)
                    queue.append(there)
        except Broken as broken:
            return Explored(len(came_from), moves, str(broken), (*_story(came_from, name), last), whole=False)
        if most is not None and len(came_from) > most:
            return Explored(len(came_from), moves, whole=False)
    return Explored(len(came_from), moves)


def _story(came_from: dict[bytes, tuple[bytes, str]], here: bytes) -> tuple[str, ...]:
    told: list[str] = []
    while here:
        here, move = came_from[here]
        told.append(move)
    return tuple(reversed(told[:-1]))
