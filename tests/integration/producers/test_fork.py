"""A process that forks while other threads send: its child sends too, and does not hang."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.sentinels import SentinelSetup
from worker.local.cluster import EmbeddedCluster
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from pathlib import Path

FORKING = """
import os, signal, sys, threading, time
from producers import ContactProducer

url, spool = sys.argv[1:]
plain, spooling = ContactProducer(url), ContactProducer(url, spool=spool)
ended = threading.Event()

def sending(producer):
    while not ended.is_set():
        producer.upsert("1", "2")

threads = [threading.Thread(target=sending, args=(each,), daemon=True) for each in (plain, plain, spooling, spooling)]
[thread.start() for thread in threads]
hung = 0
for turn in range(150):
    child = os.fork()
    if child == 0:
        for producer in (plain, spooling):
            producer.delete("1", "3")
        os._exit(0)
    ends = time.monotonic() + 20
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < ends:
        time.sleep(0.001)
    if done[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        hung += 1
        break
    assert done[1] == 0, done
ended.set()
[thread.join() for thread in threads]
print(hung)
"""


def test_a_child_that_is_forked_while_threads_send_does_not_hang(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, redis_server.url, str(tmp_path / "spool")],
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (ran.stdout, ran.returncode, ran.stderr) == ("0\n", 0, "")


IMPORTING = """
import sys
from producers import ContactProducer

url, spool = sys.argv[1:]
made = [ContactProducer(url), ContactProducer(url, spool=spool)]
before = set(sys.modules)
for each in made:
    each.upsert("1", "2").eta()
    each.pressure()
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("kind", ["address", "name", "cluster", "sentinel"])
def test_a_producer_imports_nothing_while_it_sends(kind: str, tmp_path: Path) -> None:
    """A child that is forked while a thread imports a module waits for ever once it imports that module itself."""
    with ExitStack() as undo:
        match kind:
            case "cluster":
                url = undo.enter_context(EmbeddedCluster(3)).url
            case "sentinel":
                url = undo.enter_context(SentinelSetup()).url
            case _:
                url = undo.enter_context(EmbeddedRedis(tcp=True)).url
        if kind == "name":
            url = url.replace("127.0.0.1", "localhost")
        ran = subprocess.run(
            [sys.executable, "-c", IMPORTING, url, str(tmp_path / "spool")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (ran.stdout, ran.returncode) == ("\n", 0), ran.stderr
