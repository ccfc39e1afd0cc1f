"""The client of the lease path: it tries once, and whoever called it decides what follows."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
import redis

from worker.store.client import connect, round_trip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class HangingUp:
    """A server that takes every connection and hangs up.

    Attributes:
        taken: how many it took.
    """

    def __init__(self) -> None:
        self.taken = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.taken += 1
            connection.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def hanging_up() -> Iterator[HangingUp]:
    server = HangingUp()
    yield server
    server.close()


@pytest.mark.parametrize(
    "ask", [lambda client: client.ping(), lambda client: round_trip(client, [("PING",)])], ids=["command", "round trip"]
)
def test_nothing_is_tried_again_behind_the_callers_back(
    hanging_up: HangingUp, ask: Callable[[redis.Redis], object]
) -> None:
    with connect(hanging_up.url) as client, pytest.raises(redis.ConnectionError):
        ask(client)
    assert hanging_up.taken == 1
