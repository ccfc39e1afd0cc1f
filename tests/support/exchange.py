"""One exchange between the HTTP adapter and a server that misbehaves to order."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.raw_server import Connection, RawServer
from worker.delivery.endpoint import Endpoint

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from worker.core.outcome import Answer, NoAnswer

KEY = "a2V5LWlkOnNlY3JldA=="


@contextlib.contextmanager
def endpoint(url: str, timeout_seconds: float = 5.0, tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    with contextlib.closing(Endpoint(url, timeout_seconds, ssl_context=tls)) as made:
        yield made


def send_to(
    handler: Callable[[Connection], None], timeout_seconds: float = 5.0, body: bytes = b"{}"
) -> Answer | NoAnswer:
    with RawServer(handler) as server, endpoint(server.url, timeout_seconds) as made:
        return made.send(body, KEY)


def answering(*answers: bytes) -> Callable[[Connection], None]:
    """Give the answers in turn on one connection, then wait for the client to hang up."""

    def handler(connection: Connection) -> None:
        for answer in answers:
            if not connection.read_request():
                return
            connection.socket.sendall(answer)
        connection.wait_for_hang_up()

    return handler
