"""A Redis of one's own: it is there when asked for, and nothing of it is left when we are gone."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import redis

from tests.support.processes import parent_of, runs
from worker.local.data_dir import free_port
from worker.local.redis import EmbeddedRedis, EmbeddedRedisError

if TYPE_CHECKING:
    from tests.support.waiting import WaitUntil

OWNER = """
import signal
from worker.local.redis import EmbeddedRedis
with EmbeddedRedis() as server:
    print(server.pid, server.url, flush=True)
    signal.pause()
"""


def socket_of(url: str) -> Path:
    return Path(urlsplit(url).path)


def client_of(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def interrupt(server: EmbeddedRedis, seen: list[int]) -> None:
    """Ends as a Ctrl-C does, after noting the server's process id."""
    seen.append(server.pid)
    raise KeyboardInterrupt


@pytest.mark.parametrize(("tcp", "scheme"), [(False, "unix"), (True, "redis")])
def test_it_answers_at_its_url(*, tcp: bool, scheme: str) -> None:
    with EmbeddedRedis(tcp=tcp) as server, client_of(server) as client:
        assert urlsplit(server.url).scheme == scheme
        assert client.info("server")["process_id"] == server.pid


def test_without_tcp_no_port_is_open() -> None:
    with EmbeddedRedis() as server, client_of(server) as client:
        assert client.info("server")["tcp_port"] == 0


def test_nobody_else_on_the_machine_can_reach_the_socket() -> None:
    with EmbeddedRedis() as server:
        assert stat.S_IMODE(socket_of(server.url).parent.stat().st_mode) == 0o700


def test_it_evicts_nothing_and_keeps_nothing_unless_asked() -> None:
    with EmbeddedRedis() as server, client_of(server) as client:
        assert client.config_get("maxmemory-policy", "save", "appendonly") == {
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "no",
        }


def test_directives_of_the_caller_win() -> None:
    with EmbeddedRedis(config={"maxmemory": "10mb", "appendonly": "yes"}) as server, client_of(server) as client:
        assert client.config_get("maxmemory", "appendonly") == {"maxmemory": str(10 * 2**20), "appendonly": "yes"}


def test_a_directive_that_redis_refuses_is_one_line_in_its_words() -> None:
    with (
        pytest.raises(EmbeddedRedisError, match=r"^the embedded Redis did not start: argument must be a memory value$"),
        EmbeddedRedis(config={"maxmemory": "banana"}),
    ):
        pass


def test_its_socket_has_a_short_path_where_the_temporary_directory_has_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with EmbeddedRedis() as server, client_of(server) as client:
        assert len(str(socket_of(server.url))) <= 100
        assert client.ping()
    assert not list(long.iterdir())


def test_it_takes_another_port_than_a_redis_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis(tcp=True) as theirs, client_of(theirs) as client:
        taken, free = urlsplit(theirs.url).port, free_port()
        ports = [taken, free]  # as if the other had taken the port after we found it free
        monkeypatch.setattr("worker.local.redis.free_port", lambda _most: ports.pop(0))
        connections = client.info("stats")["total_connections_received"]
        with EmbeddedRedis(tcp=True) as server:
            assert urlsplit(server.url).port == free
        assert client.info("server")["process_id"] == theirs.pid
        assert client.info("stats")["total_connections_received"] == connections


# What is left of it


def test_leaving_the_context_leaves_nothing() -> None:
    with EmbeddedRedis() as server:
        pid, directory = server.pid, socket_of(server.url).parent
    assert not runs(pid)
    assert not directory.exists()


def test_an_exception_leaves_nothing() -> None:
    seen: list[int] = []
    server = EmbeddedRedis()
    with pytest.raises(KeyboardInterrupt), server:
        interrupt(server, seen)
    assert not runs(seen.pop())
    assert not socket_of(server.url).parent.exists()


def test_a_server_that_does_not_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(EmbeddedRedisError), EmbeddedRedis(config={"maxmemory": "banana"}):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_that_ends_the_owner_leaves_nothing(number: signal.Signals, wait_until: WaitUntil) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, url = owner.stdout.readline().split()
        assert runs(int(pid))
        owner.send_signal(number)
        wait_until(lambda: not runs(int(pid)), what="the server is gone")
        wait_until(lambda: not socket_of(url).parent.exists(), what="its directory is gone")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process whose parent was killed")
def test_a_sigkill_of_its_supervisor_leaves_nothing(wait_until: WaitUntil) -> None:
    with EmbeddedRedis() as server:
        pid, directory = server.pid, socket_of(server.url).parent
        os.kill(parent_of(pid), signal.SIGKILL)
        wait_until(lambda: not runs(pid), what="the server is gone")
    assert not directory.exists()


# Restarts, and data that is kept


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("kill", [False, True])
def test_a_restart_keeps_the_url(*, tcp: bool, kill: bool) -> None:
    with EmbeddedRedis(tcp=tcp) as server:
        url, pid = server.url, server.pid
        server.restart(kill=kill)
        assert server.url == url
        assert server.pid != pid
        with client_of(server) as client:
            assert client.ping()


def test_without_a_data_directory_a_restart_empties_it() -> None:
    with EmbeddedRedis() as server, client_of(server) as client:
        client.set("key", "value")
        server.restart()
        assert client.get("key") is None


def test_with_a_data_directory_what_it_held_is_there_the_next_time(tmp_path: Path) -> None:
    data = tmp_path / "with a space" / "data"
    with EmbeddedRedis(data) as server, client_of(server) as client:
        assert client.config_get("appendonly", "appendfsync") == {"appendonly": "yes", "appendfsync": "everysec"}
        client.set("key", "value")
    with EmbeddedRedis(data) as server, client_of(server) as client:
        assert client.get("key") == b"value"


def test_a_data_directory_that_is_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path):
        with pytest.raises(EmbeddedRedisError) as raised, EmbeddedRedis(tmp_path):
            pass
        assert str(raised.value) == f"data directory {tmp_path}: another Redis that we started uses it"
    with EmbeddedRedis(tmp_path):
        pass  # free again


def test_a_data_directory_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(EmbeddedRedisError, match=re.escape(f"data directory {file}: File exists")),
        EmbeddedRedis(file),
    ):
        pass


def test_what_is_not_running_says_so() -> None:
    with pytest.raises(EmbeddedRedisError, match="not running"):
        EmbeddedRedis().restart()
