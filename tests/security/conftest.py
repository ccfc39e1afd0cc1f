"""Fixtures of the security tests: authorities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.security.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    """The authority that is trusted."""
    return Authority(tmp_path, "ours")


@pytest.fixture
def another(tmp_path: Path) -> Authority:
    """One that is not."""
    return Authority(tmp_path, "another")
