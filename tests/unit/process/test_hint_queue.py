"""Hints go through whatever broker Celery takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery import Celery

from tests.support.fleet import QUICK
from worker.config.settings import WorkerSettings
from worker.process.bootsteps import HintQueue
from worker.process.hint import FLUSH_TASK

if TYPE_CHECKING:
    from pathlib import Path


def flush() -> None:
    """The task that hints are of."""


def test_hints_go_through_a_database_which_takes_no_option_of_a_redis(tmp_path: Path) -> None:
    nowhere, broker = "redis://127.0.0.1:1/0", f"sqla+sqlite:///{tmp_path}/hints.db"
    settings = WorkerSettings(redis_url=nowhere, endpoint_url="http://127.0.0.1:1", broker_url=broker, **QUICK)
    app = Celery("test", broker=broker)
    app.contact_sync_settings = settings  # type: ignore[attr-defined] # as a worker's app has them
    app.task(name=FLUSH_TASK)(flush)
    queue = HintQueue(app, "hints")
    queue.leave(2)
    assert queue.hints() == 2
    queue.purge()
