"""What this project's own HTTP servers have in common: how they listen, when they say so, and what is no request."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

LOCALHOST: Final = "127.0.0.1"


def is_loopback_host(host: str) -> bool:
    """Whether only this machine can reach a server that listens on this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening TCP socket; port 0 takes a free one.

    Raises:
        OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol. With Nagle's algorithm on,
    # every answer on a reused connection arrived 40 ms late.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    except (TypeError, ValueError):  # a name that no name can be
        listener.close()
        raise OSError(errno.EINVAL, "it is not a host's name") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Returns the URL under which clients reach the socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which refuses what is no HTTP once: what the application answers then reaches nobody."""

    def send_400_response(self, msg: str) -> None:
        """Refuses it, unless an answer has begun."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class Server(uvicorn.Server):
    """uvicorn, which announces itself once it serves and handles signals.

    A signal that came between an announcement and the handlers would be an exception just anywhere.

    Args:
        config: uvicorn's.
        announce: called without arguments.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts like uvicorn, then announces."""
        await super().startup(sockets)
        self._announce()
