from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.soak.proxy import Proxy
from tests.support.waiting import wait_until
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def proxy(redis_server: EmbeddedRedis) -> Iterator[Proxy]:
    with Proxy(redis_server.url) as made:
        yield made


@pytest.fixture
def client(proxy: Proxy, redis_client: redis.Redis) -> Iterator[redis.Redis]:  # noqa: ARG001 - empties the server
    with redis.Redis(port=proxy.port, socket_timeout=0.3, retry=Retry(NoBackoff(), 0), protocol=2) as made:
        yield made


def test_a_lost_reply_leaves_its_command_done(proxy: Proxy, client: redis.Redis, redis_client: redis.Redis) -> None:
    client.ping()
    proxy.lose_reply_to(b"INCR")
    with pytest.raises(redis.ConnectionError):
        client.incr("n")
    assert (redis_client.get("n"), proxy.replies_lost) == (b"1", 1)
    assert client.incr("n") == 2


def test_what_is_paused_is_held_and_passed_on_later(
    proxy: Proxy, client: redis.Redis, redis_client: redis.Redis
) -> None:
    client.ping()
    proxy.pause()
    with pytest.raises(redis.TimeoutError):
        client.incr("n")
    assert redis_client.get("n") is None
    proxy.resume()
    assert client.ping()


def test_who_is_refused_gets_through_once_it_listens_again(proxy: Proxy, client: redis.Redis) -> None:
    assert client.incr("n") == 1
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        client.incr("n")
    proxy.listen()
    assert client.incr("n") == 2


def test_a_reset_ends_the_connections_there_are(proxy: Proxy, client: redis.Redis) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connected:
        connected.sendall(b"PING\r\n")
        assert connected.recv(100) == b"+PONG\r\n"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connected.recv(100)
    assert client.ping()


def test_a_server_that_is_away_ends_connections_and_no_more() -> None:
    with Proxy("redis://127.0.0.1:1/0") as proxy, redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 0)) as client:
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()


def test_a_replica_gets_nothing_while_all_others_do_and_what_was_held_is_lost(
    proxy: Proxy, client: redis.Redis
) -> None:
    with EmbeddedRedis() as replica, redis.Redis.from_url(replica.url) as follower:
        follower.replicaof("127.0.0.1", str(proxy.port))
        client.set("n", 1)
        wait_until(lambda: follower.get("n") == b"1", what="the replica has it")
        proxy.hold_replication()
        assert client.incr("n") == 2
        assert client.wait(1, 100) == 0
        follower.replicaof("NO", "ONE")
        proxy.drop_replication()
        assert follower.get("n") == b"1"
