"""The deadline of a request, and connections that fail, against real sockets that misbehave."""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.exchange import KEY, answering, endpoint, send_to
from tests.support.raw_server import SUCCESS, Connection, RawServer, http
from worker.core.outcome import Answer, Confirmed, NoAnswer, Retry, decide
from worker.delivery.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE_SECONDS = 0.4
# The scheduler of a busy machine is not what these tests are about: a missing deadline shows in many times more.
GENEROUS = 3


def timed_send(handler: Callable[[Connection], None], body: bytes = b"{}") -> Answer | NoAnswer:
    """Send under `DEADLINE_SECONDS` and insist that the deadline was kept, neither early nor late."""
    with RawServer(handler) as server, endpoint(server.url, DEADLINE_SECONDS) as made:
        begun = time.monotonic()
        answer = made.send(body, KEY)
        took = time.monotonic() - begun
    assert DEADLINE_SECONDS * 0.9 < took < DEADLINE_SECONDS * GENEROUS
    return answer


def endless(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece)


# The deadline


def test_an_answer_that_never_comes_ends_at_the_deadline() -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.hang()

    assert timed_send(handler) == NoAnswer(sent=True, why="no answer before the deadline")


def test_headers_that_drip_end_at_the_deadline() -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        connection.drip(endless(b"a"))

    assert timed_send(handler) == NoAnswer(sent=True, why="no answer before the deadline")


def test_interim_answers_that_drip_end_at_the_deadline() -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.drip(endless(b"HTTP/1.1 102 Processing\r\n\r\n"))

    assert timed_send(handler) == NoAnswer(sent=True, why="no answer before the deadline")


def test_a_body_that_drips_ends_at_the_deadline_with_the_status_known() -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 5000\r\n\r\n")
        connection.drip(endless(b"a"))

    assert timed_send(handler) == Answer(500, None, b"", readable=False)


def test_a_request_that_nobody_takes_ends_at_the_deadline() -> None:
    answer = timed_send(Connection.hang, body=b"x" * 20_000_000)
    assert answer == NoAnswer(sent=True, why="no answer before the deadline")


def test_a_request_that_is_taken_in_drips_ends_at_the_deadline() -> None:
    answer = timed_send(lambda connection: connection.take_slowly(100_000), body=b"x" * 50_000_000)
    assert answer == NoAnswer(sent=True, why="no answer before the deadline")


def test_a_tls_handshake_that_never_ends_is_no_request_sent() -> None:
    with RawServer(Connection.hang) as server, endpoint(server.url.replace("http", "https"), DEADLINE_SECONDS) as made:
        begun = time.monotonic()
        answer = made.send(b"{}", KEY)
        took = time.monotonic() - begun
    assert isinstance(answer, NoAnswer)
    assert not answer.sent
    assert took < DEADLINE_SECONDS * GENEROUS


def test_a_connection_that_is_never_taken_up_ends_at_the_deadline() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # with its queue full, the kernel drops what else knocks
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(listener.getsockname())
        made = stack.enter_context(endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", DEADLINE_SECONDS))
        begun = time.monotonic()
        answer = made.send(b"{}", KEY)
        took = time.monotonic() - begun
    assert isinstance(answer, NoAnswer)
    assert not answer.sent
    assert DEADLINE_SECONDS * 0.9 < took < DEADLINE_SECONDS * GENEROUS


def test_name_resolution_that_hangs_ends_at_the_deadline_and_is_not_begun_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()
    begun = itertools.count()

    def hang(*_: object, **__: object) -> list[object]:
        next(begun)
        release.wait()
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with endpoint("http://endpoint.invalid", DEADLINE_SECONDS) as made:
        start = time.monotonic()
        answers = [made.send(b"{}", KEY), made.send(b"{}", KEY)]
        took = time.monotonic() - start
    release.set()
    assert (
        answers
        == [
            NoAnswer(sent=False, why="no connection: the name was not resolved before the deadline"),
        ]
        * 2
    )
    assert DEADLINE_SECONDS * 2 * 0.9 < took < DEADLINE_SECONDS * 2 * GENEROUS
    assert next(begun) == 1


def test_the_callers_deadline_counts_where_it_is_earlier_than_the_timeout() -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.hang()

    with RawServer(handler) as server, endpoint(server.url, timeout_seconds=60) as made:
        begun = time.monotonic()
        answer = made.send(b"{}", KEY, deadline_monotonic=begun + DEADLINE_SECONDS)
        took = time.monotonic() - begun
    assert answer == NoAnswer(sent=True, why="no answer before the deadline")
    assert took < DEADLINE_SECONDS * GENEROUS


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    with RawServer(answering(http())) as server, endpoint(server.url) as made:
        answer = made.send(b"{}", KEY, deadline_monotonic=time.monotonic() - 1)
        assert server.connections == 0
    assert answer == NoAnswer(sent=False, why="the deadline passed before the request began")


def test_a_deadline_that_passes_while_connecting_sends_nothing() -> None:
    """The clock is the test's: it jumps over the deadline once the connection stands."""
    clock = itertools.chain([0.0, 0.0, 0.0], itertools.repeat(100.0))
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with RawServer(lambda connection: received.put(connection.socket.recv(100))) as server:
        made = Endpoint(server.url, 5.0, monotonic=lambda: next(clock))
        answer = made.send(b"{}", KEY)
        assert received.get(timeout=5) == b""
        made.close()
    assert server.connections == 1
    assert answer == NoAnswer(sent=False, why="no connection: the deadline passed")


def test_threads_that_share_an_endpoint_keep_their_own_deadlines() -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        connection.drip(endless(b"a"), every_seconds=0.02)

    with RawServer(handler) as server, endpoint(server.url, timeout_seconds=30) as made:

        def took(seconds: float) -> float:
            begun = time.monotonic()
            answer = made.send(b"{}", KEY, deadline_monotonic=begun + seconds)
            assert answer == NoAnswer(sent=True, why="no answer before the deadline")
            return time.monotonic() - begun

        wanted = [0.2 + 0.3 * n for n in range(8)]
        with ThreadPoolExecutor(len(wanted)) as pool:
            got = list(pool.map(took, wanted))
    assert all(want * 0.9 < have < want * GENEROUS + 0.3 for want, have in zip(wanted, got, strict=True)), got


# Connections that are not there, or break


def test_a_refused_connection_is_no_request_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with endpoint(f"http://127.0.0.1:{port}") as made:
        answer = made.send(b"{}", KEY)
    assert isinstance(answer, NoAnswer)
    assert not answer.sent
    assert "refused" in answer.why


@pytest.mark.parametrize("host", ["endpoint.invalid", "a..b", "x" * 70])
def test_a_name_that_does_not_resolve_is_no_request_sent(host: str) -> None:
    with endpoint(f"http://{host}") as made:
        answer = made.send(b"{}", KEY)
    assert isinstance(answer, NoAnswer)
    assert not answer.sent


def test_the_second_address_of_a_name_is_tried_where_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def two_addresses(host: str, *args: object, **kwargs: object) -> object:
        if host != "twofold.invalid":
            return real(host, *args, **kwargs)  # type: ignore[arg-type] # passed through as it came
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with RawServer(answering(http())) as server, endpoint(f"http://twofold.invalid:{server.port}") as made:
        assert made.send(b"{}", KEY) == Answer(200, None, SUCCESS)


def close_unread(connection: Connection) -> None:
    connection.socket.recv(1)  # so that something was certainly sent before the reset
    connection.reset()


def close_after_reading(connection: Connection) -> None:
    connection.read_request()


def reset_in_the_headers(connection: Connection) -> None:
    connection.read_request()
    connection.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-")
    connection.reset()


def talk_nonsense(connection: Connection) -> None:
    connection.read_request()
    connection.socket.sendall(b"220 mail.example ESMTP user-1234\r\n")


@pytest.mark.parametrize("handler", [close_unread, close_after_reading, reset_in_the_headers, talk_nonsense])
def test_a_connection_that_ends_without_an_answer_leaves_the_request_in_doubt(
    handler: Callable[[Connection], None],
) -> None:
    answer = send_to(handler, body=b"x" * 1_000_000)
    assert isinstance(answer, NoAnswer)
    assert answer.sent
    assert "1234" not in answer.why  # what the peer said may hold anything


@pytest.mark.parametrize("end", [Connection.reset, lambda _: None], ids=["reset", "closed"])
def test_an_answer_that_breaks_off_is_unreadable(end: Callable[[Connection], None]) -> None:
    def handler(connection: Connection) -> None:
        connection.read_request()
        connection.socket.sendall(http()[:-1])
        end(connection)

    answer = send_to(handler)
    # A reset may overtake the headers it follows; both ways the request stays in doubt and is not confirmed.
    assert answer == Answer(200, None, b"", readable=False) or (isinstance(answer, NoAnswer) and answer.sent)
    assert isinstance(outcome := decide(answer, 1, 0), Retry)
    assert outcome.ambiguous


@pytest.mark.parametrize("end", [lambda _: None, Connection.wait_for_hang_up], ids=["hangs up", "reads on"])
def test_an_early_refusal_is_read_although_the_body_was_never_asked_for(end: Callable[[Connection], None]) -> None:
    def handler(connection: Connection) -> None:
        connection.socket.recv(1000)
        connection.socket.sendall(http(b"", "413 Content Too Large", "Connection: close"))
        end(connection)

    assert send_to(handler, body=b"x" * 20_000_000) == Answer(413, None, b"")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody but the test trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = (folder / "certificate.pem", folder / "key.pem")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-out", str(made[0]), "-keyout", str(made[1])]
    subprocess.run(["openssl", "req", "-x509", *curve, *subject, *files], check=True, capture_output=True)
    return made


def serving(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_speaks_tls_with_whom_it_trusts_and_uses_the_connection_again(certificate: tuple[Path, Path]) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])
    with (
        RawServer(answering(http(), http()), tls=serving(certificate)) as server,
        endpoint(server.url, tls=trusting) as made,
    ):
        answers = [made.send(b"x" * 300_000, KEY) for _ in range(2)]
        assert server.connections == 1
    assert [decide(answer, 1, 0) for answer in answers] == [Confirmed(inserted=1, deleted=0)] * 2


def test_sends_nothing_to_a_server_whose_certificate_is_not_trusted(certificate: tuple[Path, Path]) -> None:
    with RawServer(answering(http()), tls=serving(certificate)) as server, endpoint(server.url) as made:
        answer = made.send(b"{}", KEY)
    assert isinstance(answer, NoAnswer)
    assert not answer.sent
    assert "CERTIFICATE_VERIFY_FAILED" in answer.why


def test_a_server_that_speaks_no_tls_gets_no_request() -> None:
    def handler(connection: Connection) -> None:
        connection.socket.sendall(b"hello\r\n" * 10)
        connection.wait_for_hang_up()

    with RawServer(handler) as server, endpoint(server.url.replace("http", "https")) as made:
        answer = made.send(b"{}", KEY)
    assert isinstance(answer, NoAnswer)
    assert not answer.sent
