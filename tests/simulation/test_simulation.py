"""The slice of the simulation that every run of the tests lives, and that one seed decides everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.simulation.chance import Chance, Retold
from tests.simulation.run import live
from tests.simulation.simulation import simulate

PROJECT = Path(__file__).parents[2]
SEEDS = 600
LATELY = (
    *(216, 1333, 2037, 3190, 28888, 41467, 48168, 80654, 126696, 453522, 724997, 864982),
    *(3015671, 3029785, 7030450, 7037310),
)
"""Seeds that once told of a fault, of the code or of the simulation itself."""
ERASED_LATELY = (349, 100363, 100534, 100608, 100618, 3004349)
"""The same of worlds in which somebody is erased."""


def run(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_invariant_holds_in_the_slice_of_every_run() -> None:
    lived = live((0, SEEDS))
    assert lived.failing == []
    assert lived.steps > 100 * SEEDS, "the worlds have become too short to tell anything"
    assert lived.requests > 3 * SEEDS, "hardly anything is delivered any more"


def test_what_once_failed_holds() -> None:
    assert [simulate(Chance(seed)).violations for seed in LATELY] == [[] for _ in LATELY]
    erased = [simulate(Chance(seed, erases=True)).violations for seed in ERASED_LATELY]
    assert erased == [[] for _ in ERASED_LATELY]


def test_a_seed_decides_everything_in_whatever_process() -> None:
    found: list[dict[str, Any]] = [
        json.loads(run("--seeds", "60", "--jobs", "1", "--json", hash_seed=each).stdout) for each in ("1", "2")
    ]
    assert found[0]["fingerprint"] == found[1]["fingerprint"]
    assert (found[0]["steps"], found[0]["requests"]) == (found[1]["steps"], found[1]["requests"])


def test_a_story_that_is_told_again_is_the_same() -> None:
    once = simulate(Chance(7), told=True)
    again = simulate(Retold(once.taken), told=True)
    assert once == again
    assert any("request 1 says" in line for line in once.story)


def test_the_command_says_how_many_seeds_it_lived() -> None:
    ran = run("--seeds", "30", "--jobs", "2")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("lived 30 seeds from 0 on: ")


def test_the_command_tells_one_seed() -> None:
    ran = run("--seed", "7")
    assert ran.returncode == 0
    assert "accepts" in ran.stdout


def test_wrong_arguments_end_with_status_2() -> None:
    assert run("--seeds", "none").returncode == 2
