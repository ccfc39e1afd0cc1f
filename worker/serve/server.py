"""Serves the web application in the foreground."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import uvicorn

from worker.config.listen import Server, is_loopback_host, listen, url_of
from worker.serve.access import Access
from worker.serve.app import build_app
from worker.serve.connections import Connection
from worker.serve.snapshots import SnapshotCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

    from worker.config.serve import ServeSettings, Tokens

_STOP_SECONDS: Final = 5


def serve(settings: ServeSettings, tokens: Tokens, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Returns after Ctrl-C. SIGTERM ends the process by that signal, after the same clean stop.

    Args:
        settings: Redis and the namespace.
        tokens: the tokens for reading and for acting.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        announce: called with the URL when clients can connect.

    Raises:
        OSError: the address cannot be listened on.
    """
    access = Access(tokens, host, loopback=is_loopback_host(host), proxied=settings.proxied_hosts)
    with listen(host, port) as listener:
        app = build_app(SnapshotCache(settings, time.monotonic), access)
        server = server_of(app, lambda: announce(url_of(listener)))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def server_of(app: Starlette, announce: Callable[[], None] = lambda: None) -> Server:
    """Returns the server of the application. It limits connections, and stops in bounded time."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    return Server(config, announce)
