"""However many threads or tasks send at once, no change is refused for want of a connection."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from producers import AsyncContactProducer, ContactProducer
from producers.nodes.pool import ASYNC_CONNECTIONS_MAX
from tests.support.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.local.cluster import EmbeddedCluster
    from worker.standin.client import StandInClient

TASKS = 3 * ASYNC_CONNECTIONS_MAX
THREADS = 150
EACH = 500


@pytest.fixture
def on_a_cluster(cluster: EmbeddedCluster, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    with Fleet(cluster.url, namespace, stand_in, broker_url="memory://") as made:
        yield made


def change(number: int, contact: int = 1) -> dict[str, str]:
    return {"owner": str(number), "contact": str(contact), "op": "upsert"}


def send_by_tasks(fleet: Fleet) -> None:
    async def send() -> None:
        async with AsyncContactProducer(settings=fleet.settings()) as producer:
            await asyncio.gather(*(producer.send([change(n)]) for n in range(TASKS)))

    asyncio.run(send())
    assert fleet.backlog() == TASKS


def test_tasks_wait_for_a_connection(fleet: Fleet) -> None:
    send_by_tasks(fleet)


def test_tasks_wait_for_a_connection_to_a_node(on_a_cluster: Fleet) -> None:
    send_by_tasks(on_a_cluster)


def test_each_thread_has_a_connection(fleet: Fleet) -> None:
    together = Barrier(THREADS)
    with ContactProducer(settings=fleet.settings()) as producer, ThreadPoolExecutor(THREADS) as pool:

        def send(number: int) -> None:
            together.wait()
            producer.send([change(number, contact) for contact in range(EACH)])

        list(pool.map(send, range(THREADS)))
    assert fleet.backlog() == THREADS * EACH
