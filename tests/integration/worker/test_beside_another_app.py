"""A worker in whose broker database another Celery app has its queue too, and one whose broker goes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis
from kombu import Connection

from tests.support.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.support.fleet import Fleet
    from tests.support.waiting import WaitUntil

LONG_AGO_SECONDS = 600
"""Longer than our visibility timeout, and less than Celery's default of an hour."""


@contextmanager
def worked_on(fleet: Fleet, queue: str, prefix: str = "") -> Iterator[None]:
    """A message that was taken from the queue long ago and is not acknowledged yet.

    Args:
        fleet: whose broker it is.
        queue: where the message was, and returns to if it is put back.
        prefix: of the keys in which kombu remembers it.
    """
    names = ("unacked", "unacked_index", "unacked_mutex")
    options = {f"{name}_key": prefix + name for name in names}
    with Connection(fleet.settings().celery_broker_url, transport_options=options) as connection:
        messages = connection.SimpleQueue(queue)
        messages.put({})
        messages.get(timeout=10)
        with broker_of(fleet) as broker:
            for tag in broker.zrange(prefix + "unacked_index", 0, -1):
                broker.zincrby(prefix + "unacked_index", -LONG_AGO_SECONDS, tag)
        yield


def broker_of(fleet: Fleet) -> redis.Redis:
    return redis.Redis.from_url(str(fleet.settings().broker_url), socket_timeout=10)


def test_a_task_that_another_app_works_on_stays_with_it(
    process_fleet: Fleet, tmp_path: Path, wait_until: WaitUntil
) -> None:
    namespace = process_fleet.keys.namespace
    theirs, ours = f"{namespace}-theirs", f"{namespace}-ours"
    with (
        worked_on(process_fleet, theirs),
        worked_on(process_fleet, ours, f"{namespace}:"),
        broker_of(process_fleet) as broker,
        WorkerProcess(process_fleet.environment(), tmp_path),
    ):
        # What is long overdue of ours shows that the worker has looked for what is.
        wait_until(lambda: broker.llen(ours), seconds=30, what="ours is put back into its queue")
        assert broker.llen(theirs) == 0


def test_a_hint_that_is_held_as_the_broker_goes_does_not_end_the_worker(process_fleet: Fleet) -> None:
    url = process_fleet.settings().celery_broker_url
    held = (
        "from kombu import Connection",
        "import worker.celery",
        f"connection = Connection({url!r})",
        f"queue = connection.SimpleQueue('{process_fleet.keys.namespace}-held')",
        "queue.put({})",
        "message = queue.get(timeout=10)",
        "connection._do_close_transport()  # as Celery does first, after a connection was lost",
        "queue.channel.close()",
        "message.ack()  # as Celery does once it is connected again, if it had begun the task before",
    )
    run_beside(process_fleet, held)


def test_a_hint_whose_acknowledgement_redis_refuses_takes_no_place(process_fleet: Fleet) -> None:
    """A worker whose places were all taken so never heard of another hint, and was ended by its watchdog."""
    url = process_fleet.settings().celery_broker_url
    refused = (
        "import redis",
        "from kombu import Connection",
        "import worker.celery",
        f"connection = Connection({url!r})",
        f"queue = connection.SimpleQueue('{process_fleet.keys.namespace}-refused')",
        "queue.channel.basic_qos(0, 1, False)",
        "queue.put({})",
        "message = queue.get(timeout=10)",
        "assert not queue.channel.qos.can_consume()",
        f"server = redis.Redis.from_url({process_fleet.settings().broker_url!r})",
        "server.config_set('min-replicas-to-write', 1)",
        "try:",
        "    message.ack()",
        "except redis.ResponseError as error:",
        "    assert 'NOREPLICAS' in str(error)",
        "else:",
        "    raise AssertionError('it was not refused')",
        "finally:",
        "    server.config_set('min-replicas-to-write', 0)",
        "assert queue.channel.qos.can_consume()",
    )
    run_beside(process_fleet, refused)


def run_beside(fleet: Fleet, lines: Iterable[str]) -> None:
    """Runs Python with the worker's app."""
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=fleet.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
