"""The environment of `make tools`: what builds and checks a release and the chart, apart from what the code needs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parents[2]
TOOLS: Final = PROJECT / ".venv" / "release" / "bin"


def tool(name: str) -> Path:
    """The path of a program of that environment; a test that wants one where there is none is skipped."""
    if not (TOOLS / name).exists():
        pytest.skip(f"{name} is not here: make tools brings it")
    return TOOLS / name
