"""The client of the lease path: it tries once, and whoever called it decides what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.tcp_server import TcpServer
from worker.store.client import connect, round_trip

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator


class HangingUp(TcpServer):
    """A server that takes every connection and hangs up."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _serve(self, client: socket.socket) -> None:
        client.close()


@pytest.fixture
def hanging_up() -> Iterator[HangingUp]:
    with HangingUp() as server:
        yield server


@pytest.mark.parametrize(
    "ask", [lambda client: client.ping(), lambda client: round_trip(client, [("PING",)])], ids=["command", "round trip"]
)
def test_nothing_is_tried_again_behind_the_callers_back(
    hanging_up: HangingUp, ask: Callable[[redis.Redis], object]
) -> None:
    with connect(hanging_up.url) as client, pytest.raises(redis.ConnectionError):
        ask(client)
    assert hanging_up.connections == 1
