"""Serves a stand-in endpoint: in the foreground for the command, in a thread for tests."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import uvicorn
from pydantic import SecretStr

from worker.config.listen import LOCALHOST, Server, listen, url_of
from worker.standin.app import build_app
from worker.standin.client import StandInClient
from worker.standin.settings import DEFAULT_KEY, StandInSettings
from worker.standin.stand_in import StandIn
from worker.standin.wire import ConnectionProtocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: as long as with most proxies in front of an endpoint."""

_STOP_SECONDS = 10.0


class StandInServer(Server):
    """uvicorn with the stand-in's own protocol. It stops at once, even while clients wait for answers.

    Args:
        stand_in: what answers.
        announce: called once it serves and handles signals.
    """

    def __init__(self, stand_in: StandIn, announce: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                build_app(stand_in),
                http=ConnectionProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ),
            announce,
        )
        self._stand_in = stand_in

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends every wait and every connection, then stops like uvicorn."""
        self._stand_in.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def serve(  # noqa: PLR0913 - each is an option of the command
    host: str = LOCALHOST,
    port: int = 8080,
    key_id: str = DEFAULT_KEY,
    key_secret: str = DEFAULT_KEY,
    *,
    latency_seconds: float = 0.0,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves a stand-in endpoint until Ctrl-C or SIGTERM.

    Returns after Ctrl-C. SIGTERM ends the process by that signal, after the same clean stop.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        key_id: id of the Server-Key it accepts; empty accepts any.
        key_secret: secret of the Server-Key it accepts; empty accepts any.
        latency_seconds: how long every request waits before it is processed.
        announce: called with the URL when clients can connect.

    Raises:
        OSError: the address cannot be listened on.
        pydantic.ValidationError: a key or the latency is invalid.
    """
    settings = StandInSettings(key_id=key_id, key_secret=SecretStr(key_secret), latency_seconds=latency_seconds)
    with listen(host, port) as listener:
        server = StandInServer(StandIn(settings), lambda: announce(url_of(listener)))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


class StandInThread:
    """A stand-in endpoint in a thread of this process, as a context manager.

    ```python
    with StandInThread() as stand_in:
        deliver_to(stand_in.url)
        assert stand_in.contacts() == {("1", "2")}
    ```

    Args:
        settings: the first settings, also after a reset.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
    """

    def __init__(self, settings: StandInSettings | None = None, *, host: str = LOCALHOST, port: int = 0) -> None:
        self._stand_in = StandIn(settings)
        self._server = StandInServer(self._stand_in)
        self._address = (host, port)

    def __enter__(self) -> StandInClient:
        """Starts the server and returns the client that controls it; deliver to its `url`.

        Raises:
            OSError: the address cannot be listened on.
        """
        # Clients that connect before the loop runs wait in the listener's backlog, so we need not wait here.
        self._listener = listen(*self._address)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), name="stand-in", daemon=True)
        self._thread.start()
        self._client = StandInClient(url_of(self._listener))
        return self._client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops the server; clients that wait for an answer lose their connection."""
        self._client.close()
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._listener.close()
