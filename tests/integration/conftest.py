"""Fixtures of the tests that run workers: the stand-in endpoint, and a fleet that delivers to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import Fleet
from tests.support.worker_process import PROCESS, broker_url
from worker.standin.server import StandInThread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.local.redis import EmbeddedRedis
    from worker.standin.client import StandInClient


@pytest.fixture(scope="session")
def running_stand_in() -> Iterator[StandInClient]:
    """One stand-in for the whole run."""
    with StandInThread() as stand_in:
        yield stand_in


@pytest.fixture
def stand_in(running_stand_in: StandInClient) -> StandInClient:
    """That stand-in, with nothing in it when the test begins."""
    running_stand_in.reset()
    return running_stand_in


@pytest.fixture
def fleet(redis_server: EmbeddedRedis, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    """Workers of a namespace that is this test's own."""
    with Fleet(redis_server.url, namespace, stand_in) as made:
        yield made


@pytest.fixture
def process_fleet(redis_server: EmbeddedRedis, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    """A fleet without a worker yet, for tests that start and kill their own."""
    with Fleet(redis_server.url, namespace, stand_in, broker_url=broker_url(redis_server.url), **PROCESS) as made:
        yield made
