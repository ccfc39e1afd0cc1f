"""Fixtures of the tests of Redis' kinds: a cluster, with replicas or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.local.cluster import EmbeddedCluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def cluster() -> Iterator[EmbeddedCluster]:
    """Three nodes, without replicas."""
    with EmbeddedCluster(3) as made:
        yield made


@pytest.fixture
def replicated() -> Iterator[EmbeddedCluster]:
    """Three nodes, each with a replica."""
    with EmbeddedCluster(3, 1) as made:
        yield made
