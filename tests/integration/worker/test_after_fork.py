"""What a process made before it forked is not used by its children: their bytes would mix on the same sockets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.worker_process import PREFORK, THREADS, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet
    from worker.local.redis import EmbeddedRedis

FORKING = """
import os, sys
from worker.process import runtime
from worker.config.settings import load_worker_settings

settings = load_worker_settings(require_credentials=True)
parents = runtime.of_this_process(settings)
assert runtime.of_this_process(settings) is parents, "one for a process"
parents.flusher.run(1.0)
if os.fork() == 0:
    mine = runtime.of_this_process(settings)
    shared = mine is parents or mine.namespace.client is parents.namespace.client or mine.flusher is parents.flusher
    mine.flusher.run(1.0)
    os._exit(9 if shared else 0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_child_makes_its_own_of_everything(redis_server: EmbeddedRedis, namespace: str, tmp_path: Path) -> None:
    settings = {
        "REDIS_URL": redis_server.url,
        "NAMESPACE": namespace,
        "ENDPOINT_URL": "http://127.0.0.1:9",
        "SERVER_KEY_ID": "id",
        "SERVER_KEY_SECRET": "secret",
    }
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {f"CONTACT_SYNC_{name}": value for name, value in settings.items()}
    ran = subprocess.run(
        [sys.executable, "-c", FORKING],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


COUNTING = """
import gc
from celery import signals

def count(**_):
    print("looked through:", len(gc.get_objects()), "left alone:", gc.get_freeze_count(), flush=True)

signals.worker_ready.connect(count, weak=False)
"""


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_the_collector_leaves_alone_what_was_loaded_before_the_pool_started(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "counting.py").write_text(COUNTING, encoding="ascii")
    with WorkerProcess(process_fleet.environment(), tmp_path, (*options, "-I", "counting")) as worker:
        said = worker.wait_until_ready().said()
    counted = re.search(r"looked through: (\d+) left alone: (\d+)", said)
    assert counted, said
    assert int(counted[1]) * 4 < int(counted[2])
