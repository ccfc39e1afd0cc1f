"""The slice of the exhaustive model that every run of the tests explores, and that it finds what is planted."""

from __future__ import annotations

import logging
from multiprocessing import Pool
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.model.bugs import NO_BUG
from tests.model.explore import explore
from tests.model.run import told
from tests.model.scenes import BACK_AGAIN, PLANTED, SLICE, Scene
from tests.model.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.bugs import Bug


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A world that is cut off says so in the log, thousands of times."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("scene", SLICE, ids=str)
def test_whatever_happens_a_pair_comes_to_rest_and_ends_as_the_contract_says(scene: Scene) -> None:
    found = explore(scene)
    assert found.broken == "", "\n".join(found.story)
    assert found.whole
    assert found.states > 500, "the world has become too small to tell anything"


def test_a_state_that_was_written_down_is_the_same_again() -> None:
    """Also if entries of one millisecond were settled before others of it came: their ids must not begin anew."""
    world = World(1, NO_BUG)
    reached = [world.begin(BACK_AGAIN.changes, ())]
    for here in reached:
        world.thaw(here)
        for move in world.moves():
            world.thaw(here)
            world.do(move)
            reached.append(world.freeze())
            world.thaw(reached[-1])
            assert world.freeze() == reached[-1], move
        if len(reached) > 3_000:
            break


@pytest.mark.parametrize(("bug", "scene"), PLANTED, ids=[bug.why for bug, _ in PLANTED])
def test_a_planted_bug_is_found_by_trying_everything(bug: Bug, scene: Scene) -> None:
    assert explore(scene, bug=bug, most=40_000).broken


def test_the_command_tells_a_scene_without_a_bug_from_one_with_a_bug() -> None:
    with Pool(1) as pool:  # as the command does: what gets there is a copy
        without, planted = pool.map(told, [("whole", SLICE[0], NO_BUG), ("planted", PLANTED[5][1], PLANTED[5][0])])
    assert (without["planted"], without["broken"]) == (False, "")
    assert planted["planted"]
    assert planted["broken"]
