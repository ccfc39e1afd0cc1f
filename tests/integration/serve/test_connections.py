"""Connections that keep `serve` waiting keep nobody else waiting: not probes, not Prometheus, not the page."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.serving import TOKENS, serving
from worker.serve.access import COOKIE
from worker.serve.connections import CONNECTIONS_MAX, REQUEST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.support.fleet import Fleet

PATHS = ("/healthz", "/readyz", "/")

UNFINISHED = {
    "silent": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-a: ",
    "half a body": b"POST /api/sign-in HTTP/1.1\r\nhost: localhost\r\nx-contact-sync: 1\r\n"
    b"content-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    "answered and kept": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "does not read": b"GET /page.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 400,
}


@contextmanager
def connected(client: httpx.Client, count: int, begins: bytes) -> Iterator[list[socket.socket]]:
    address = (client.base_url.host, client.base_url.port or 0)
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            each = stack.enter_context(socket.socket())
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect(address)
            each.settimeout(5)
            for at in range(0, len(begins), 1 << 14):
                each.sendall(begins[at : at + (1 << 14)])
            opened.append(each)
        yield opened


@pytest.mark.parametrize("kind", UNFINISHED)
def test_more_connections_than_there_is_room_for_keep_nobody_out(kind: str, fleet: Fleet) -> None:
    with serving(fleet, TOKENS) as client, connected(client, CONNECTIONS_MAX + 20, UNFINISHED[kind]):
        for _ in range(3):
            assert {path: client.get(path).status_code for path in PATHS} == dict.fromkeys(PATHS, 200)
            client.get("/healthz", headers={"connection": "close"})  # the next request needs a connection of its own


def ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_the_connections_that_wait_for_longest_are_closed_for_others(fleet: Fleet) -> None:
    with serving(fleet, TOKENS) as client, connected(client, CONNECTIONS_MAX + 20, b"") as opened:
        assert client.get("/healthz", headers={"connection": "close"}).status_code == 200
        assert [ended(each) for each in opened[:20]] == [True] * 20
        assert not ended(opened[-1])


@pytest.mark.parametrize("kind", ["silent", "half a head", "half a body"])
def test_a_request_that_does_not_come_ends_its_connection(kind: str, fleet: Fleet) -> None:
    with serving(fleet, TOKENS) as client, connected(client, 1, UNFINISHED[kind]) as (waiting,):
        waiting.settimeout(REQUEST_SECONDS + 60)
        began = time.monotonic()
        with suppress(ConnectionResetError):
            assert waiting.recv(1000) == b""
        assert time.monotonic() - began >= REQUEST_SECONDS - 1


@pytest.mark.parametrize(
    "cookie",
    [
        "a;" * 30_000,
        '"\\' * 30_000,
        "=" * 60_000,
        "a=" + '"' * 59_990,
        "a" + " " * 60_000 + "a",
        f"{COOKIE}=x;" * 2_500,
        f'{COOKIE}="' + '\\"' * 29_000 + '"',
        "é=" * 20_000,
    ],
)
def test_a_long_cookie_costs_no_more_than_its_length(cookie: str, fleet: Fleet) -> None:
    with serving(fleet, TOKENS) as client:
        began = time.monotonic()
        answers = {client.get("/api/status", headers=[(b"cookie", cookie.encode())]).status_code for _ in range(5)}
        assert time.monotonic() - began < 5  # a single one took 4.5 s
        assert answers <= {400, 401, 431}


BROKEN_OFF = b"host: localhost\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"POST /api/sign-in HTTP/1.1\r\n" + BROKEN_OFF, b""),
        (b"POST /api/nothing HTTP/1.1\r\n" + BROKEN_OFF, b""),
        (b"POST /api/sign-out HTTP/1.1\r\n" + BROKEN_OFF, b""),
        (b"POST /api/nothing HTTP/1.1\r\n" + BROKEN_OFF.removesuffix(b"zz\r\n"), b"zz\r\n"),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", b"zz\r\n\r\n"),
        (b"zz\r\n\r\n", b""),
    ],
)
def test_what_is_no_request_is_refused_without_a_traceback(
    begins: bytes, goes_on: bytes, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(fleet, TOKENS) as client, connected(client, 1, begins) as (connection,):
        said = connection.recv(1) if goes_on else b""
        connection.sendall(goes_on)
        with suppress(ConnectionResetError):
            while more := connection.recv(1000):
                said += more
        assert client.get("/healthz").status_code == 200
    assert said.startswith(b"HTTP/1.1 ")
    assert (b" 400 " in said) is (not goes_on or b"healthz" in begins)
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []
