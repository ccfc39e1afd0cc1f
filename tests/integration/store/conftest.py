"""Fixtures of the tests of scripts: a client, and the partitions of a namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.partition_zero import partitions_of
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tests.support.fleet import Fleet
    from worker.store.partitions import Partitions


@pytest.fixture
def client(fleet: Fleet) -> Iterator[redis.Redis]:
    """A client as workers have it."""
    with connect(fleet.settings().redis_url) as made:
        yield made


@pytest.fixture
def partitions(fleet: Fleet, client: redis.Redis) -> Partitions:
    """The partitions of the fleet's namespace."""
    return partitions_of(fleet, client)
