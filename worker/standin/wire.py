"""The raw connection below the stand-in endpoint, and the ways an answer can go out over it.

A well-behaved server hides its sockets from the application. Here the protocol hands each request
its connection, so that a fault may close it, reset it, or write to it a byte at a time.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Send

    from worker.standin.rules import Answer

CONNECTION = "connection"
"""Name of the connection in a request's ASGI state."""

BODILESS = frozenset({204, 304})
"""Statuses that HTTP gives no body, and no length of one."""

_CHUNK_BYTES = 64 * 1024


class Connection:
    """One client's connection.

    Attributes:
        lost: set once it is closed, by whichever side.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.lost = asyncio.Event()

    @staticmethod
    def of(scope: Mapping[str, Any]) -> Connection:
        """The connection a request came over.

        Raises:
            RuntimeError: the application is served by something else than `StandInServer`.
        """
        connection = scope.get("state", {}).get(CONNECTION)
        if not isinstance(connection, Connection):
            raise RuntimeError("connection: the stand-in must be served by its own server, see StandInServer")  # noqa: TRY004 - wiring, not a wrong argument
        return connection

    def write(self, data: bytes) -> None:
        """Writes past the server's own HTTP, as it is."""
        self._transport.write(data)

    async def close(self) -> None:
        """Sends what was written, closes (FIN), and returns once that is done."""
        self._transport.close()
        await self.lost.wait()

    async def reset(self) -> None:
        """Resets (RST), so that the client reads an error and no end of file."""
        sock = self._transport.get_extra_info("socket")
        # A linger of zero seconds turns the close into a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self.lost.wait()


class ConnectionProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with the connection within the application's reach."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its parent does
        """Hands the connection to every request that will come over it."""
        super().connection_made(transport)
        self._reachable = Connection(transport)
        # The parent copies this state into the scope of each request.
        self.app_state = {**self.app_state, CONNECTION: self._reachable}

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets those who wait on the connection know that it is gone."""
        # The parent first: it must know of the loss before a request returns without having answered.
        super().connection_lost(exc)
        self._reachable.lost.set()


class Reply(Protocol):
    """What a request gets: an answer in some manner, or none."""

    @property
    def answer(self) -> Answer | None:
        """The answer, None if there will be none."""

    async def send(self, connection: Connection, send: Send) -> None:
        """Lets the client have it; returns when nothing of it is left to do."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The answer, followed by as many spaces as make its body so long."""

    answer: Answer
    pad_to_bytes: int = 0

    async def send(self, connection: Connection, send: Send) -> None:
        """Answers as any server would."""
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
    """No answer: the connection is closed, or reset."""

    reset: bool = False
    answer: None = None

    async def send(self, connection: Connection, send: Send) -> None:  # noqa: ARG002 - the same for every reply
        """Ends the connection."""
        await (connection.reset() if self.reset else connection.close())


@dataclass(frozen=True, slots=True)
class Dripped:
    """The answer, a byte each so many seconds: from the first on, or only the body.

    Attributes:
        ended: set when it is to stop before its end.
    """

    answer: Answer
    seconds: float
    body_only: bool
    ended: asyncio.Event

    async def send(self, connection: Connection, send: Send) -> None:  # noqa: ARG002 - written past the server
        """Writes the bytes, then closes, as the server below does not know that it has answered."""
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
    """Waits until one of the events is set, or the seconds have passed."""
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
