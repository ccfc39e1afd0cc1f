"""Prometheus' own programs, where they are: on PATH, or where `make prometheus` puts them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
UNPACKED: Final = ROOT / ".venv" / "prometheus" / "usr" / "bin"


def program(name: str) -> str:
    """The path of `promtool` or `prometheus`; a test that wants one where there is none is skipped."""
    found = shutil.which(name) or shutil.which(name, path=UNPACKED)
    if found is None:
        pytest.skip(f"{name} is not on this machine: make prometheus brings it, from Debian's packages")
    return found
