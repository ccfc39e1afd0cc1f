"""Redis on several hosts: a master with its replicas and sentinels, and a cluster."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.nodes.slots import SLOTS
from producers.nodes.url import Address
from tests.support.waiting import wait_until
from worker.local.process import SupervisedProcess
from worker.local.redis_binary import find_redis_binary

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.hosts import Hosts

MASTER: Final = "main"
PORT: Final = 6379
REPLICA_PORT: Final = 6380
SENTINEL_PORT: Final = 26379
DOWN_AFTER_MS: Final = 1_000
"""After so long without an answer a sentinel takes a server for down."""

NODE_TIMEOUT_MS: Final = 5_000
"""After so long without an answer a cluster's node takes another one for down; one that is cut off goes on as long."""

_COMMON: Final = ("protected-mode no", "save ''", "appendonly no", "loglevel warning", "maxmemory-policy noeviction")
_QUICK: Final = ("repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "repl-timeout 5")


class RedisHosts:
    """Servers on hosts, and what is asked of them over their Unix sockets, whatever links are cut.

    Args:
        hosts: where they run.
        directory: for their files; its path must be short, as those of sockets are.
    """

    def __init__(self, hosts: Hosts, directory: Path) -> None:
        self.hosts = hosts
        self._directory = directory
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._start(undo)
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start(self, undo: ExitStack) -> None:
        raise NotImplementedError

    def at(self, address: Address) -> redis.Redis:
        """A client of a server, which no link can keep from it."""
        return redis.Redis(
            unix_socket_path=str(self._socket(address)), socket_timeout=5, retry=Retry(NoBackoff(), 0), protocol=2
        )

    def ask(self, address: Address, *words: Any) -> Any:
        """Its reply to one command."""
        with self.at(address) as client:
            return client.execute_command(*words)

    def role(self, address: Address) -> str:
        """Whether it is a master or a slave; empty while it drops its connections to become the other."""
        with suppress(redis.ConnectionError):
            return bytes(self.ask(address, "ROLE")[0]).decode()
        return ""

    def follows(self, address: Address) -> bool:
        """Whether it has its master's data."""
        with suppress(redis.ConnectionError), self.at(address) as client:
            told: Any = client.info("replication")
            return bool(told.get("master_link_status") == "up")
        return False

    def entries(self, address: Address) -> int:
        """How many entries the logs have there."""
        with self.at(address) as client:
            return sum(client.xlen(key) for key in client.scan_iter("*:events"))

    def _socket(self, address: Address) -> Path:
        return self._directory / f"{address.host.rpartition('.')[2]}-{address.port}.sock"

    def _serve(self, undo: ExitStack, address: Address, *lines: str, sentinel: bool = False) -> None:
        host = int(address.host.rpartition(".")[2]) - 1
        socket = self._socket(address)
        data = socket.with_suffix("")
        data.mkdir()
        own = [f"port {address.port}", f"bind {address.host}", f"unixsocket {socket}", f"dir {data}", *lines]
        config = data / "redis.conf"
        config.write_text("\n".join(own) + "\n", encoding="ascii")
        command = [str(find_redis_binary()), str(config), *(["--sentinel"] if sentinel else [])]
        with self.hosts.hosts[host].inside():
            process = SupervisedProcess(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        undo.callback(process.close)
        wait_until(lambda: self._answers(address), seconds=30, what=f"{address} answers")

    def _answers(self, address: Address) -> bool:
        with suppress(redis.RedisError):
            return bool(self.ask(address, "PING"))
        return False


class SentinelHosts(RedisHosts):
    """A master on the first host and a replica on each other one, and a sentinel on each."""

    @property
    def servers(self) -> list[Address]:
        """The first master, then its replicas."""
        return [Address(self.hosts.address(i), PORT) for i in range(len(self.hosts.hosts))]

    @property
    def sentinels(self) -> list[Address]:
        """One on each host."""
        return [Address(each.host, SENTINEL_PORT) for each in self.servers]

    @property
    def url(self) -> str:
        """Of the log."""
        return f"redis+sentinel://{','.join(map(str, self.sentinels))}/{MASTER}/0"

    def named_by(self, host: int) -> Address:
        """Which master a host's sentinel names."""
        name, port = self.ask(self.sentinels[host], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return Address(name.decode(), int(port))

    def _start(self, undo: ExitStack) -> None:
        first, *others = self.servers
        for each in self.servers:
            self._serve(undo, each, *_COMMON, *_QUICK)
        for each in others:
            self.ask(each, "REPLICAOF", first.host, first.port)
        for each in self.sentinels:
            lines = (
                "protected-mode no",
                f"sentinel monitor {MASTER} {first.host} {first.port} 2",
                f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {MASTER} 5000",
            )
            self._serve(undo, each, *lines, sentinel=True)
        wait_until(self._settled, seconds=30, what="the sentinels know each other and all servers")

    def _settled(self) -> bool:
        for each in self.sentinels:
            told = self.ask(each, "SENTINEL", "MASTER", MASTER)
            known = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
            known = {_text(name): _text(value) for name, value in known.items()}
            if int(known["num-slaves"]) != len(self.servers) - 1 or int(known["num-other-sentinels"]) != 2:
                return False
        return all(self.follows(each) for each in self.servers[1:])


class ClusterHosts(RedisHosts):
    """A master on each host, and its replica on the next one."""

    @property
    def masters(self) -> list[Address]:
        """One on each host."""
        return [Address(self.hosts.address(i), PORT) for i in range(len(self.hosts.hosts))]

    @property
    def replicas(self) -> list[Address]:
        """The replica of each master."""
        count = len(self.hosts.hosts)
        return [Address(self.hosts.address((i + 1) % count), REPLICA_PORT) for i in range(count)]

    @property
    def url(self) -> str:
        """Of the log."""
        return f"redis+cluster://{','.join(map(str, self.masters))}"

    def _start(self, undo: ExitStack) -> None:
        every = [*self.masters, *self.replicas]
        cluster = (
            "cluster-enabled yes",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-require-full-coverage no",
            "cluster-replica-validity-factor 0",
        )
        for each in every:
            self._serve(undo, each, *_COMMON, *_QUICK, *cluster)
        for epoch, each in enumerate(every, start=1):
            self.ask(each, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for each in every[1:]:
            self.ask(every[0], "CLUSTER", "MEET", each.host, each.port)
        count = len(self.masters)
        for i, each in enumerate(self.masters):
            self.ask(each, "CLUSTER", "ADDSLOTSRANGE", SLOTS * i // count, SLOTS * (i + 1) // count - 1)
        wait_until(lambda: all(self._knows(each, len(every)) for each in every), seconds=30, what="all know all")
        for master, replica in zip(self.masters, self.replicas, strict=True):
            self.ask(replica, "CLUSTER", "REPLICATE", bytes(self.ask(master, "CLUSTER", "MYID")).decode())
        wait_until(lambda: self._settled(every), seconds=30, what="the cluster serves, and replicas follow")

    def serves_slots(self, address: Address) -> bool:
        """Whether it is a master that serves slots, by its own word."""
        line = next(each for each in self._nodes(address) if b"myself" in each)
        words = line.split()
        return b"master" in words[2] and len(words) > 8

    def _nodes(self, address: Address) -> list[bytes]:
        return bytes(self.ask(address, "CLUSTER", "NODES")).splitlines()

    def _knows(self, address: Address, count: int) -> bool:
        lines = self._nodes(address)
        return len(lines) == count and not any(b"handshake" in each for each in lines)

    def _settled(self, every: list[Address]) -> bool:
        serves = all(b"cluster_state:ok" in bytes(self.ask(each, "CLUSTER", "INFO")) for each in every)
        told = all(sum(b"slave" in line for line in self._nodes(each)) == len(self.replicas) for each in every)
        return serves and told and all(self.follows(each) for each in self.replicas)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
