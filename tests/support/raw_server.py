"""A TCP server that answers as badly as a test asks, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from tests.support.tcp_server import TcpServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from types import TracebackType

SUCCESS = b'{"status":200,"error":{"code":"","message":"","field":""},"data":{"countInserted":1,"countDeleted":0}}'


def http(body: bytes = SUCCESS, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole, well-formed answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """One accepted connection, as a handler sees it."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.socket = sock
        self._stopped = stopped

    def read_request(self) -> bytes:
        """Read one request with its whole body; empty if the client hung up instead."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self.socket.recv(65536)
        return head + b"\r\n\r\n" + body

    def drip(self, pieces: Iterable[bytes], every_seconds: float = 0.05) -> None:
        """Send piece after piece, slowly, until the client or the test has had enough."""
        for piece in pieces:
            self.socket.sendall(piece)
            if self._stopped.wait(every_seconds):
                return

    def take_slowly(self, bytes_at_once: int, every_seconds: float = 0.01) -> None:
        """Read a little at a time until the client or the test has had enough."""
        while self.socket.recv(bytes_at_once) and not self._stopped.wait(every_seconds):
            pass

    def hang(self) -> None:
        """Do nothing until the test is over."""
        self._stopped.wait()

    def wait_for_hang_up(self) -> None:
        """Read until the client closes."""
        while self.socket.recv(65536):
            pass

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()


class RawServer(TcpServer):
    """Runs ``handler`` in a thread for every connection to a free port of 127.0.0.1.

    Args:
        handler: what to do with a connection, which is closed when it returns. A connection that breaks ends it.
        tls: speaks TLS with this context.
    """

    def __init__(self, handler: Callable[[Connection], None], tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._handler = handler
        self._tls = tls
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        super().__exit__(kind, error, trace)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            sock = self._tls.wrap_socket(client, server_side=True) if self._tls else client
            with sock:
                self._handler(Connection(sock, self._stopped))
