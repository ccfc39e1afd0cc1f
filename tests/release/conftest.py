"""A release as a user gets it: built once, and installed once into an environment with nothing else in it."""

from __future__ import annotations

import re
import subprocess
import venv
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.release.tools import PROJECT, tool

if TYPE_CHECKING:
    from pathlib import Path


class Dist(NamedTuple):
    """Both files of a release."""

    wheel: Path
    sdist: Path


def build(source: Path, into: Path, *kinds: str) -> None:
    """Builds both, or the kinds given, from these sources."""
    subprocess.run([tool("hatchling"), "build", "-d", into, *kinds], cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    into = tmp_path_factory.mktemp("dist")
    build(PROJECT, into)
    wheel, sdist = sorted(into.iterdir())
    return Dist(wheel, sdist)


@pytest.fixture(scope="session")
def installed(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with nothing in it but the wheel and what the lock says it needs."""
    where = tmp_path_factory.mktemp("installed")
    venv.create(where, with_pip=True)
    pip = [str(where / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    extras = f"{dist.wheel}[embedded,sqlalchemy,testing]"
    subprocess.run([*pip, extras, "pytest", "--constraint", str(_constraints(where))], check=True, timeout=300)
    return where / "bin"


def _constraints(where: Path) -> Path:
    """What requirements-dev.txt pins, without hashes: pip takes those for all or for none, and our wheel has none."""
    text = (PROJECT / "requirements-dev.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9._-]+==[^\\\n]+?)(?: \\)?$", text, re.MULTILINE)
    path = where / "constraints.txt"
    path.write_text("\n".join(pins), encoding="utf-8")
    return path
