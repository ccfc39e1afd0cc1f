"""TLS with sentinels and with the nodes of a cluster, known by name, by address, or by nothing at all."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from producers import AsyncContactProducer, ContactProducer, NotAccepted
from tests.servers.run import SERVERS
from tests.support.clusters import changes
from tests.support.commands import told
from tests.support.fleet import Fleet
from tests.support.tls_nodes import MASTER, by_tls, tls_cluster, tls_sentinel
from tests.support.waiting import wait_until
from tests.support.worker_process import PROCESS, WorkerProcess
from worker.store.client import command

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from producers import ProducerSettings
    from tests.security.authority import Authority
    from worker.standin.client import StandInClient

REDIS = SERVERS / "redis7"

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not (REDIS / "redis-server").exists(), reason="no Redis that speaks TLS: make servers"),
]


@pytest.fixture(autouse=True)
def _redis_with_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the wheel speaks none."""
    monkeypatch.setenv("PATH", f"{REDIS}:{os.environ['PATH']}")


HOSTNAME = {"cluster-announce-hostname": "localhost", "cluster-preferred-endpoint-type": "hostname"}
UNKNOWN = {"cluster-preferred-endpoint-type": "unknown-endpoint"}


@pytest.mark.parametrize(
    ("hosts", "seed", "config"),
    [
        (["127.0.0.1"], "127.0.0.1", {}),
        (["localhost"], "localhost", HOSTNAME),
        (["localhost"], "localhost", UNKNOWN),
    ],
    ids=["by address", "by name", "unknown endpoints"],
)
def test_a_cluster(  # noqa: PLR0913, PLR0917 - fixtures
    ours: Authority,
    tmp_path: Path,
    namespace: str,
    stand_in: StandInClient,
    hosts: list[str],
    seed: str,
    config: dict[str, str],
) -> None:
    files = ours.files(tmp_path, *hosts, "localhost")
    with tls_cluster(files, config) as ports:
        url = f"rediss+cluster://{seed}:{ports[0]}?ssl_ca_certs={files.authority}"
        with Fleet(url, namespace, stand_in, **PROCESS, broker_url="memory://") as fleet:
            delivers(fleet, tmp_path)
            nodes = told(fleet, "status")["nodes"]
            assert [each["address"] for each in nodes] == sorted(f"{seed}:{port}" for port in ports)


def test_a_node_whose_certificate_is_of_another_name_hears_nothing(
    ours: Authority, tmp_path: Path, namespace: str, stand_in: StandInClient
) -> None:
    """The nodes announce addresses, and the certificates are for a name."""
    files = ours.files(tmp_path, "localhost")
    with tls_cluster(files, {}) as ports:
        url = f"rediss+cluster://localhost:{ports[0]}?ssl_ca_certs={files.authority}"
        with (
            Fleet(url, namespace, stand_in, broker_url="memory://") as fleet,
            ContactProducer(settings=fleet.settings()) as producer,
            pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED") as caught,
        ):
            producer.send(changes(100))
        assert not isinstance(caught.value, NotAccepted) or len(caught.value.refused) == 100


def test_sentinels(ours: Authority, tmp_path: Path, namespace: str, stand_in: StandInClient) -> None:
    files = ours.files(tmp_path, "localhost")
    with tls_sentinel(files, tmp_path) as (port, servers):
        url = f"rediss+sentinel://localhost:{port}/{MASTER}/0?ssl_ca_certs={files.authority}"
        with Fleet(url, namespace, stand_in, **PROCESS) as fleet:
            delivers(fleet, tmp_path)
            [node] = told(fleet, "status")["nodes"]
            assert node["address"] == f"localhost:{servers[0]}"
            with by_tls(port, files) as sentinel:
                sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)

            def there() -> bool:
                return bool(told(fleet, "status")["nodes"][0]["address"] == f"localhost:{servers[1]}")

            wait_until(there, seconds=30, what="the replica takes over")
            with ContactProducer(settings=fleet.settings()) as producer:
                assert producer.upsert("1", "7")


def test_the_nodes_of_a_cluster_let_a_user_in_alone(
    ours: Authority, tmp_path: Path, namespace: str, stand_in: StandInClient
) -> None:
    files = ours.files(tmp_path, "127.0.0.1", "localhost")
    with tls_cluster(files, {}) as ports:
        for port in ports:
            with by_tls(port, files) as node:
                let_in_alone(node)
        url = f"rediss+cluster://app:secret@127.0.0.1:{ports[0]}?ssl_ca_certs={files.authority}"
        with Fleet(url, namespace, stand_in, **PROCESS, broker_url="memory://") as fleet:
            delivers(fleet, tmp_path)
            assert not any(each["away"] for each in told(fleet, "status")["nodes"])


def test_sentinels_and_their_servers_let_users_in_alone(
    ours: Authority, tmp_path: Path, namespace: str, stand_in: StandInClient
) -> None:
    files = ours.files(tmp_path, "localhost")
    with tls_sentinel(files, tmp_path) as (port, servers):
        with by_tls(port, files) as sentinel:
            for name, value in (("auth-user", "app"), ("auth-pass", "secret")):
                sentinel.execute_command("SENTINEL", "SET", MASTER, name, value)
            let_in_alone(sentinel, "watcher", "hidden")
        for each in servers:
            with by_tls(each, files) as server:
                server.config_set("masteruser", "app")
                server.config_set("masterauth", "secret")
                let_in_alone(server)
        asking = "sentinel_username=watcher&sentinel_password=hidden"
        url = f"rediss+sentinel://app:secret@localhost:{port}/{MASTER}/0?ssl_ca_certs={files.authority}&{asking}"
        with Fleet(url, namespace, stand_in, **PROCESS) as fleet:
            delivers(fleet, tmp_path)


def let_in_alone(server: redis.Redis, user: str = "app", password: str = "secret") -> None:  # noqa: S107 - of a test
    """Nobody may use the server from now on who is not this user."""
    command(server, "ACL", "SETUSER", user, "on", f">{password}", "~*", "&*", "+@all")
    command(server, "ACL", "SETUSER", "default", "off")


def delivers(fleet: Fleet, directory: Path) -> None:
    """Changes of both producers, delivered by a worker process."""
    with (
        WorkerProcess(fleet.environment(), directory / "worker") as worker,
        ContactProducer(settings=fleet.settings()) as producer,
    ):
        worker.wait_until_ready()
        producer.send(changes(100))
        asyncio.run(send(fleet.settings()))
        wait_until(lambda: fleet.stand_in.counts()["contacts"] == 200, seconds=30, what="all are delivered")
        assert worker.end() == 0


async def send(settings: ProducerSettings) -> None:
    async with AsyncContactProducer(settings=settings) as producer:
        await producer.send(changes(100, contact="2"))
