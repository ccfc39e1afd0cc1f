"""Servers that speak TLS with certificates of an authority that only the tests know."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import trustme

from tests.support.tcp_server import TcpServer
from tests.support.tls_nodes import Certificates

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """A certificate authority, and its certificate in a file.

    Args:
        directory: where that file lies.
        name: of the file.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._made = trustme.CA()
        self.path = directory / f"{name}.pem"
        self._made.cert_pem.write_to_path(str(self.path))

    def serving(self, *hosts: str) -> ssl.SSLContext:
        """What a server needs that is one of these hosts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._made.issue_cert(*hosts).configure_cert(context)
        return context

    def files(self, directory: Path, *hosts: str) -> Certificates:
        """What a real Redis needs that is one of these hosts."""
        issued = self._made.issue_cert(*hosts)
        found = Certificates(self.path, directory / "server.pem", directory / "server.key")
        issued.cert_chain_pems[0].write_to_path(str(found.certificate))
        issued.private_key_pem.write_to_path(str(found.key))
        return found

    def trusting(self) -> ssl.SSLContext:
        """What a client needs that trusts this authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.path))


class TlsRedis(TcpServer):
    """TLS in front of a real Redis, on a free port of 127.0.0.1: the Redis of the wheel speaks none itself.

    Args:
        redis_url: `unix://` URL of the Redis.
        context: the server's side of TLS.
    """

    def __init__(self, redis_url: str, context: ssl.SSLContext) -> None:
        super().__init__()
        self._target = unquote(urlsplit(redis_url).path)
        self._context = context
        self.greeted = 0
        """Connections whose handshake came to an end."""

    def url(self, query: str = "", *, host: str = "127.0.0.1", database: int = 0) -> str:
        """Its URL, with options."""
        return f"rediss://{host}:{self.port}/{database}" + (f"?{query}" if query else "")

    def _serve(self, client: socket.socket) -> None:
        """One connection, both ways in one thread: an SSL object is not for two."""
        inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(inside, outside, server_side=True)
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._target)
            self._open.append(server)
            self._start(self._replies, client, server, tls, outside, lock := threading.Lock())
            try:
                self._requests(client, server, tls, inside, outside, lock)
            finally:
                server.shutdown(socket.SHUT_RDWR)  # wakes who waits for replies

    def _requests(  # noqa: PLR0913, PLR0917 - both sockets, and what stands between them
        self,
        client: socket.socket,
        server: socket.socket,
        tls: ssl.SSLObject,
        inside: ssl.MemoryBIO,
        outside: ssl.MemoryBIO,
        lock: threading.Lock,
    ) -> None:
        shaken = False
        while data := client.recv(65536):
            with lock:
                inside.write(data)
                try:
                    if not shaken:
                        tls.do_handshake()
                        shaken = True
                        self.greeted += 1
                    while plain := tls.read(65536):
                        server.sendall(plain)
                except ssl.SSLWantReadError:
                    pass
                else:
                    return  # the client says that it has nothing more to say, and waits for the end
                finally:
                    client.sendall(outside.read())

    @staticmethod
    def _replies(
        client: socket.socket, server: socket.socket, tls: ssl.SSLObject, outside: ssl.MemoryBIO, lock: threading.Lock
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                with lock:
                    tls.write(data)
                    client.sendall(outside.read())
            client.shutdown(socket.SHUT_RDWR)
