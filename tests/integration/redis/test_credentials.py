"""Credentials that expire: a function of the app is asked for each new connection, whatever kind of Redis it is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from producers import AsyncContactProducer, ContactProducer, NotAccepted, ProducerSettings, SettingsError
from tests.support.clusters import connected
from tests.support.commands import COMMAND, run
from tests.support.fleet import Fleet
from tests.support.sentinels import SentinelSetup, address_of
from tests.support.waiting import wait_until
from tests.support.worker_process import PROCESS, WorkerProcess
from worker.local.cluster import EmbeddedCluster
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from producers.nodes.url import Address
    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(180)

USER = "app"

MODULE = f"""
from pathlib import Path

def current():
    return "{USER}", Path(__file__).with_name("token").read_text()

def fails():
    raise RuntimeError("s3cret")

def odd():
    return 7

nothing = None
"""


class Servers(NamedTuple):
    """Where the servers are, and settings with which everybody finds them."""

    addresses: list[Address]
    settings: dict[str, Any]


@contextmanager
def single() -> Iterator[Servers]:
    with EmbeddedRedis(tcp=True) as server:
        yield Servers([address_of(server)], {"redis_url": server.url})


@contextmanager
def sentinel() -> Iterator[Servers]:
    with SentinelSetup() as setup:
        yield Servers([address_of(each) for each in setup.servers], {"redis_url": setup.url})


@contextmanager
def cluster() -> Iterator[Servers]:
    with EmbeddedCluster(3) as made:
        yield Servers(made.addresses, {"redis_url": made.url, "broker_url": "memory://"})


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of the app: the directory with it and with the token."""
    (tmp_path / "tokens.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("tokens", None)


def rotate(servers: Servers, directory: Path, token: str) -> None:
    """A new password; the old one counts no more, and connections that were made with it end."""
    (directory / "token").write_text(token, encoding="utf-8")
    for each in servers.addresses:
        with connected(each) as client:
            client.execute_command("ACL", "SETUSER", USER, "on", "resetpass", f">{token}", "~*", "&*", "+@all")
            client.execute_command("CLIENT", "KILL", "USER", USER)


def users(servers: Servers) -> set[tuple[str, str]]:
    """Who is connected: user and name of the client."""
    found: set[tuple[str, str]] = set()
    for each in servers.addresses:
        with connected(each) as client:
            listed: Any = client.client_list()
            found |= {(one["user"], one["name"]) for one in listed}
    return found


@pytest.mark.parametrize("kind", [single, sentinel, cluster])
def test_everything_goes_on_with_the_new_password(
    kind: Any, functions: Path, namespace: str, stand_in: StandInClient
) -> None:
    with kind() as servers:
        rotate(servers, functions, "first")
        given = {**PROCESS, **servers.settings, "redis_credentials": "tokens:current"}
        with Fleet(given.pop("redis_url"), namespace, stand_in, **given) as fleet:
            environment = fleet.environment() | {"PYTHONPATH": str(functions), "PATH": os.environ["PATH"]}

            def there(contact: str) -> None:
                wait_until(lambda: ("1", contact) in stand_in.contacts(), seconds=30, what=f"{contact} is delivered")

            with (
                WorkerProcess(environment, functions) as worker,
                ContactProducer(settings=fleet.settings()) as producer,
            ):
                worker.wait_until_ready()
                producer.upsert("1", "2")
                there("2")
                assert (USER, "contact-sync") in users(servers)
                assert ("default", "contact-sync") not in users(servers)
                for token in ("second", "third"):
                    rotate(servers, functions, token)
                    wait_until(partial(accepted, producer, token), seconds=20, what="accepted again")
                    there(token)
                asyncio.run(send(fleet.settings(), "4"))
                there("4")
                for words in (("status", "--json"), ("pause",), ("forget", "7", "--yes"), ("health",)):
                    ran = subprocess.run(
                        [COMMAND, *words], env=environment, capture_output=True, text=True, check=False
                    )
                    assert ran.returncode == 0, ran.stderr
                assert "ERROR" not in worker.said()
                assert worker.end() == 0


def accepted(producer: ContactProducer, contact: str) -> bool:
    try:
        producer.upsert("1", contact)
    except NotAccepted:  # what was connected before was cut off
        return False
    return True


async def send(settings: ProducerSettings, contact: str) -> None:
    async with AsyncContactProducer(settings=settings) as producer:
        await producer.upsert("1", contact)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("tokens:fails", "the function of CONTACT_SYNC_REDIS_CREDENTIALS failed: RuntimeError"),
        (
            "tokens:odd",
            "the function of CONTACT_SYNC_REDIS_CREDENTIALS must return a password, or a user and a password",
        ),
    ],
)
def test_a_function_that_gives_none_is_said_without_its_secret(
    redis_server: EmbeddedRedis, function: str, says: str
) -> None:
    settings = ProducerSettings(redis_url=redis_server.url, redis_credentials=function)
    with ContactProducer(settings=settings) as producer, pytest.raises(NotAccepted, match=says) as caught:
        producer.upsert("1", "2")
    assert "s3cret" not in str(caught.value)
    assert len(caught.value.refused) == 1


@pytest.mark.parametrize("function", ["tokens:none_such", "no_such_module:current", "tokens:nothing"])
def test_a_function_that_is_not_there_is_said_at_once(redis_server: EmbeddedRedis, function: str) -> None:
    with pytest.raises(SettingsError, match=f"CONTACT_SYNC_REDIS_CREDENTIALS: {function} ") as caught:
        ContactProducer(settings=ProducerSettings(redis_url=redis_server.url, redis_credentials=function))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["worker"], ["status"]])
def test_a_worker_and_a_command_say_it_in_one_line(redis_server: EmbeddedRedis, words: list[str]) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "CONTACT_SYNC_REDIS_URL": redis_server.url,
        "CONTACT_SYNC_REDIS_CREDENTIALS": "no_such_module:current",
        "CONTACT_SYNC_SERVER_KEY_ID": "id",
        "CONTACT_SYNC_SERVER_KEY_SECRET": "secret",
    }
    ran = subprocess.run([COMMAND, *words], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "CONTACT_SYNC_REDIS_CREDENTIALS: no_such_module:current cannot be loaded (ModuleNotFoundError)" in ran.stderr


@pytest.mark.parametrize("command", ["status", "check"])
def test_what_is_no_credentials_is_not_called_a_refusal(fleet: Fleet, command: str) -> None:
    ran = run(fleet, command, redis_credentials="tokens:odd")
    assert ran.exit_code == 1
    assert "the function of CONTACT_SYNC_REDIS_CREDENTIALS must return a password" in ran.output


@pytest.mark.parametrize("url", ["redis://:pw@localhost", "redis+cluster://u:pw@a,b", "redis+sentinel://u:pw@a,b/m"])
def test_a_url_has_no_password_beside_it(url: str) -> None:
    with pytest.raises(SettingsError, match="CONTACT_SYNC_REDIS_URL must have no user or password if") as caught:
        ProducerSettings(redis_url=url, redis_credentials="tokens:current")
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("function", ["tokens", "tokens.current", "tokens:current()", ":current", "a-b:c"])
def test_a_name_of_another_form_is_refused(function: str) -> None:
    with pytest.raises(SettingsError, match=r"CONTACT_SYNC_REDIS_CREDENTIALS must be package\.module:function"):
        ProducerSettings(redis_credentials=function)
