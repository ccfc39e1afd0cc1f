"""What waiting does not fix is said as what it is: at the start in one line, later as a reason of its own."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import run, told
from tests.support.fleet import Fleet, T
from tests.support.redis_proxy import RedisProxy
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, PROCESS, THREADS, WorkerProcess
from worker.local.data_dir import free_port
from worker.local.redis import EmbeddedRedis
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)

OPTIONS = pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])


@contextmanager
def cluster_node(tmp_path: Path, *, slots: bool) -> Iterator[EmbeddedRedis]:
    """One node of a cluster, with all slots or none."""
    # A bus port of its own: without, every node that listens on a socket alone takes the same.
    config = {
        "cluster-enabled": "yes",
        "cluster-config-file": str(tmp_path / "nodes.conf"),
        "cluster-port": str(free_port()),
    }
    with EmbeddedRedis(config=config) as server, connect(server.url) as client:
        if slots:
            client.round_trip([("CLUSTER", "ADDSLOTSRANGE", 0, 16383)])
            wait_until(
                lambda: b"cluster_state:ok" in client.round_trip([("CLUSTER", "INFO")])[0], seconds=30, what="up"
            )
        yield server


def refused_at_start(fleet: Fleet, tmp_path: Path, options: tuple[str, ...] = THREADS, **overrides: Any) -> str:
    """The one line that a worker says before it ends with status 2."""
    with WorkerProcess(fleet.environment(**overrides), tmp_path / "worker", options) as worker:
        assert worker.exit_status() == 2
        (line,) = worker.said().splitlines()
    assert line.startswith("contact-sync: ")
    return line


# At the start


@pytest.mark.redis(7, 0)  # the first with ADDSLOTSRANGE
@pytest.mark.parametrize("slots", [True, False], ids=["whole", "without slots"])
def test_a_plain_url_to_a_node_of_a_cluster_is_one_line_and_status_2(
    tmp_path: Path, namespace: str, stand_in: StandInClient, redis_server: EmbeddedRedis, *, slots: bool
) -> None:
    with (
        cluster_node(tmp_path, slots=slots) as server,
        Fleet(server.url, namespace, stand_in, **PROCESS, broker_url=redis_server.url) as fleet,
    ):
        assert "is a node of a Redis Cluster" in refused_at_start(fleet, tmp_path)
        ran = run(fleet, "health", "--json")
        assert ran.exit_code == 1
        assert "is a node of a Redis Cluster" in ran.stdout
        assert '"reason": "redis_refuses"' in ran.stdout
        checked = told(fleet, "check")
        assert "is a node of a Redis Cluster" in str(
            [each for each in checked["checks"] if each["severity"] == "wrong"]
        )


def test_a_redis_that_is_too_old_is_one_line_and_status_2(
    tmp_path: Path, namespace: str, stand_in: StandInClient, redis_server: EmbeddedRedis, redis_client: redis.Redis
) -> None:
    found: Any = redis_client.info("server")
    version = f"redis_version:{found['redis_version']}\r\n".encode()
    with (
        RedisProxy(redis_server.url) as old,
        Fleet(redis_server.url, namespace, stand_in, **PROCESS, broker_url=redis_server.url) as fleet,
    ):
        old.disguise = version, b"redis_version:6.0.9".ljust(len(version) - 2, b"0") + b"\r\n"
        assert "6.2 or newer" in refused_at_start(fleet, tmp_path, redis_url=old.url)
        found = told(fleet, "health", redis_url=old.url)
        assert (found["healthy"], found["reason"]) == (False, "redis_refuses")
        assert "6.2 or newer" in found["message"]


@OPTIONS
def test_a_user_who_may_not_run_what_workers_run_is_one_line_and_status_2(
    process_fleet: Fleet, tmp_path: Path, options: tuple[str, ...]
) -> None:
    process_fleet.client.acl_setuser(
        process_fleet.keys.namespace, enabled=True, passwords=["+hunter2"], keys="*", categories=["+@all"],
        commands=["-xtrim"],
    )  # fmt: skip
    address = process_fleet.environment()["CONTACT_SYNC_REDIS_URL"].removeprefix("unix://")
    url = f"unix://{process_fleet.keys.namespace}:hunter2@{address}"
    line = refused_at_start(process_fleet, tmp_path, options, redis_url=url)
    assert "XTRIM" in line
    assert "CONTACT_SYNC_REDIS_URL" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("command", ["EVALSHA", "XTRIM", "INFO"])
def test_a_server_without_a_command_is_one_line_and_status_2(
    tmp_path: Path, process_fleet: Fleet, command: str
) -> None:
    renamed = tmp_path / "renamed.conf"
    renamed.write_text(f'rename-command {command} ""\n', encoding="utf-8")
    with EmbeddedRedis(config={"include": str(renamed)}) as server:
        broker = process_fleet.environment()["CONTACT_SYNC_REDIS_URL"]
        assert command in refused_at_start(process_fleet, tmp_path, redis_url=server.url, broker_url=broker)


# Later


def _wrong_password(client: redis.Redis) -> None:
    client.config_set("requirepass", "hunter2")


def _no_permission(client: redis.Redis) -> None:
    client.acl_setuser(
        "default", enabled=True, nopass=True, keys="*", categories=["+@all"], commands=["-xread", "-xrange"]
    )


@pytest.mark.parametrize(("break_it", "says"), [(_wrong_password, "password"), (_no_permission, "XRANGE")])
def test_what_redis_refuses_later_is_a_reason_of_its_own_in_health_and_in_the_log(
    tmp_path: Path, namespace: str, stand_in: StandInClient, break_it: Callable[[redis.Redis], None], says: str
) -> None:
    with ExitStack() as undo:
        server = undo.enter_context(EmbeddedRedis())
        fleet = undo.enter_context(Fleet(server.url, namespace, stand_in, **PROCESS))
        worker = undo.enter_context(WorkerProcess(fleet.environment(), tmp_path)).wait_until_ready()
        fleet.append("1", "2", "upsert", T)
        wait_until(stand_in.contacts, seconds=30, what="it delivers")
        break_it(fleet.client)
        fleet.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: "redis_refuses" in worker.said(), seconds=30, what="it says so")
        assert "redis_away" not in worker.said().partition("redis_refuses")[2]
        ran = run(fleet, "health")
        assert (ran.exit_code, ran.stdout.count("\n")) == (1, 1)
        assert says in ran.stdout
        assert told(fleet, "health")["reason"] == "redis_refuses"


# The broker


@contextmanager
def broker_of(name: str) -> Iterator[tuple[EmbeddedRedis, str]]:
    """A broker apart from the log, with the URL of a user of this name who may do everything."""
    with EmbeddedRedis(tcp=True) as server, connect(server.url) as client:
        client.acl_setuser(name, enabled=True, passwords=["+hunter2"], keys="*", channels="*", categories=["+@all"])
        yield server, server.url.replace("redis://", f"redis://{name}:hunter2@")


@pytest.mark.parametrize(
    ("broker_url", "says"),
    [
        ("sentinel://127.0.0.1:1;sentinel://127.0.0.1:2/0", "master"),
        ("redis://somebody:hunter2@{address}/0", "refuses the user or password"),
    ],
)
def test_a_broker_that_no_waiting_mends_is_one_line_and_status_2(
    process_fleet: Fleet, tmp_path: Path, broker_url: str, says: str
) -> None:
    with broker_of("another") as (server, _):
        address = server.url.removeprefix("redis://").partition("/")[0]
        line = refused_at_start(process_fleet, tmp_path, broker_url=broker_url.format(address=address))
    assert says in line
    assert "CONTACT_SYNC_BROKER_URL" in line
    assert "hunter2" not in line


@pytest.mark.redis(7, 0)  # the first with ADDSLOTSRANGE
def test_a_broker_that_is_a_node_of_a_cluster_is_one_line_and_status_2(process_fleet: Fleet, tmp_path: Path) -> None:
    with cluster_node(tmp_path, slots=True) as server:
        line = refused_at_start(process_fleet, tmp_path, broker_url=server.url)
    assert "CONTACT_SYNC_BROKER_URL" in line
    assert "is a node of a Redis Cluster" in line


def _no_hints_left(client: redis.Redis, user: str) -> None:
    client.acl_setuser(user, enabled=True, commands=["-lpush"])


def _no_hints_taken(client: redis.Redis, user: str) -> None:
    client.acl_setuser(user, enabled=True, commands=["-brpop"])


def _another_password(client: redis.Redis, user: str) -> None:
    client.acl_setuser(user, enabled=True, passwords=["-hunter2", "+hunter3"])


def _foreign_queue(client: redis.Redis, user: str) -> None:
    client.set(user, "no list")  # the queue has the name of the namespace, as the user has here


@OPTIONS
@pytest.mark.parametrize("break_it", [_no_hints_left, _no_hints_taken, _another_password, _foreign_queue])
def test_whatever_is_wrong_with_the_broker_changes_are_delivered(
    process_fleet: Fleet, tmp_path: Path, break_it: Callable[[redis.Redis, str], None], options: tuple[str, ...]
) -> None:
    fleet, stand_in = process_fleet, process_fleet.stand_in
    with broker_of(fleet.keys.namespace) as (server, url), connect(server.url) as client:
        fleet.change(broker_url=url)
        with WorkerProcess(fleet.environment(), tmp_path, options) as worker:
            worker.wait_until_ready()
            break_it(client, fleet.keys.namespace)
            client.round_trip([("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")])
            for contact in ("2", "3", "4"):
                fleet.append("1", contact, "upsert", T)
                wait_until(lambda each=contact: ("1", each) in stand_in.contacts(), seconds=30, what="it is delivered")  # type: ignore[misc] # mypy: default of a lambda
            assert "ticker_failed" not in worker.said()
