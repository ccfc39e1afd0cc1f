"""Nothing of a worker that is idle waits for a clock when it is told to stop. Each runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

WAKES = """
import os, signal
from types import SimpleNamespace
from kombu.asynchronous import Hub
from worker.process.app import create_app
from worker.process.signals import SignalStep

step, hub = SignalStep(None), Hub()
step.start(SimpleNamespace(app=create_app()))
step.register_with_event_loop(None, hub)
print(len(hub.poller.poll(0) or []))
os.kill(os.getpid(), signal.SIGTERM)
ready = hub.poller.poll(0) or []
print(len(ready))
for number, _event in ready:
    callback, arguments = hub.readers[number]
    callback(*arguments)
print(len(hub.poller.poll(0) or []))
"""

HANGS = """
import os, signal, threading
from types import SimpleNamespace
from worker.process import signals
from worker.process.app import create_app

signals.FLUSH_BUDGET_SECONDS = signals.LEASE_PATH_SECONDS = 0.0
step = signals.SignalStep(None)
step.start(SimpleNamespace(app=create_app()))
{stops}
print("it stops", flush=True)
threading.Event().wait(50)
print("it waits for Celery", flush=True)
"""

CHILD_ENDS = """
import os, sys
from celery.concurrency.prefork import process_destructor
from worker.process.app import create_app
from worker.process.stopping import STOPPING

app = create_app()
process_destructor(os.getpid(), 3)
print("it stays while the worker does", flush=True)
STOPPING.set()
process_destructor(os.getpid(), 3)
print("it stays")
"""

UNREAD = """
from types import SimpleNamespace
import billiard.pool
from celery.signals import worker_process_init
from worker.process.app import create_app

app = create_app()
worker_process_init.send(sender=None)
waited = []
billiard.pool.time.sleep = waited.append
nobody_read = SimpleNamespace(on_ready_counter=SimpleNamespace(value=0))
billiard.pool.Worker._ensure_messages_consumed(nobody_read, completed=1)
print(round(sum(waited), 1))
"""


def run(code: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PYTHONPATH": ":".join(sys.path),
            "CONTACT_SYNC_REDIS_URL": "redis://127.0.0.1:1/0",
            "CONTACT_SYNC_ENDPOINT_URL": "http://127.0.0.1:1/",
            "CONTACT_SYNC_REQUEST_TIMEOUT_SECONDS": "0.1",
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_a_signal_ends_the_wait_for_the_broker_once() -> None:
    assert run(WAKES) == (0, ["0", "1", "0"])


@pytest.mark.parametrize(
    "stops", ["os.kill(os.getpid(), signal.SIGTERM)", "step.close(None)"], ids=["by a signal", "by Celery"]
)
def test_a_worker_that_stops_for_any_reason_ends_although_celery_hangs(stops: str) -> None:
    assert run(HANGS.format(stops=stops)) == (0, ["it stops"])


def test_a_child_whose_worker_stops_ends_as_soon_as_it_has_nothing_left_to_do() -> None:
    assert run(CHILD_ENDS) == (3, ["it stays while the worker does"])


def test_a_child_does_not_wait_long_for_its_last_result_to_be_read() -> None:
    assert run(UNREAD) == (0, ["0.5"])
