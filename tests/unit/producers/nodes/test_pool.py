"""A connection at hand is as good as one of redis-py's pool: alive, with nothing left to read, and of this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import redis

from producers.nodes.pool import QuickPool
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tcp=True) as server:
        yield server


@pytest.fixture
def pool(server: EmbeddedRedis) -> Iterator[Any]:
    pool = QuickPool(**redis.connection.parse_url(server.url))  # type: ignore[no-untyped-call] # redis-py leaves it untyped
    yield pool
    pool.disconnect()


def _ping(connection: Any) -> object:
    connection.send_command("PING")
    return connection.read_response()


def test_the_same_connection_comes_again(pool: Any) -> None:
    connection = pool.get_connection()
    assert _ping(connection) in {b"PONG", "PONG"}
    pool.release(connection)
    assert pool.get_connection() is connection
    assert pool.get_connection() is not connection


def test_one_that_the_server_closed_connects_anew(pool: Any, server: EmbeddedRedis) -> None:
    connection = pool.get_connection()
    _ping(connection)
    pool.release(connection)
    with redis.Redis.from_url(server.url) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert _ping(pool.get_connection()) in {b"PONG", "PONG"}


def test_one_with_a_reply_that_nobody_read_connects_anew(pool: Any) -> None:
    connection = pool.get_connection()
    connection.send_command("ECHO", "of the caller before")
    connection.can_read(timeout=5)
    pool.release(connection)
    assert _ping(pool.get_connection()) in {b"PONG", "PONG"}


def test_one_that_cannot_connect_is_not_lost_and_is_tried_once(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = pool.get_connection()
    connection.disconnect()
    pool.release(connection)
    tries: list[int] = []

    def refused() -> None:
        tries.append(1)
        raise redis.ConnectionError

    monkeypatch.setattr(connection, "_connect", refused)
    with pytest.raises(redis.ConnectionError):
        pool.get_connection()
    assert len(tries) == 1
    monkeypatch.undo()
    assert pool.get_connection() is connection


def test_connections_at_hand_are_closed_with_those_that_nobody_uses(pool: Any) -> None:
    used, at_hand = pool.get_connection(), pool.get_connection()
    pool.release(at_hand)
    pool.disconnect(inuse_connections=False)
    assert (used.is_connected, at_hand.is_connected) == (True, False)
    pool.disconnect()
    assert not used.is_connected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_takes_none_of_its_parent(pool: Any) -> None:
    connection = pool.get_connection()
    pool.release(connection)
    child = os.fork()
    if child == 0:
        os._exit(0 if pool.get_connection() is not connection else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _ping(connection) in {b"PONG", "PONG"}
