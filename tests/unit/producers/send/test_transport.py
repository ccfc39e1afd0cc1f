"""One round trip on a real socket: every reply counts, and without one it matters whether any byte was sent."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import hiredis
import pytest
import redis

from producers.nodes.exchange import exchange_async
from producers.send.report import Replies
from producers.send.transport import connect, connect_async, exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    RoundTrip = Callable[[str, bytes, int], Replies]

COMMANDS = b"".join(hiredis.pack_command(("XADD", "stream", "*", "n", str(number))) for number in range(4))  # type: ignore[arg-type] # its stub knows tuples of one
ANSWERS = [b"$3\r\n1-1\r\n", b"-OOM no room\r\n", b"-LOADING wait\r\n"]


class OneConnection:
    """A Redis that answers some XADDs of its first connection and then closes it."""

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.seen = 0
        self._answers = iter(answers)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()
        reader = hiredis.Reader()
        with connection, suppress(BrokenPipeError):  # a client that cannot read an answer does not wait for the next
            while data := connection.recv(65536):
                reader.feed(data)
                while isinstance(command := reader.gets(), list):
                    if not self._answer(connection, command):
                        return

    def _answer(self, connection: socket.socket, command: list[Any]) -> bool:
        if command[0] != b"XADD":
            connection.sendall(b"+OK\r\n")  # what redis-py says of itself when it connects
            return True
        self.seen += 1
        answer = next(self._answers, b"")
        connection.sendall(answer)
        return bool(answer)

    def close(self) -> None:
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


def _plain(url: str, commands: bytes, count: int) -> Replies:
    with connect(url) as client:
        return exchange(client, (commands,), count)


def _asynchronous(url: str, commands: bytes, count: int) -> Replies:
    async def once() -> Replies:
        client: Any = connect_async(url)
        async with client:
            return Replies(*await exchange_async(client, commands, count))

    return asyncio.run(asyncio.wait_for(once(), timeout=30))


@pytest.fixture(params=[_plain, _asynchronous])
def one_round_trip(request: pytest.FixtureRequest) -> RoundTrip:
    """The round trip, once as threads do it and once as asyncio does."""
    made: RoundTrip = request.param
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OneConnection]:
    server = OneConnection(tmp_path / "redis.sock", ANSWERS)
    yield server
    server.close()


@pytest.mark.usefixtures("server")
def test_every_reply_before_a_loss_counts(one_round_trip: RoundTrip, tmp_path: Path) -> None:
    answer = one_round_trip(f"unix://{tmp_path}/redis.sock", COMMANDS, 4)
    assert answer.replies[0] == b"1-1"
    # A refusal is an answer to its own command, even if redis-py counts it as a failure of the connection.
    assert [type(reply) for reply in answer.replies[1:]] == [redis.OutOfMemoryError, redis.BusyLoadingError]
    assert isinstance(answer.broken, redis.ConnectionError)
    assert answer.written


def test_nothing_is_ever_sent_a_second_time(one_round_trip: RoundTrip, server: OneConnection, tmp_path: Path) -> None:
    one_round_trip(f"unix://{tmp_path}/redis.sock", COMMANDS, 4)
    server.close()
    assert server.seen == 4


@pytest.mark.parametrize("said", [b"-MOVED 1\r\n", b"-ASK 1 host:port\r\n", b">0\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_what_no_redis_replies_ends_the_trip(one_round_trip: RoundTrip, tmp_path: Path, said: bytes) -> None:
    server = OneConnection(tmp_path / "redis.sock", [ANSWERS[0], said])
    answer = one_round_trip(f"unix://{tmp_path}/redis.sock", COMMANDS, 4)
    server.close()
    assert answer.replies == [b"1-1"]
    assert isinstance(answer.broken, redis.InvalidResponse)
    assert answer.written


def test_without_a_connection_nothing_was_written(one_round_trip: RoundTrip, tmp_path: Path) -> None:
    answer = one_round_trip(f"unix://{tmp_path}/nowhere.sock", COMMANDS, 4)
    assert answer.replies == []
    assert isinstance(answer.broken, redis.ConnectionError)
    assert not answer.written
