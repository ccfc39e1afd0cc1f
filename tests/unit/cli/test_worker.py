"""The command line of Celery that `worker` becomes."""

from __future__ import annotations

import sys

from worker.cli.worker import worker_command


def test_the_worker_is_celery_itself_with_gossip_and_mingle_off() -> None:
    assert worker_command(8, "threads", "INFO", ["--events"]) == [
        *(sys.executable, "-P", "-m", "worker", "-A", "worker", "worker"),
        *("--pool", "threads", "--concurrency", "8", "--loglevel", "INFO"),
        *("--without-gossip", "--without-mingle", "--events"),
    ]
