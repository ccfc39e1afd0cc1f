"""What the documentation says of the proofs is what their results hold, and old proofs are told."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.model.run import main as explore_all
from tests.mutants.catalogue import MUTANTS
from tests.mutants.run import main as hunt_all
from tests.proof import publish, published
from tests.proof.pages import BLOCKS, day, share, written
from tests.proof.publish import DOCUMENTS, ages, pages, results
from tests.simulation.report import result

if TYPE_CHECKING:
    from pathlib import Path

    import click


def test_every_block_is_what_the_results_say() -> None:
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} differs from tests/proof/results: make proof"


def test_a_figure_that_somebody_changed_by_hand_is_noticed() -> None:
    found = results()
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        begins = text.find("<!-- proof:begin")
        assert begins > 0, f"{path.name} has no block"
        digit = re.compile(r"\d").search(text, begins)
        assert digit
        forged = text[: digit.start()] + str((int(digit[0]) + 1) % 10) + text[digit.end() :]
        assert written(forged, found) == text


def test_every_block_of_the_pages_is_known_and_each_is_somewhere() -> None:
    named = [name for path in DOCUMENTS for name in re.findall(r"proof:begin (\w+)", path.read_text(encoding="utf-8"))]
    assert sorted(named) == sorted(BLOCKS)


@pytest.mark.parametrize("proof", sorted(results()))
def test_a_result_says_of_what_code_it_is(proof: str) -> None:
    found = results()[proof]
    for part in published.parts_of(proof, found):
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", part.date)
        assert re.fullmatch(r"\d+\.\d+\.\d+", part.version)
        assert part.commit is None or re.fullmatch(r"[0-9a-f]{7,40}", part.commit), "of a tree that is not a commit"


def _result(commit: str | None = None, date: str = "2026-11-24", version: str | None = None) -> dict[str, Any]:
    return {"made": {"commit": commit, "date": date, "version": version or published.version()}}


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own with two commits: one that touches the code, one that does not."""
    for module in (publish, published):
        monkeypatch.setattr(module, "PROJECT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.3.1"\n')
    (tmp_path / "worker").mkdir()
    published.git("init", "--quiet")
    for name in ("worker/a.py", "README.md"):
        (tmp_path / name).write_text("")
        published.git("add", "--all")
        published.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", name)
    return tmp_path


def told(result: dict[str, Any]) -> tuple[str, bool]:
    return next(each for each in ages({"model": result}) if each[0].startswith("model"))


def test_a_proof_is_older_than_the_code_if_a_commit_has_touched_it_since(history: Path) -> None:
    first, last = published.git("log", "--format=%H", "--reverse").split()
    result = _result(last)
    assert told(result) == (f"model: of 2026-11-24, commit {last}: as new as the code", False)
    (history / "worker" / "a.py").write_text("1")
    published.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "--message", "more")
    for each in (first, last):
        assert "older than the code, 1 commit has touched producers or worker since" in told(_result(each))[0]
    assert told(_result("0" * 40))[0].endswith("which is not in this history")
    assert "2 commits have touched" in told(_result())[0]


@pytest.mark.usefixtures("history")
def test_a_proof_of_another_minor_version_is_a_warning_and_one_of_another_patch_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version, warned in (("0.2.9", True), ("1.3.1", True), ("0.3.0", False)):
        monkeypatch.setattr(publish, "results", lambda told=version: {"model": _result(version=told)})
        ran = CliRunner().invoke(publish.main, ["--check"])
        assert ran.exit_code == 0
        assert ("warning: model" in ran.stderr) is warned
        assert ("it is of version" in ran.output) is warned


def test_a_run_is_added_to_those_that_are_there(tmp_path: Path) -> None:
    for seed in (1, 2):
        published.add_run("mutation", {"seed": seed, **_result()}, tmp_path)
    found = json.loads((tmp_path / "mutation.json").read_text(encoding="utf-8"))
    assert [each["seed"] for each in found["runs"]] == [1, 2]
    assert len(published.parts_of("mutation", found)) == 2
    assert published.read("soak", tmp_path) is None


def test_the_sum_of_the_simulations_pieces_is_its_result() -> None:
    piece = {
        "commit": "abc1234",
        "first": 40,
        "seeds": 10,
        "steps": 100,
        "requests": 7,
        "processor_seconds": 2.0,
        "failing": [{"seed": 3, "violations": ["lost: a", "lost: b"]}],
        "faults": {"kill": 2},
        "pairs_of_faults": {},
        "outcomes": {"settle: settled": 9},
    }
    summed = result([piece, piece])
    assert summed["made"]["commit"] == "abc1234"
    assert {name: summed[name] for name in ("first", "pieces", "seeds", "steps", "requests", "faults")} == {
        "first": 40,
        "pieces": 2,
        "seeds": 20,
        "steps": 200,
        "requests": 14,
        "faults": {"kill": 4},
    }
    assert summed["worlds_per_second_per_core"] == 5
    shown = written(
        "<!-- proof:begin headline -->\n<!-- proof:end -->", {**results(), "simulation": {"runs": [summed]}}
    )
    assert "20 simulated worlds" in shown
    assert "| lost | 0 | 2 |" in shown


@pytest.mark.parametrize(
    ("command", "part"), [(hunt_all, ("--only", MUTANTS[0].name)), (explore_all, ("--scene", "0"))]
)
def test_a_part_of_a_proof_is_not_published_as_all_of_it(command: click.Command, part: tuple[str, str]) -> None:
    ran = CliRunner().invoke(command, ["--publish", *part])
    assert (ran.exit_code, "--publish needs all" in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.16, "16 %"),
        (1.7e-5, "1.7 in 100,000"),
        (1.83e-6, "1.9 in a million"),
        (9.99e-7, "1 in a million"),
        (3e-9, "3 in a billion"),
    ],
)
def test_a_share_is_said_rounded_up(value: float, said: str) -> None:
    assert share(value) == said


def test_a_day_is_written_as_people_do() -> None:
    assert day("2026-11-04") == "4 November 2026"
