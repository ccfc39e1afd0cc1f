"""A connection to Redis that breaks at the worst moment: after a command was done, before its reply arrived."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import unquote, urlsplit

from tests.support.tcp_server import TcpServer


class RedisProxy(TcpServer):
    """Forwards connections from a port of 127.0.0.1 to a Redis on a Unix socket.

    Args:
        redis_url: `unix://` URL of the Redis.
        port: port to listen on; 0 takes a free one.
    """

    def __init__(self, redis_url: str, port: int = 0) -> None:
        super().__init__(port)
        self._target = unquote(urlsplit(redis_url).path)
        self._needle: bytes | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.cuts = 0
        self.disguise: tuple[bytes, bytes] | None = None
        """What to put into replies in the place of something as long."""

    def point_at(self, redis_url: str) -> None:
        """New connections go to another Redis; those that are open stay where they are, as behind a DNS name."""
        self._target = unquote(urlsplit(redis_url).path)

    def lose_reply_to(self, needle: bytes) -> None:
        """The next request that holds these bytes is done by Redis, and its connection breaks instead of a reply."""
        self._needle = needle

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        self._open.append(server)
        loses = threading.Event()
        self._start(self._requests, client, server, loses)
        self._replies(client, server, loses)

    def _requests(self, client: socket.socket, server: socket.socket, loses: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                if self._needle is not None and self._needle in data:
                    self._needle = None
                    loses.set()
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _replies(self, client: socket.socket, server: socket.socket, loses: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if loses.is_set():
                    self.cuts += 1
                    break
                client.sendall(data if self.disguise is None else data.replace(*self.disguise))
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
