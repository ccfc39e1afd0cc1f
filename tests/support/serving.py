"""`serve` in this process, spoken to as its page and as Prometheus speak to it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from worker.config.listen import LOCALHOST, listen, url_of
from worker.config.serve import ServeSettings, Tokens
from worker.serve.access import Access
from worker.serve.app import build_app
from worker.serve.server import server_of
from worker.serve.snapshots import SnapshotCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fleet import Fleet

OPERATOR, READER = "operator-token-16", "reader-token-0016"
TOKENS = Tokens(OPERATOR, READER)
OPEN = Tokens(None, None)
OURS = {"x-contact-sync": "1"}


def serve_settings(fleet: Fleet, serve_hosts: str = "", **overrides: Any) -> ServeSettings:
    return ServeSettings(serve_hosts=serve_hosts, **fleet.settings(**overrides).model_dump(exclude_unset=True))


@contextmanager
def serving(fleet: Fleet, tokens: Tokens = OPEN, *, loopback: bool = True, **overrides: Any) -> Iterator[httpx.Client]:
    """A client of it, without a sign-in."""
    settings = serve_settings(fleet, **overrides)
    access = Access(tokens, LOCALHOST, loopback=loopback, proxied=settings.proxied_hosts)
    server = server_of(build_app(SnapshotCache(settings, time.monotonic), access))
    with listen(LOCALHOST, 0) as listener:
        # Who connects before the loop runs waits in the listener's backlog.
        thread = threading.Thread(target=server.run, args=([listener],), name="serve")
        thread.start()
        try:
            with httpx.Client(base_url=url_of(listener), headers=OURS, timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def sign_in(client: httpx.Client, token: str) -> None:
    assert client.post("/api/sign-in", json={"token": token}).status_code == 200


def metrics(client: httpx.Client, **headers: str) -> dict[str, float]:
    """Every sample of a scrape, by its name and labels as they are written."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
