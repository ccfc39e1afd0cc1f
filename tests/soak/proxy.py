"""A TCP connection that can be held, broken, refused, or robbed of one reply, at will."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

STRETCH_BYTES = 1 << 16
"""Most bytes passed on at once."""

RESET = b"\x01\0\0\0\0\0\0\0"
"""SO_LINGER on, with 0 seconds: closing sends a RST."""


class Link:
    """One connection through a proxy.

    Attributes:
        robbed: the next reply, and all after it, is lost with the connection.
        follows: whether a replica follows its master through it.
    """

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.robbed = False
        self.follows = False
        self._ends = (client, server)

    def cut(self, *, reset: bool) -> None:
        """Ends the connection on both sides, with a RST if told so."""
        for end in self._ends:
            sock: socket.socket | None = end.get_extra_info("socket")
            if reset and sock is not None and sock.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.transport.abort()


class Proxy:
    """Forwards connections from a free port of 127.0.0.1 to one server, which may come and go.

    One thread serves all of its connections; its methods may be called from any other.

    Args:
        target: where to forward to: a `unix://` URL, or any with host and port; empty until `point_at` tells.
    """

    def __init__(self, target: str) -> None:
        self.point_at(target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[Link] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._replicating = asyncio.Event()
        self._replicating.set()
        self._server: asyncio.Server | None = None
        self._losing: tuple[tuple[bytes, ...], int] = ((), 0)
        self.port = 0
        self.replies_lost = 0

    def point_at(self, target: str) -> None:
        """New connections go there."""
        parts = urlsplit(target)
        self._path = unquote(parts.path) if parts.scheme == "unix" else ""
        self._address = (parts.hostname or "127.0.0.1", parts.port or 0)

    # What it does to connections

    def pause(self) -> None:
        """Passes nothing on any more, in either direction; connections stay open, and new ones are accepted."""
        self._do(self._passing.clear)

    def resume(self) -> None:
        """Passes on what was held, and what comes."""
        self._do(self._passing.set)

    def hold_replication(self) -> None:
        """Passes nothing on to replicas any more; all others are served."""
        self._do(self._replicating.clear)

    def drop_replication(self) -> None:
        """Loses what was held, with its connections; new ones are served."""
        self._do(self._drop_replication)

    def reset(self) -> None:
        """Ends every connection there is with a RST."""
        self._do(lambda: self._cut_all(reset=True))

    def refuse(self) -> None:
        """Listens no more, so that new connections are refused, and ends those there are."""
        self._run(self._stop_listening())
        self._do(lambda: self._cut_all(reset=False))

    def listen(self) -> None:
        """Listens on its port, the same as before if it did."""
        self._run(self._listen())

    def lose_reply_to(self, *needles: bytes, times: int = 1) -> None:
        """The next requests with any of these bytes are passed on, and their connections break instead of a reply."""
        self._do(lambda: setattr(self, "_losing", (needles, times)))

    def keep_replies(self) -> None:
        """Takes `lose_reply_to` back, if nothing has met it yet."""
        self.lose_reply_to()

    # Its life

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, action: Callable[[], object]) -> None:
        """Does something in the thread of the connections, and returns once it is done."""

        async def act() -> None:
            action()

        self._run(act())

    def _run(self, action: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=STRETCH_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end(self) -> None:
        await self._stop_listening()
        self._passing.set()
        self._replicating.set()
        self._cut_all(reset=False)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)

    def _cut_all(self, *, reset: bool) -> None:
        for link in list(self._links):
            link.cut(reset=reset)

    def _drop_replication(self) -> None:
        for link in list(self._links):
            if link.follows:
                link.cut(reset=False)
        self._replicating.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._requests(link, reader, server_writer),
                self._replies(link, server_reader, writer),
                return_exceptions=True,
            )
        finally:
            self._links.discard(link)
            link.cut(reset=False)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path:
            return await asyncio.open_unix_connection(self._path, limit=STRETCH_BYTES)
        return await asyncio.open_connection(*self._address, limit=STRETCH_BYTES)

    async def _requests(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            needles, times = self._losing
            if times and any(needle in data for needle in needles):
                self._losing = (needles, times - 1)
                link.robbed = True
            link.follows = link.follows or b"PSYNC" in data
            writer.write(data)
            await writer.drain()
        link.cut(reset=False)

    async def _replies(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            if link.robbed:
                self.replies_lost += 1
                break
            if link.follows:
                await self._replicating.wait()
            writer.write(data)
            await writer.drain()
        link.cut(reset=False)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(STRETCH_BYTES)
        await self._passing.wait()
        return data
