"""Fixtures of the security tests: those of the tests that run workers, and authorities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import fleet, process_fleet, running_stand_in, stand_in
from tests.security.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fleet", "process_fleet", "running_stand_in", "stand_in"]


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    """The authority that is trusted."""
    return Authority(tmp_path, "ours")


@pytest.fixture
def another(tmp_path: Path) -> Authority:
    """One that is not."""
    return Authority(tmp_path, "another")
