"""`status --watch` on a terminal: it shows what moves, and stays up while Redis is away."""

from __future__ import annotations

import os
import pty
import signal
from typing import TYPE_CHECKING

from tests.support.commands import running
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from tests.support.fleet import Fleet
    from tests.support.waiting import WaitUntil


def test_it_goes_on_when_redis_is_back(fleet: Fleet, wait_until: WaitUntil) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    shown = b""

    def says(words: bytes) -> bool:
        nonlocal shown
        try:
            shown += os.read(ours, 1 << 20)
        except OSError:  # there is nothing, or the other end has gone
            return False
        return words in shown

    with EmbeddedRedis(tcp=True) as server, os.fdopen(ours, "rb"), os.fdopen(theirs, "wb") as terminal:
        environ = fleet.environment(redis_url=server.url) | {"TERM": "xterm-256color"}
        with running(environ, "status", "--watch", stdin=terminal, stdout=terminal) as process:
            wait_until(lambda: says(b"nothing waits"), seconds=30, what="the screen is drawn")
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: says(b"and nothing newer"), seconds=30, what="it says that Redis is away")
            shown = b""
            server.restart()
            wait_until(lambda: says(b"Ctrl-C ends"), seconds=30, what="it goes on")
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stderr is not None
            assert process.stderr.read().strip() == ""
