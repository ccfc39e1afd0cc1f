"""Starts a private Redis Cluster on this machine, from the same program as one server; it ends with this process."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.nodes.slots import SLOTS
from producers.nodes.url import Address
from worker.local.data_dir import EmbeddedRedisError
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

READY_SECONDS: Final = 30.0
"""Longest time that the nodes may take to find each other. It takes 2 s on an idle machine."""

POLL_SECONDS: Final = 0.05


class EmbeddedCluster:
    """A real Redis Cluster that starts on entry and leaves nothing behind.

    Args:
        masters: how many nodes serve slots.
        replicas: how many replicas each of them has.
        data_dir: directory for the data, one directory in it for each node; None keeps no data.
        config: more directives of redis.conf for every node.

    Attributes:
        servers: the masters first, then their replicas in the same order.
    """

    def __init__(
        self,
        masters: int = 3,
        replicas: int = 0,
        *,
        data_dir: Path | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._masters = masters
        self._replicas = replicas
        self._data_dir = data_dir
        self._config = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            # The others go on if a part of the slots has no node.
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": "0",
            **(config or {}),
        }
        self.servers: list[EmbeddedRedis] = []
        self._open = ExitStack()

    @property
    def addresses(self) -> list[Address]:
        """Where the servers listen, in their order."""
        return [_address_of(each) for each in self.servers]

    @property
    def private_directory(self) -> Path:
        """Directory that only this user can enter; it exists while the servers run, and is removed with all in it."""
        return self.servers[0].private_directory

    @property
    def keeps_url(self) -> bool:
        """Whether the next start has the same URL: with a data directory, which notes the ports."""
        return self._data_dir is not None

    @property
    def url(self) -> str:
        """Its URL: of its first three nodes."""
        return f"redis+cluster://{','.join(map(str, self.addresses[:3]))}"

    def __enter__(self) -> Self:
        """Starts the nodes and returns when they serve every slot.

        Raises:
            RedisNotFoundError: this machine has no suitable Redis server.
            EmbeddedRedisError: a node did not start, or they did not find each other in time.
        """
        with ExitStack() as undo:
            for i in range(self._masters * (1 + self._replicas)):
                self.servers.append(self._start_server(undo, i))
            if not self._serves():  # else it was made before, and its data are kept
                self._join()
            _wait(self._serves, "the nodes of the embedded cluster did not find each other")
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.servers.clear()

    def _start_server(self, undo: ExitStack, index: int) -> EmbeddedRedis:
        return undo.enter_context(EmbeddedRedis(self._directory_of(index), tcp=True, config=self._config))

    def _directory_of(self, index: int) -> Path | None:
        return None if self._data_dir is None else self._data_dir / f"node-{index}"

    def _join(self) -> None:
        first, *others = self.addresses
        for epoch, each in enumerate(self.addresses, start=1):
            # Nodes that all begin with epoch 0 settle it among themselves, and a replica that has not heard of it
            # yet when its master dies is never elected: its votes name an epoch that the others know to be over.
            _command(each, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for each in others:
            _command(first, "CLUSTER", "MEET", each.host, each.port)
        for i, each in enumerate(self.addresses[: self._masters]):
            begin, end = SLOTS * i // self._masters, SLOTS * (i + 1) // self._masters - 1
            _command(each, "CLUSTER", "ADDSLOTS", *range(begin, end + 1))  # ADDSLOTSRANGE needs Redis 7.0
        _wait(self._all_know_all, "the nodes of the embedded cluster did not find each other")
        for i, each in enumerate(self.addresses[self._masters :]):
            master = self.addresses[i % self._masters]
            _command(each, "CLUSTER", "REPLICATE", _command(master, "CLUSTER", "MYID").decode())
        if self._replicas:
            _wait(self._follow, "the replicas of the embedded cluster did not follow their masters")

    def _all_know_all(self) -> bool:
        told = [bytes(_command(each, "CLUSTER", "NODES")) for each in self.addresses]
        return all(len(each.splitlines()) == len(self.servers) and b"handshake" not in each for each in told)

    def _follow(self) -> bool:
        """Whether each replica has its master's data, and every node knows it for a replica and so votes for it."""
        if not all(_info(each, "master_link_status") == "up" for each in self.addresses[self._masters :]):
            return False
        told = [bytes(_command(each, "CLUSTER", "NODES")) for each in self.addresses]
        return all(each.count(b"slave") == len(self.servers) - self._masters for each in told)

    def _serves(self) -> bool:
        return all(_state(each) for each in self.addresses)


def _address_of(server: EmbeddedRedis) -> Address:
    return Address("127.0.0.1", int(server.url.rpartition(":")[2].partition("/")[0]))


def _client(address: Address) -> redis.Redis:
    return redis.Redis(
        host=address.host, port=address.port, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
    )


def _command(address: Address, *words: Any) -> Any:
    with _client(address) as client:
        return client.execute_command(*words)


def _info(address: Address, name: str) -> object:
    with _client(address) as client:
        found: Any = client.info("replication")
        return found.get(name)


def _state(address: Address) -> bool:
    said = bytes(_command(address, "CLUSTER", "INFO")).split()
    return b"cluster_state:ok" in said and b"cluster_slots_assigned:%d" % SLOTS in said


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    ends = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > ends:
            raise EmbeddedRedisError(f"{otherwise} within {READY_SECONDS:.0f} seconds")
        time.sleep(POLL_SECONDS)
