"""The raw connection of the stand-in endpoint, and the ways to send an answer over it.

A usual server hides its sockets from the application. Here the protocol gives each request its connection, so that a
fault can close it, reset it, or write to it one byte at a time.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from worker.config.listen import HttpProtocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Send

    from worker.standin.rules import Answer

CONNECTION = "connection"
"""Key of the connection in a request's ASGI state."""

BODILESS = frozenset({204, 304})
"""HTTP statuses that have no body and no Content-Length."""

_CHUNK_BYTES = 64 * 1024


class Connection:
    """One client's connection.

    Attributes:
        lost: set when it is closed, by either side.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.lost = asyncio.Event()

    @staticmethod
    def of(scope: Mapping[str, Any]) -> Connection:
        """Returns the connection of a request.

        Raises:
            RuntimeError: the application is not served by `StandInServer`.
        """
        connection = scope.get("state", {}).get(CONNECTION)
        if not isinstance(connection, Connection):
            raise RuntimeError("connection: the stand-in must be served by its own server, see StandInServer")  # noqa: TRY004 - the setup is wrong, not an argument
        return connection

    def write(self, data: bytes) -> None:
        """Writes raw bytes, bypassing the server's HTTP."""
        self._transport.write(data)

    async def close(self) -> None:
        """Sends what was written, closes the connection (FIN), and returns when it is closed."""
        self._transport.close()
        await self.lost.wait()

    async def reset(self) -> None:
        """Resets the connection (RST), so that the client gets an error instead of an end of file."""
        sock = self._transport.get_extra_info("socket")
        # A linger of zero seconds turns the close into a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self.lost.wait()


class ConnectionProtocol(HttpProtocol):
    """This project's HTTP/1.1, which also gives the application its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its parent does
        """Gives the connection to every request that arrives over it."""
        super().connection_made(transport)
        self._reachable = Connection(transport)
        # The parent copies this state into the scope of each request.
        self.app_state = {**self.app_state, CONNECTION: self._reachable}

    def connection_lost(self, exc: Exception | None) -> None:
        """Wakes those who wait for the end of the connection."""
        # The parent first: it must know of the loss before a request returns without an answer.
        super().connection_lost(exc)
        self._reachable.lost.set()


class Reply(Protocol):
    """The reply to a request: an answer sent in some way, or no answer."""

    @property
    def answer(self) -> Answer | None:
        """The answer; None if there is none."""

    async def send(self, connection: Connection, send: Send) -> None:
        """Sends the reply; returns when it is complete."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A normal answer, with its body padded with spaces to `pad_to_bytes`."""

    answer: Answer
    pad_to_bytes: int = 0

    async def send(self, connection: Connection, send: Send) -> None:
        """Sends the answer over HTTP."""
        missing = max(self.pad_to_bytes - len(self.answer.body), 0)
        headers = [(name.encode(), value.encode()) for name, value in _headers(self.answer, missing)]
        await send({"type": "http.response.start", "status": self.answer.status, "headers": headers})
        body = self.answer.body
        while missing and not connection.lost.is_set():
            await send({"type": "http.response.body", "body": body, "more_body": True})
            body = b" " * min(missing, _CHUNK_BYTES)
            missing -= len(body)
        await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True)
class Closed:
    """No answer: the connection is closed or reset."""

    reset: bool = False
    answer: None = None

    async def send(self, connection: Connection, send: Send) -> None:  # noqa: ARG002 - the same for every reply
        """Ends the connection."""
        await (connection.reset() if self.reset else connection.close())


@dataclass(frozen=True, slots=True)
class Dripped:
    """An answer sent one byte every `seconds`: all of it, or only the body.

    Attributes:
        ended: set if sending must stop early.
    """

    answer: Answer
    seconds: float
    body_only: bool
    ended: asyncio.Event

    async def send(self, connection: Connection, send: Send) -> None:  # noqa: ARG002 - written past the server
        """Writes the bytes, then closes the connection, because the server below does not know of this answer."""
        head = _raw_head(self.answer)
        if self.body_only:
            connection.write(head)
        for byte in self.answer.body if self.body_only else head + self.answer.body:
            connection.write(bytes((byte,)))
            await first_of(connection.lost, self.ended, seconds=self.seconds)
            if connection.lost.is_set() or self.ended.is_set():
                break
        await connection.close()


async def first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Waits until one of the events is set or the seconds have passed."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _headers(answer: Answer, padding: int = 0) -> list[tuple[str, str]]:
    headers = [("content-type", "application/json"), *answer.headers]
    if answer.status not in BODILESS:
        headers.append(("content-length", str(len(answer.body) + padding)))
    return headers


def _raw_head(answer: Answer) -> bytes:
    reason = http.HTTPStatus(answer.status).phrase
    lines = [f"{name}: {value}" for name, value in (*_headers(answer), ("connection", "close"))]
    return "\r\n".join([f"HTTP/1.1 {answer.status} {reason}", *lines, "", ""]).encode()
