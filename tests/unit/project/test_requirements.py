"""The requirements files, for machines without uv, say what uv.lock says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[3]
EXPORTS = ["requirements.txt", "requirements-dev.txt"]

Pins = dict[str, tuple[str, frozenset[str]]]


def locked() -> Pins:
    """Every package of the lock but our own: its version and the hashes of its files."""
    lock = tomllib.loads((PROJECT / "uv.lock").read_text(encoding="utf-8"))
    return {
        package["name"]: (package["version"], frozenset(file["hash"] for file in files(package)))
        for package in lock["package"]
        if "registry" in package["source"]
    }


def files(package: dict[str, Any]) -> list[dict[str, str]]:
    """What the index has of a package: its wheels, and its source if that was published."""
    return [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]


def exported(name: str) -> Pins:
    """Every package of a requirements file: its version and hashes."""
    text = (PROJECT / name).read_text(encoding="utf-8")
    requirements = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    pins = [re.match(r"([a-z0-9._-]+)==([^\s;]+)", requirement) for requirement in requirements]
    return {
        pin[1]: (pin[2], frozenset(re.findall(r"--hash=(\S+)", requirement)))
        for pin, requirement in zip(pins, requirements, strict=True)
        if pin
    }


@pytest.mark.parametrize("name", EXPORTS)
def test_every_version_and_hash_is_the_locks(name: str) -> None:
    pins = exported(name)
    assert pins
    assert pins == {package: pin for package, pin in locked().items() if package in pins}


def test_what_developers_install_is_the_whole_lock() -> None:
    assert exported("requirements-dev.txt").keys() == locked().keys()


def test_what_the_image_installs_has_every_dependency_of_ours() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]}
    assert names <= exported("requirements.txt").keys()
