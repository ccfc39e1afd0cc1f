"""A connection to Redis that breaks at the worst moment: after a command was done, before its reply arrived."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from types import TracebackType


class RedisProxy:
    """Forwards connections from a free port of 127.0.0.1 to a Redis on a Unix socket.

    Args:
        redis_url: `unix://` URL of the Redis.
        port: port to listen on; 0 takes a free one.
    """

    def __init__(self, redis_url: str, port: int = 0) -> None:
        self._target = unquote(urlsplit(redis_url).path)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._needle: bytes | None = None
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.cuts = 0

    def lose_reply_to(self, needle: bytes) -> None:
        """The next request that holds these bytes is done by Redis, and its connection breaks instead of a reply."""
        self._needle = needle

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in [self._listener, *self._open]:
            # Closing alone does not wake a thread that waits in accept or recv.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(timeout=10)
            assert not thread.is_alive()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type] # the two methods below
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            loses = threading.Event()
            self._start(self._requests, client, server, loses)
            self._start(self._replies, client, server, loses)

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
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
