"""The generator of mutations changes one thing at a time, and a seeded few of its changes turn a test red."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.mutation import changes_of_core, changes_of_scripts, sample, seen_by
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_seeded_few_changes_of_joining_are_seen() -> None:
    chosen = [change for change in sample("core", 0, seed=7) if Path(change.path).name == "pair.py"][:3]
    with Tree() as tree:
        assert [change.says for change in chosen if not seen_by(tree, change)] == []


def test_a_change_that_no_test_can_see_survives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise a run that cannot even start its tests would count everything as seen."""
    green = tmp_path / "test_green.py"
    green.write_text("def test_green() -> None: pass\n", encoding="utf-8")
    monkeypatch.setattr("tests.mutants.mutation._STORE", (str(green),))
    with Tree() as tree:
        assert seen_by(tree, sample("scripts", 1, seed=0)[0]) == ""
