"""Pieces of the simulation, lived apart, are summed to what one run would have said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.report import as_markdown, wrong_with
from tests.simulation.run import Summary, live

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pieces() -> list[dict[str, Any]]:
    return [Summary(first, [live((first, 20))]).piece() for first in (0, 20)]


def test_the_sum_of_pieces_is_what_came_up_in_all_worlds(pieces: list[dict[str, Any]]) -> None:
    whole = Summary(0, [live((0, 40))]).piece()
    summed = {name: pieces[0]["faults"].get(name, 0) + pieces[1]["faults"].get(name, 0) for name in whole["faults"]}
    assert summed == whole["faults"]
    assert set(whole["pairs_of_faults"]) == set(pieces[0]["pairs_of_faults"]) | set(pieces[1]["pairs_of_faults"])
    assert whole["outcomes"]["settle: settled"] > 30
    text = "\n".join(as_markdown(pieces))
    assert "# 40 simulated worlds of commit " in text
    assert f"| kill | {whole['faults']['kill']} |" in text
    assert "| 20 to 39 |" in text


def test_a_pair_of_faults_counts_once_for_each_world_with_both(pieces: list[dict[str, Any]]) -> None:
    for piece in pieces:
        for pair, number in piece["pairs_of_faults"].items():
            one, other = pair.split(" + ")
            assert number <= min(piece["faults"][one], piece["faults"][other]) <= piece["seeds"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"first": 10}, "seed 10 is in several pieces"),
        ({"commit": "x"}, "several commits"),
        ({"interrupted": True}, ""),
    ],
)
def test_pieces_that_are_no_whole_are_refused(pieces: list[dict[str, Any]], change: dict[str, Any], why: str) -> None:
    assert wrong_with(pieces) == ""
    wrong = wrong_with([pieces[0], pieces[1] | change])
    assert wrong
    assert why in wrong


def test_the_commands_write_and_sum_pieces(tmp_path: Path) -> None:
    files = []
    for first in ("0", "10"):
        files.append(tmp_path / "new" / f"{first}.json")
        command = ["tests.simulation.run", "--seeds", "10", "--first", first, "--jobs", "1", "--report", str(files[-1])]
        assert run(*command).returncode == 0
    assert json.loads(files[1].read_text("utf-8"))["first"] == 10
    ran = run("tests.simulation.report", *map(str, files))
    assert (ran.returncode, ran.stdout.splitlines()[0][:22]) == (0, "# 20 simulated worlds ")
    ran = run("tests.simulation.report", str(files[0]), str(files[0]))
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (2, "Error: seed 0 is in several pieces")


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
