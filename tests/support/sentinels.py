"""A master, two replicas and three sentinels on this machine, from the same server program."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.nodes.url import Address
from tests.support.waiting import wait_until
from worker.local.data_dir import free_port, private_directory
from worker.local.process import SupervisedProcess
from worker.local.redis import EmbeddedRedis
from worker.local.redis_binary import find_redis_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

MASTER = "main"

REPLICAS = 2


class SentinelSetup:
    """Started on entry, gone on exit.

    Attributes:
        servers: the master first, then its replicas.
        sentinels: where they listen.
        down_after_ms: after so long without an answer a sentinel takes a server for down.
    """

    down_after_ms = 700

    def __init__(self) -> None:
        self._open = ExitStack()
        self.servers: list[EmbeddedRedis] = []
        self.sentinels: list[Address] = []
        self._processes: list[SupervisedProcess] = []
        self._configs: list[Path] = []
        self._stopped: set[int] = set()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            directory = Path(undo.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            config = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
            for i in range(1 + REPLICAS):
                self.servers.append(self._start_server(undo, i, config))
            master = self.announced(self.servers[0])
            for each in self.servers[1:]:
                with connected(address_of(each)) as client:
                    client.replicaof(master.host, str(master.port))
            for i in range(3):
                self._start_sentinel(undo, directory / f"sentinel-{i}.conf", master)
            wait_until(self._settled, seconds=30, what="the sentinels know each other and all servers")
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for pid in list(self._stopped):
            self.wake(pid)
        self._open.close()

    @property
    def url(self) -> str:
        """Of the log."""
        return f"redis+sentinel://{','.join(map(str, self.sentinels))}/{MASTER}/0"

    def master(self) -> Address | None:
        """Which server the sentinels name; None while those that answer disagree."""
        named = set()
        for each in self.sentinels:
            with suppress(redis.ConnectionError, redis.TimeoutError), connected(each) as client:
                reply: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
                named.add(Address(reply[0].decode(), int(reply[1])))
        return named.pop() if len(named) == 1 else None

    def server_at(self, address: Address) -> EmbeddedRedis:
        return next(each for each in self.servers if self.announced(each) == address)

    def announced(self, server: EmbeddedRedis) -> Address:
        """Where others find it."""
        return address_of(server)

    def wait_for_another(self, than: Address) -> Address:
        """Returns the new master once all sentinels that answer name it and it takes writes."""

        def there() -> bool:
            address = self.master()
            if address in {None, than}:
                return False
            with suppress(redis.ConnectionError, redis.TimeoutError), connected(address) as client:
                role: Any = client.execute_command("ROLE")
                return bool(role[0] == b"master")
            return False

        wait_until(there, seconds=40, what="a failover")
        address = self.master()
        assert address is not None
        return address

    def fail_over(self) -> None:
        """Asks a sentinel for a planned failover."""

        def accepted() -> bool:
            with connected(self.sentinels[0]) as client, suppress(redis.ResponseError):
                client.execute_command("SENTINEL", "FAILOVER", MASTER)
                return True
            return False

        wait_until(accepted, seconds=20, what="a sentinel begins a failover")

    @property
    def sentinel_pids(self) -> list[int]:
        """Process ids of the sentinels."""
        return [each.pid for each in self._processes]

    def kill_sentinel(self, index: int) -> None:
        os.kill(self._processes[index].pid, signal.SIGKILL)

    def restart_sentinel(self, index: int) -> None:
        """Starts one again that was killed, with what it had written down."""
        self._processes[index].close()
        self._processes[index] = self._sentinel_process(self._configs[index])

    def hang_sentinel(self, index: int) -> None:
        self.hang(self._processes[index].pid)

    def hang(self, pid: int) -> None:
        """Stops a process as a machine that swaps does: it keeps its connections and answers nothing."""
        os.kill(pid, signal.SIGSTOP)
        self._stopped.add(pid)

    def wake(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        self._stopped.discard(pid)

    def _start_sentinel(self, undo: ExitStack, config: Path, master: Address) -> None:
        port = free_port()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {config.parent}",
            "loglevel warning",
            f"sentinel monitor {MASTER} {master.host} {master.port} 2",
            f"sentinel down-after-milliseconds {MASTER} {self.down_after_ms}",
            f"sentinel failover-timeout {MASTER} 5000",
        ]
        config.write_text("\n".join(lines) + "\n", encoding="ascii")
        index = len(self._processes)
        self._configs.append(config)
        self._processes.append(self._sentinel_process(config))
        undo.callback(lambda: self._processes[index].close())  # noqa: PLW0108 - it may be another by then
        self.sentinels.append(Address("127.0.0.1", port))

    @staticmethod
    def _sentinel_process(config: Path) -> SupervisedProcess:
        command = [str(find_redis_binary()), str(config), "--sentinel"]
        return SupervisedProcess(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _start_server(self, undo: ExitStack, index: int, config: dict[str, str]) -> EmbeddedRedis:  # noqa: ARG002 - for servers that differ
        return undo.enter_context(EmbeddedRedis(tcp=True, config=config))

    def _settled(self) -> bool:
        for each in self.sentinels:
            try:
                with connected(each) as client:
                    reply: Any = client.execute_command("SENTINEL", "MASTER", MASTER)
                    known = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
                    known = {_text(name): _text(value) for name, value in known.items()}
            except redis.RedisError:
                return False
            if int(known["num-slaves"]) != REPLICAS or int(known["num-other-sentinels"]) != 2:
                return False
        return all(self._follows(each) for each in self.servers[1:])

    @staticmethod
    def _follows(server: EmbeddedRedis) -> bool:
        with connected(address_of(server)) as client:
            found: Any = client.info("replication")
            return bool(found.get("master_link_status") == "up")


@contextmanager
def one_sentinel(directory: Path, master: Address, password: str) -> Iterator[EmbeddedSentinel]:
    """A sentinel alone, which names a master whatever becomes of it.

    Args:
        directory: for its files.
        master: what it names.
        password: of its own.
    """
    port, path = free_port(), private_directory() / "sentinel.sock"
    lines = [f"port {port}", f"unixsocket {path}", f"dir {directory}", f"requirepass {password}"]
    lines.append(f"sentinel monitor {MASTER} {master.host} {master.port} 1")
    config = directory / "sentinel.conf"
    config.write_text("\n".join(lines) + "\n", encoding="ascii")
    process = SupervisedProcess(
        [str(find_redis_binary()), str(config), "--sentinel"],
        remove=[path.parent],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        wait_until(path.exists, what="the sentinel listens")
        yield EmbeddedSentinel(Address("127.0.0.1", port), f"unix://{path}")


class EmbeddedSentinel(NamedTuple):
    """Where a sentinel listens."""

    address: Address
    socket_url: str


def address_of(server: EmbeddedRedis) -> Address:
    """Where a server with a port listens."""
    return Address("127.0.0.1", int(server.url.rpartition(":")[2].partition("/")[0]))


def connected(address: Address) -> redis.Redis:
    """A client that waits for nobody long."""
    return redis.Redis(
        host=address.host, port=address.port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
