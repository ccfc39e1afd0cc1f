"""Every planted bug still fits the code, and the checks it names are there; the run itself is `make mutants`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import DoesNotApply, Mutant, Patch

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_a_planted_bug_fits_the_code_and_is_python(mutant: Mutant) -> None:
    for path, text in mutant.patched(PROJECT):
        assert text != (PROJECT / path).read_text(encoding="utf-8")
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_a_planted_bug_names_checks_that_are_there(mutant: Mutant) -> None:
    assert mutant.simulated or mutant.unit or mutant.integration
    for check in (*mutant.unit, *mutant.integration):
        path, _, test = check.partition("::")
        assert f"def {test}" in (PROJECT / path).read_text(encoding="utf-8")


def test_names_are_names_and_each_is_there_once() -> None:
    names = [each.name for each in MUTANTS]
    assert sorted(set(names)) == sorted(names)
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("text", ["", "one one"])
def test_a_patch_that_fits_nowhere_or_twice_is_refused(text: str) -> None:
    with pytest.raises(DoesNotApply, match="and not once: 'one'"):
        Patch("a.py", "one", "two").applied_to(text)


def test_patches_of_one_file_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one two")
    Mutant("m", "", (Patch("a.py", "one", "1"), Patch("a.py", "two", "2"))).plant(tmp_path)
    assert (tmp_path / "a.py").read_text() == "1 2"
