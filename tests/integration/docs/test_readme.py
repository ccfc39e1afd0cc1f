"""What README.md names and test_blocks.py cannot run: targets, extras, files, services, and its figures."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter

import pytest

import producers
from producers.settings import variable_of
from tests.docs.blocks import BLOCKS, ROOT
from worker.cli.main import COMMANDS
from worker.config.serve import ServeSettings

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES_MAX = 170


def typed(beginning: str) -> list[str]:
    """The lines of all shell blocks of README and docs that begin so, without their comments."""
    lines = [line for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]
    return [re.sub(r"\s+# .*$", "", line) for line in lines if line.startswith(beginning)]


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, cell by cell."""
    text = (ROOT / document).read_text(encoding="utf-8")
    _, rest = re.split(rf"^##+ {heading}\n", text, maxsplit=1, flags=re.MULTILINE)
    rows = re.search(r"^(?:\|.*\n)+", rest, re.MULTILINE)
    assert rows is not None, heading
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("| \n"))] for row in rows[0].splitlines()[2:]]


def test_it_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= LINES_MAX


def test_make_has_every_target_that_is_named_and_it_does_what_is_said() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes: dict[str, list[str]] = {
        name: recipe.split()
        for name, recipe in re.findall(r"^([a-z]+):[^\n]*\n((?:\t[^\n]*\n)*)", makefile, re.MULTILINE)
    }
    named = {line.split()[1] for line in typed("make ")} | set(re.findall(r"`make ([a-z]+)", README))
    assert {"demo", "test", "check", "docs"} <= named <= recipes.keys()
    assert recipes["demo"] == ["$(BIN)/contact-sync", "demo"]  # which test_demo.py runs to its end
    tested = re.search(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert tested is not None  # it is this run, in two parts
    assert set(re.findall(r"^\t(\S+)", tested[1], re.MULTILINE)) == {"$(BIN)/pytest"}
    assert re.findall(r"--ignore (\S+)", tested[1]) == re.findall(r"pytest (tests/\S+)", tested[1])
    assert re.search(r"^check: lint types imports test ", makefile, re.MULTILINE)
    assert ".DEFAULT_GOAL := help" in makefile
    newcomer = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert {"make demo", "make test", "make docs"} <= set(re.findall(r"make [a-z]+", newcomer))


def test_pip_installs_the_packages_the_command_and_the_extras_that_are_named() -> None:
    """The environment of this run was made by pip or uv from the same file, so that all of it is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert typed("pip install") == ["pip install .", "pip install '.[embedded]'"]
    pages = [README, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))]
    extras = {
        extra
        for page in pages
        for named in re.findall(r"pip install '(?:\.|contact-sync)\[([\w,]+)\]'", page)
        for extra in named.split(",")
    }
    assert {"embedded", "sqlalchemy", "django", "testing"} <= extras
    assert extras <= project["project"]["optional-dependencies"].keys()
    assert project["project"]["scripts"]["contact-sync"] == "worker.cli.main:main"
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["producers", "worker"]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"])
def test_every_file_that_is_linked_is_there(page: str) -> None:
    """The pages of `docs` are checked by `make docs`."""
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
    assert linked or page not in {"README.md", "examples/README.md"}
    assert [name for name in linked if not (ROOT / page).parent.joinpath(name).exists()] == []


@pytest.mark.parametrize("command", typed("docker compose"))
def test_compose_has_the_services_and_profiles_that_are_named(command: str) -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    services = re.findall(r"^  ([\w-]+):$", compose.partition("\nservices:\n")[2], re.MULTILINE)
    named = re.findall(r"--scale ([\w-]+)", command) + re.findall(r" (?:run|exec) (?:--\S+ )*([\w-]+)", command)
    assert set(named) <= set(services)
    for profile in re.findall(r"--profile ([\w-]+)", command):
        assert re.search(rf"profiles: \[.*\b{profile}\b", compose), profile


def test_the_reference_of_the_client_is_where_it_is_said_to_be() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pydoc", "producers"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    for name in producers.__all__:
        assert name in shown


def test_the_six_settings_have_their_defaults() -> None:
    listed = {
        name: row[1].strip("`")
        for row in table("README.md", "Settings")
        for name in re.findall(r"CONTACT_SYNC_\w+", row[0])
    }
    assert len(table("README.md", "Settings")) == 6
    fields = {variable_of(name): field for name, field in ServeSettings.model_fields.items()}
    assert {name: shown for name, shown in listed.items() if "KEY" not in name} == {
        name: str(fields[name].default) for name in listed if "KEY" not in name
    }


def test_five_commands_for_operators_are_commands() -> None:
    (operate,) = [block for block in BLOCKS if block.page == "README.md" and "contact-sync explain" in block.text]
    named = re.findall(r"^contact-sync ([\w-]+)", operate.text, re.MULTILINE)
    assert len(named) == 5
    assert set(named) <= COMMANDS.keys()


def test_the_script_has_as_many_lines_as_is_said() -> None:
    lines = len((ROOT / "tests" / "bench" / "peers" / "script.py").read_text(encoding="utf-8").splitlines())
    performance = (ROOT / "docs" / "explanation" / "performance.md").read_text(encoding="utf-8")
    assert f"a script of {lines} lines" in README
    assert f"in {lines} lines" in performance


def test_its_figures_are_those_of_the_committed_reports() -> None:
    report, shown = table("docs/explanation/proof.md", "In numbers"), table("README.md", "Proof")
    assert len(shown) >= 4
    assert [row for row in shown if row not in report] == []


def test_the_figures_of_the_soaks_are_those_of_their_reports() -> None:
    report = Counter[str]()
    for run in (ROOT / "docs/explanation/soak.md").read_text(encoding="utf-8").split("\n### What was checked\n")[1:]:
        checked, _, _ = run.partition("\n#")
        rows = re.findall(r"^\| (\w.*) \| ([\d,]+) \|$", checked, re.MULTILINE)
        report.update({name: int(found.replace(",", "")) for name, found in rows})
    assert report["accepted"] > 0
    soak = {name: found for name, found, _ in table("docs/explanation/proof.md", "In numbers")}
    assert soak["changes, pairs"] == f"{report['accepted']:,} of {report['pairs']:,}"
    for name in ("requests", "lost", "resurrected", "wrong final state"):
        assert soak[name] == f"{report[name]:,}"
