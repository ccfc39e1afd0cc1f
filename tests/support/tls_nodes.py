"""A cluster, and sentinels with their servers, that speak TLS alone with each other and with clients."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.waiting import wait_until
from worker.local.data_dir import free_port
from worker.local.process import SupervisedProcess
from worker.local.redis import EmbeddedRedis
from worker.local.redis_binary import find_redis_binary
from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MASTER = "mymaster"
_SLOTS = 16_384
_PORTS = 55_000  # the nodes of a cluster talk with each other on a port 10,000 above


class Certificates(NamedTuple):
    """Files of a server."""

    authority: Path
    certificate: Path
    key: Path

    def directives(self, port: int) -> dict[str, str]:
        """Of redis.conf."""
        return {
            "tls-port": str(port),
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(self.key),
            "tls-ca-cert-file": str(self.authority),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }


def by_tls(port: int, files: Certificates) -> redis.Redis:
    """A client of one of these servers."""
    return redis.Redis(
        host="localhost",
        port=port,
        ssl=True,
        ssl_ca_certs=str(files.authority),
        socket_timeout=5,
        retry=Retry(NoBackoff(), 0),
    )


def _started(undo: ExitStack, files: Certificates, config: Mapping[str, str]) -> int:
    port = next(port for port in iter(free_port, None) if port < _PORTS)
    undo.enter_context(EmbeddedRedis(config={**files.directives(port), **config}))
    return port


@contextmanager
def tls_cluster(files: Certificates, config: Mapping[str, str]) -> Iterator[list[int]]:
    """Three nodes without replicas; yields their ports.

    Args:
        files: of every node.
        config: more directives of redis.conf for each.
    """
    with ExitStack() as undo:
        given = {"cluster-enabled": "yes", "tls-cluster": "yes", "cluster-node-timeout": "2000", **config}
        ports = [_started(undo, files, given) for _ in range(3)]
        clients: list[Any] = [undo.enter_context(by_tls(port, files)) for port in ports]
        for i, client in enumerate(clients):
            command(client, "CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            begin, end = _SLOTS * i // 3, _SLOTS * (i + 1) // 3 - 1
            command(client, "CLUSTER", "ADDSLOTSRANGE", begin, end)
            if i:
                command(client, "CLUSTER", "MEET", "127.0.0.1", ports[0])
        wait_until(lambda: all(_knows_all(each) for each in clients), seconds=30, what="the nodes know each other")
        yield ports


def _knows_all(client: redis.Redis) -> bool:
    said: Any = command(client, "CLUSTER", "INFO")
    slots: Any = command(client, "CLUSTER", "SLOTS")
    return "ok" in str(said.get("cluster_state") if isinstance(said, dict) else said) and len(slots) == 3


@contextmanager
def tls_sentinel(files: Certificates, directory: Path) -> Iterator[tuple[int, list[int]]]:
    """A sentinel with a master and a replica, known by name; yields its port and theirs, the master first."""
    with ExitStack() as undo:
        named = {"replica-announce-ip": "localhost", "repl-diskless-sync-delay": "0"}
        master = _started(undo, files, named)
        replica = _started(undo, files, {**named, "replicaof": f"localhost {master}"})
        port = free_port()
        lines = [f"{name} {value}" for name, value in files.directives(port).items()]
        lines += ["port 0", f"dir {directory}", "sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"]
        lines += [f"sentinel monitor {MASTER} localhost {master} 1", f"sentinel failover-timeout {MASTER} 3000"]
        config = directory / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n", encoding="ascii")
        process = SupervisedProcess(
            [str(find_redis_binary()), str(config), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        undo.callback(process.close)
        wait_until(lambda: _follows(replica, port, files), seconds=30, what="the sentinel knows the replica")
        yield port, [master, replica]


def _follows(replica: int, sentinel: int, files: Certificates) -> bool:
    try:
        with by_tls(replica, files) as client, by_tls(sentinel, files) as asked:
            info: Any = client.info("replication")
            known: Any = asked.execute_command("SENTINEL", "REPLICAS", MASTER)
            return info.get("master_link_status") == "up" and len(known) == 1
    except redis.ConnectionError:
        return False
