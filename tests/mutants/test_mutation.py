"""The generator of mutations changes one thing at a time; a change is seen only if a test turns red."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.checks import CheckFailed
from tests.mutants.mutation import Known, changes_of_core, changes_of_scripts, reached_by, sample, seen_by
from tests.mutants.tree import PROJECT, Tree


def test_each_change_of_the_core_means_something_else_and_compiles() -> None:
    every = list(changes_of_core())
    assert len(every) > 1_000
    for change in every[::40]:
        tree = ast.parse(change.text)
        assert ast.dump(tree) != ast.dump(ast.parse((PROJECT / change.path).read_text(encoding="utf-8")))


def test_each_change_of_a_script_is_on_one_line() -> None:
    for change in list(changes_of_scripts())[::20]:
        before = (PROJECT / change.path).read_text(encoding="utf-8").split("\n")
        after = change.text.split("\n")
        differ = [n for n, (old, new) in enumerate(zip(before, after, strict=True), 1) if old != new]
        assert differ == [change.line]


def test_which_tests_run_a_script_is_recorded() -> None:
    with Tree() as tree:
        reached, took = reached_by(tree, ("tests/integration/commands/test_pause.py",))
    assert reached["pause.lua"]
    assert set(reached["pause.lua"]) <= took.keys()


def test_a_change_that_no_test_can_see_survives(tmp_path: Path) -> None:
    """Otherwise a run that cannot even start its tests would count everything as seen."""
    green = tmp_path / "test_green.py"
    green.write_text("def test_green() -> None: pass\n", encoding="utf-8")
    with Tree() as tree:
        change = sample("scripts", 1, seed=0)[0]
        assert seen_by(tree, change, Known({Path(change.path).name: [str(green)]}, set())) == ""


def test_a_test_that_is_red_without_the_change_too_sees_nothing() -> None:
    with Tree() as tree:
        change = sample("scripts", 1, seed=0)[0]
        (tree.root / "tests" / "test_red.py").write_text("def test_red() -> None: assert False\n")
        with pytest.raises(CheckFailed, match="red without the change too"):
            seen_by(tree, change, Known({Path(change.path).name: ["tests/test_red.py"]}, set()))
