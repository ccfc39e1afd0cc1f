"""The HTTP adapter against real sockets: what is sent, what is read, and which connections are kept."""

from __future__ import annotations

import queue
import socket
import threading
import time

import pytest

from tests.support.exchange import KEY, answering, endpoint, send_to
from tests.support.raw_server import SUCCESS, Connection, RawServer, http
from worker.core.outcome import Answer, NoAnswer
from worker.delivery.endpoint import BODY_CAP, Endpoint

# What is sent, and what comes back


def test_posts_the_body_with_exactly_the_headers_of_the_contract() -> None:
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(connection: Connection) -> None:
        requests.put(connection.read_request())
        connection.socket.sendall(http())

    with RawServer(handler) as server, endpoint(server.url + "/base/") as made:
        answer = made.send(b'{"contacts":[]}', KEY)
    head, _, body = requests.get(timeout=5).partition(b"\r\n\r\n")
    request_line, *headers = head.decode().split("\r\n")
    assert answer == Answer(status=200, retry_after=None, body=SUCCESS)
    assert request_line == "POST /base/v1/server/contact/sync HTTP/1.1"
    assert body == b'{"contacts":[]}'
    assert sorted(headers) == [
        "Accept-Encoding: identity",
        "Accept: application/json",
        "Content-Length: 15",
        "Content-Type: application/json",
        f"Host: 127.0.0.1:{server.port}",
        f"Server-Key: {KEY}",
        "User-Agent: contact-sync",
    ]


def test_the_request_leaves_in_one_piece_so_that_no_server_waits_for_the_second() -> None:
    first: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(connection: Connection) -> None:
        first.put(connection.socket.recv(65536))
        connection.socket.sendall(http())
        connection.wait_for_hang_up()

    send_to(handler, body=b"[1,2,3]")
    assert first.get(timeout=5).endswith(b"\r\n\r\n[1,2,3]")


@pytest.mark.parametrize("size", [0, 1, 500_000, 3_000_000])
def test_bodies_of_any_size_arrive_whole(size: int) -> None:
    seen: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(connection: Connection) -> None:
        seen.put(connection.read_request())
        connection.socket.sendall(http())

    body = bytes(i % 251 for i in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    assert isinstance(send_to(handler, body=body), Answer)
    assert seen.get(timeout=5).partition(b"\r\n\r\n")[2] == body


def test_returns_status_retry_after_and_body_of_a_failure() -> None:
    answer = send_to(answering(http(b"busy", "429 Too Many Requests", "Retry-After: 7")))
    assert answer == Answer(status=429, retry_after="7", body=b"busy")


def test_returns_each_retry_after_of_an_answer_that_has_two() -> None:
    answer = send_to(answering(http(b"busy", "429 Too Many Requests", "Retry-After: 20", "Retry-After: 40")))
    assert answer == Answer(status=429, retry_after="20, 40", body=b"busy")


def test_reads_a_chunked_answer_and_one_that_ends_with_the_connection() -> None:
    half = len(SUCCESS) // 2
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (SUCCESS[:half], SUCCESS[half:], b"")
    )

    def until_close(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + SUCCESS)

    assert send_to(answering(chunked)) == Answer(200, None, SUCCESS)
    assert send_to(until_close) == Answer(200, None, SUCCESS)


def test_a_redirect_is_returned_and_not_followed() -> None:
    with RawServer(answering(http())) as elsewhere:
        answer = send_to(answering(http(b"", "302 Found", f"Location: {elsewhere.url}/")))
    assert answer == Answer(status=302, retry_after=None, body=b"")
    assert elsewhere.connections == 0


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(answering(http(b"proxy"))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert send_to(answering(http())) == Answer(200, None, SUCCESS)
    assert proxy.connections == 0


def test_cookies_are_not_kept() -> None:
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(connection: Connection) -> None:
        while request := connection.read_request():
            requests.put(request)
            connection.socket.sendall(http(SUCCESS, "200 OK", "Set-Cookie: a=b"))

    with RawServer(handler) as server, endpoint(server.url) as made:
        made.send(b"1", KEY)
        made.send(b"2", KEY)
    assert requests.get(timeout=5)
    assert b"cookie" not in requests.get(timeout=5).lower()


# Too much of an answer


def test_a_body_larger_than_the_cap_is_unreadable_and_is_not_read_to_its_end() -> None:
    given_up = threading.Event()

    def handler(connection: Connection) -> None:
        connection.read_request()
        try:
            connection.socket.sendall(http(b" " * (10 * BODY_CAP), "503 Service Unavailable", "Retry-After: 3"))
            connection.wait_for_hang_up()
        except OSError:
            given_up.set()

    assert send_to(handler) == Answer(503, "3", b"", readable=False)
    assert given_up.is_set()


def test_a_body_of_exactly_the_cap_is_read() -> None:
    body = b" " * BODY_CAP
    assert send_to(answering(http(body))) == Answer(200, None, body)


def test_headers_of_a_mebibyte_are_no_answer() -> None:
    answer = send_to(answering(http(SUCCESS, "200 OK", "X-Long: " + "a" * (1024 * 1024))))
    assert isinstance(answer, NoAnswer)
    assert answer.sent


def test_a_compressed_body_is_never_inflated() -> None:
    answer = send_to(answering(http(b"\x1f\x8b\x08bomb", "200 OK", "Content-Encoding: gzip")))
    assert answer == Answer(200, None, b"\x1f\x8b\x08bomb")


# Connections that are used again


def test_connections_are_used_again() -> None:
    with RawServer(answering(http(), http(), http())) as server, endpoint(server.url) as made:
        answers = [made.send(b"{}", KEY) for _ in range(3)]
        assert answers == [Answer(200, None, SUCCESS)] * 3
        assert server.connections == 1


def test_a_kept_connection_that_the_server_closed_is_replaced_unnoticed() -> None:
    closed = threading.Event()

    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(http())
        connection.socket.shutdown(socket.SHUT_WR)
        closed.set()
        connection.wait_for_hang_up()

    with RawServer(handler) as server, endpoint(server.url) as made:
        for n in (1, 2):
            assert made.send(b"{}", KEY) == Answer(200, None, SUCCESS)
            assert closed.wait(5)
            closed.clear()
            assert server.connections == n


def test_a_kept_connection_that_breaks_under_the_next_request_leaves_it_in_doubt() -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(http())
        connection.read_request()

    with RawServer(handler) as server, endpoint(server.url) as made:
        assert made.send(b"{}", KEY) == Answer(200, None, SUCCESS)
        answer = made.send(b"{}", KEY)
        assert server.connections == 1
    assert isinstance(answer, NoAnswer)
    assert answer.sent


def test_a_connection_with_an_unread_answer_is_not_used_again() -> None:
    with RawServer(answering(http(b" " * (BODY_CAP + 1)), http(b"left over"))) as server, endpoint(server.url) as made:
        made.send(b"1", KEY)
        made.send(b"2", KEY)
        assert server.connections == 2


def test_an_answer_given_twice_does_not_confirm_the_next_request() -> None:
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def handler(connection: Connection) -> None:
        while request := connection.read_request():
            requests.put(request[-1:])
            connection.socket.sendall(http() + http())

    with RawServer(handler) as server, endpoint(server.url) as made:
        answers = [made.send(body, KEY) for body in (b"1", b"2", b"3")]
        assert server.connections == 2
    assert answers[1] == NoAnswer(sent=False, why="the connection held an answer to no request")
    assert answers[0] == answers[2] == Answer(200, None, SUCCESS)
    assert [requests.get(timeout=5), requests.get(timeout=5)] == [b"1", b"3"]
    assert requests.empty()


# Configuration


@pytest.mark.parametrize(
    "url",
    ["", "endpoint.example", "ftp://endpoint.example", "http://", "http://u:pw@host", "http://h/?a=1", "http://[::1"],
)
def test_a_url_that_is_no_base_url_is_refused_in_one_line_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint URL: ") as refusal:
        Endpoint(url, 1.0)
    assert "\n" not in str(refusal.value)
    assert "pw" not in str(refusal.value)


def test_a_key_that_is_no_header_value_is_neither_sent_nor_quoted() -> None:
    with RawServer(answering(http())) as server, endpoint(server.url) as made:
        answer = made.send(b"{}", "se\r\ncret")
    assert answer == NoAnswer(sent=False, why="the request holds a header that cannot be sent")


# A connection that cannot be trusted


def test_a_connection_is_not_used_again_after_its_answer_was_distrusted() -> None:
    with RawServer(answering(http(), http())) as server, endpoint(server.url) as made:
        made.send(b"1", KEY)
        made.distrust()
        assert made.send(b"2", KEY) == Answer(200, None, SUCCESS)
        assert server.connections == 2


def test_an_answer_repeated_while_the_connection_is_idle_does_not_confirm_the_next_request() -> None:
    repeated = threading.Event()

    def handler(connection: Connection) -> None:
        while connection.read_request():
            connection.socket.sendall(http())
            time.sleep(0.03)
            connection.socket.sendall(http())
            repeated.set()

    with RawServer(handler) as server, endpoint(server.url) as made:
        made.send(b"1", KEY)
        assert repeated.wait(5)
        time.sleep(0.05)
        made.send(b"2", KEY)
        assert server.connections == 2


def test_connections_that_serve_once_cannot_carry_another_requests_answer() -> None:
    with RawServer(answering(http(), http())) as server:
        made = Endpoint(server.url, 5.0, reuse=False)
        assert made.send(b"1", KEY) == made.send(b"2", KEY) == Answer(200, None, SUCCESS)
        made.close()
        assert server.connections == 2
