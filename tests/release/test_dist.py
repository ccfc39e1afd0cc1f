"""Wheel and sdist as a user gets them: what is in them, and that they run in an empty environment without the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.release.conftest import Dist, build
from tests.release.tools import PROJECT, tool
from tests.release.version import faults
from worker.cli.main import COMMANDS

if TYPE_CHECKING:
    from worker.local.redis import EmbeddedRedis

VERSION: Final = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
METADATA: Final = f"contact_sync-{VERSION}.dist-info"


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def tracked(*folders: str) -> set[str]:
    """The files of these folders that a checkout has."""
    found = subprocess.run(["git", "ls-files", *folders], cwd=PROJECT, check=True, capture_output=True, text=True)
    return set(found.stdout.split())


def test_pypi_takes_both(dist: Dist) -> None:
    ran = subprocess.run([tool("twine"), "check", "--strict", *dist], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.count("PASSED")) == (0, 2), ran.stdout


def test_the_wheel_has_the_code_and_nothing_else(dist: Dist) -> None:
    plugin = "worker/testing/pytest_plugin/contact_sync_pytest.py"
    code = tracked("producers", "worker")
    found = {name for name in names(dist.wheel) if not name.startswith(METADATA)}
    assert found == {"contact_sync_pytest.py" if name == plugin else name for name in code}
    for needed in (
        "producers/py.typed",
        "worker/py.typed",
        "worker/store/lua/settle.lua",
        "worker/serve/page/page.html",
    ):
        assert needed in found


def test_the_wheel_offers_the_command_the_plugin_and_the_licence(dist: Dist) -> None:
    with zipfile.ZipFile(dist.wheel) as archive:
        offers = archive.read(f"{METADATA}/entry_points.txt").decode()
        metadata = archive.read(f"{METADATA}/METADATA").decode()
    assert "contact-sync = worker.cli.main:main" in offers
    assert "[pytest11]\ncontact-sync = contact_sync_pytest" in offers
    assert f"{METADATA}/licenses/LICENSE" in names(dist.wheel)
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata


def test_the_sdist_builds_the_same_wheel_without_git(dist: Dist, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xzf", dist.sdist, "-C", tmp_path], check=True)
    build(tmp_path / f"contact_sync-{VERSION}", tmp_path / "again", "-t", "wheel")
    assert (tmp_path / "again" / dist.wheel.name).read_bytes() == dist.wheel.read_bytes()


def test_the_sbom_names_all_that_is_installed(tmp_path: Path) -> None:
    said = tmp_path / "sbom.json"
    line = next(
        each for each in (PROJECT / "Makefile").read_text(encoding="utf-8").splitlines() if "cyclonedx-py" in each
    )
    arguments = line.split()[1:]
    arguments[arguments.index("--output-file") + 1] = str(said)
    subprocess.run([tool("cyclonedx-py"), *arguments], cwd=PROJECT, check=True, capture_output=True)
    sbom = json.loads(said.read_text(encoding="utf-8"))
    pins = re.findall(
        r"^([a-z0-9._-]+)==([^\s;]+)", (PROJECT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {(each["name"], each["version"]) for each in sbom["components"]} == set(pins)
    assert (sbom["metadata"]["component"]["name"], sbom["metadata"]["component"]["version"]) == (
        "contact-sync",
        VERSION,
    )
    assert all(each["externalReferences"][0]["hashes"] for each in sbom["components"])


@pytest.mark.parametrize(
    ("tag", "changelog", "said"),
    [
        ("v1.2.3", "## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n", []),
        ("1.2.3", "## [1.2.3] - 2026-12-01\n", ["must be v1.2.3"]),
        ("v1.2.4", "## [1.2.3] - 2026-12-01\n", ["must be v1.2.3"]),
        ("v1.2.3", "## [Unreleased]\n", ["no heading"]),
        ("v1.2.3", "## [1.2.30] - 2026-12-01\n", ["no heading"]),
    ],
)
def test_a_release_is_what_its_tag_says(tag: str, changelog: str, said: list[str]) -> None:
    found = faults(tag, "1.2.3", changelog)
    assert len(found) == len(said)
    assert all(part in fault for part, fault in zip(said, found, strict=True))


# Installed


def run(bin_: Path, where: Path, *line: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs one of its programs far from the checkout, with an environment that knows of nothing else."""
    return subprocess.run(
        [bin_ / line[0], *line[1:]],
        input=stdin,
        cwd=where,
        env={"PATH": f"{bin_}:{os.defpath}", "HOME": str(where), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.timeout(600)
def test_what_is_installed_shows_every_command(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "contact-sync", "--version").stdout == f"contact-sync {VERSION}\n"
    for command in COMMANDS:
        ran = run(installed, tmp_path, "contact-sync", command, "--help")
        assert (ran.returncode, ran.stderr) == (0, "")
    ran = run(installed, tmp_path, "python", "-c", "import worker, producers; print(worker.__file__)")
    assert Path(ran.stdout).is_relative_to(installed.parent)


def test_what_is_installed_shows_the_whole_system_at_work(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "contact-sync", "demo")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_what_is_installed_does_what_the_readme_shows(
    installed: Path, redis_server: EmbeddedRedis, namespace: str, tmp_path: Path
) -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    given = {"CONTACT_SYNC_REDIS_URL": redis_server.url, "CONTACT_SYNC_NAMESPACE": namespace}
    producing = re.findall(r"^```python\n(from producers import .*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert producing
    ran = run(installed, tmp_path, "python", "-", stdin=producing[0], **given)
    assert (ran.returncode, ran.stderr) == (0, "")
    (shell,) = re.findall(r"^(echo '.*' \| contact-sync emit)$", readme, re.MULTILINE)
    ran = subprocess.run(
        ["sh", "-c", shell],
        cwd=tmp_path,
        env={"PATH": f"{installed}:{os.defpath}", **given},
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    ran = run(installed, tmp_path, "contact-sync", "status", "--json", **given)
    assert json.loads(ran.stdout)["backlog_events"] == 100_003


def test_an_apps_tests_see_what_it_emits(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(
        "from producers import ContactProducer\n"
        "def test_app(contact_changes):\n"
        "    with ContactProducer() as producer:\n"
        "        producer.delete('1', '9')\n"
        "    assert contact_changes == [('delete', '1', '9')]\n",
        encoding="utf-8",
    )
    ran = run(installed, tmp_path, "python", "-m", "pytest", "-q", "test_app.py")
    assert "1 passed" in ran.stdout, ran.stdout


def test_no_module_of_the_tests_is_installed(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "python", "-c", "import tests").returncode == 1
