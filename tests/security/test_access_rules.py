"""The users of deploy/redis/users.acl may do all that they need, and nothing that they need not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery

from producers import ContactProducer
from tests.support.commands import dead_letter, run, told
from tests.support.fleet import Fleet, T
from tests.support.serving import metrics, serving
from tests.support.waiting import wait_until
from tests.support.worker_process import PREFORK, PROCESS, THREADS, WorkerProcess, wait_until_delivered
from worker.local.redis import EmbeddedRedis
from worker.store.client import command
from worker.store.inbox import Inbox
from worker.store.ledger_rotation import LedgerRotation
from worker.store.refusal import OLDEST_REDIS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
USERS = ROOT / "deploy" / "redis" / "users.acl"
PASSWORD = "pass-word"
USER_NAMES = ("producer", "worker", "broker")
HARMLESS = [
    *((f"contact-sync-{user}", "command", name) for user in USER_NAMES for name in ("client|setinfo", "client")),
    ("contact-sync-worker", "command", "config"),  # Redis 6.2 cannot be asked first whether it would be refused
]


def rules(namespace: str) -> dict[str, list[str]]:
    """The file's users and their rules, as for another namespace and switched on; who tests stays `default`."""
    text = re.sub(r"(?<=[~&/])contact-sync", namespace, USERS.read_text(encoding="utf-8"))
    users = {line.split()[1]: line.split()[2:] for line in text.splitlines() if line.startswith("user ")}
    assert users.pop("default") == ["off"]
    return {name: ["on", f">{PASSWORD}", *each[1:]] for name, each in users.items() if each[0] == "off"}


class Guarded:
    """A Redis with these users, shared by the log and the broker.

    Attributes:
        fleet: whose URLs name the worker's and the broker's user; its own client may do everything.
    """

    def __init__(self, server: EmbeddedRedis, namespace: str, stand_in: StandInClient, undo: ExitStack) -> None:
        self.address = urlsplit(server.url).netloc
        self.client = undo.enter_context(redis.Redis.from_url(server.url))
        self.undo = undo
        for name, each in rules(namespace).items():
            self.client.execute_command("ACL", "SETUSER", name, "reset", *each)
        self.fleet = undo.enter_context(Fleet(server.url, namespace, stand_in, **PROCESS))
        self.fleet.change(redis_url=self.url("worker"), broker_url=self.url("broker", database=1))

    def url(self, user: str, database: int = 0) -> str:
        return f"redis://contact-sync-{user}:{PASSWORD}@{self.address}/{database}"

    def producer(self) -> ContactProducer:
        return ContactProducer(settings=self.fleet.settings(redis_url=self.url("producer")))

    def refused(self) -> list[tuple[str, str, str]]:
        """Who was refused what (user, reason, object), but for what does no harm.

        redis-py says which library it is (CLIENT SETINFO) and does not mind a refusal; rules that allow it would not
        load on Redis 7.0.
        """
        found: Any = self.client.acl_log()
        every = [(each["username"], each["reason"], each["object"]) for each in found]
        return [each for each in every if each not in HARMLESS]


USED: dict[str, set[tuple[str, str]]] = {}
"""What each test's users ran: (user, command)."""

_OF_A_CLUSTER = {
    **dict.fromkeys(("asking", "cluster|slots"), "a cluster: which node serves a slot"),
    "wait": "CONTACT_SYNC_WAIT_REPLICAS",
}

UNTRIED = {
    "producer": _OF_A_CLUSTER,
    "worker": {
        **_OF_A_CLUSTER,
        "select": "a URL that names another database than 0",
        "hvals": "settle.lua, for a partition with states whose times it must find again",
    },
    "broker": {
        "client|setname": "a URL with client_name",
        **dict.fromkeys(("hget", "rpush", "watch", "unwatch"), "kombu, to restore a message of a lost worker"),
        "zrevrangebyscore": "kombu, to find the messages of lost workers",
    },
}
"""What is granted although the tests of this file do not meet it, and who needs it."""

ALWAYS_ALLOWED = {"auth", "hello"}


def used_by_user(guarded: Guarded, seen: Any) -> Iterator[tuple[str, str]]:
    """What was run on this server, by whom; the test's own commands are left out.

    MONITOR tells connections and databases, not users. Workers and brokers use a database each; the test's own client
    and producers are told by their connections, which are open to the end.
    """
    every: Any = guarded.client.client_list()
    users = {each["addr"]: each["user"] for each in every}
    end = uuid.uuid4().hex
    guarded.client.echo(end)
    for line in iter(seen.next_command, None):
        words = line["command"].lower().split()
        if words[:2] == ["echo", end]:
            return
        user = users.get(f"{line['client_address']}:{line['client_port']}")
        if line["client_type"] == "lua" or user is None:
            user = "contact-sync-broker" if line["db"] == 1 else "contact-sync-worker"
        if user != "default" and words[0] not in ALWAYS_ALLOWED:
            yield user, "|".join(words[:2]) if words[0] in {"script", "client", "xinfo"} else words[0]


@pytest.fixture
def guarded(request: pytest.FixtureRequest, namespace: str, stand_in: StandInClient) -> Iterator[Guarded]:
    with ExitStack() as undo:
        guarded = Guarded(undo.enter_context(EmbeddedRedis(tcp=True)), namespace, stand_in, undo)
        seen = undo.enter_context(guarded.client.monitor())
        yield guarded
        USED.setdefault(request.function.__name__, set()).update(used_by_user(guarded, seen))


@pytest.mark.parametrize("options", [THREADS, PREFORK], ids=["threads", "prefork"])
def test_producers_and_workers_need_no_more(guarded: Guarded, tmp_path: Path, options: tuple[str, ...]) -> None:
    fleet = guarded.fleet
    with WorkerProcess(fleet.environment(), tmp_path, options) as worker, guarded.producer() as producer:
        worker.wait_until_ready()
        producer.send([{"owner": f"o{n % 20}", "contact": str(n), "op": "upsert"} for n in range(2_000)])
        producer.delete("o1", "1")
        assert producer.pressure() < 1
        wait_until_delivered(fleet)
        fleet.stand_in.faults({"kind": "hang", "times": 1})  # late marks, and a repair
        producer.upsert("o2", "late")
        wait_until(lambda: fleet.totals().get("repairs", 0) + fleet.totals().get("retries", 0), seconds=30, what="late")
        fleet.append_raw(0, {"op": "nonsense"})
        wait_until_delivered(fleet)
        # Remote control, as `celery inspect` has it.
        with Celery("inspector", broker=fleet.settings().celery_broker_url) as app:
            assert app.control.inspect(timeout=10.0, limit=1).ping()
        assert "broker_away" not in worker.said()
        assert worker.end() == 0
    assert len(fleet.stand_in.contacts()) == 2_000
    assert guarded.refused() == []


def test_producers_need_no_more_in_any_language(guarded: Guarded) -> None:
    fleet, url = guarded.fleet, guarded.url("producer", database=0)
    producer = guarded.undo.enter_context(guarded.producer())
    receipt = producer.upsert("1", "2")
    assert producer.pressure() < 1
    assert receipt.eta() >= 0
    shown = (ROOT / "docs" / "how-to" / "other-languages.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import os, time, zlib, redis\n.*?)```", shown, re.DOTALL)
    code = code.replace("contact-sync:", f"{fleet.keys.namespace}:")
    environ = {**os.environ, "CONTACT_SYNC_REDIS_URL": url}
    ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    client = guarded.undo.enter_context(redis.Redis.from_url(guarded.url("producer", database=3)))
    assert client.ping()
    assert client.hget(fleet.keys.config, "partitions") is None
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert guarded.refused() == []


def test_whatever_a_documented_producer_runs_is_allowed() -> None:
    """Each names its commands as words in quotes, or as methods of its client."""
    granted = {word[1:] for word in rules("contact-sync")["contact-sync-producer"] if word.startswith("+")}
    for path in sorted((ROOT / "examples").glob("*/[Pp]roducer.*")):
        text = path.read_text(encoding="utf-8")
        named = {*re.findall(r'"([HX][A-Z]{2,})"', text), *re.findall(r"redis\.([hx][A-Z]\w+)\(", text)}
        assert len(named) == 2, (path.name, named)
        assert {name.lower() for name in named} <= granted, path.name


def test_commands_need_no_more(guarded: Guarded, tmp_path: Path) -> None:
    fleet = guarded.fleet
    given = '{"owner": "1", "contact": "2", "op": "upsert"}'
    assert run(fleet, "emit", given=given, redis_url=guarded.url("producer")).exit_code == 0
    fleet.deliver()
    dead_letter(fleet, at=T)
    assert told(fleet, "check")["ok"], told(fleet, "check")
    rotation = LedgerRotation(fleet.first.namespace, time.monotonic, ledger_seconds=0.001)
    for _ in range(2):  # the newer ledger becomes the older one, and that goes
        time.sleep(0.01)
        rotation.rotate_due()
    source = tmp_path / "contacts.csv"
    source.write_text("owner,contact\n1,2\n1,3\n", encoding="utf-8")
    for line in (f"reconcile {source} --wait 0", "reconcile history", "conform"):
        ran = run(fleet, *line.split())
        assert ran.exit_code == 0, (line, ran.stdout, ran.stderr)
    fleet.client.xadd(fleet.keys.inbox, {"owner": "1", "contact": "7", "op": "upsert"})
    assert Inbox(fleet.first.namespace).move() == 1
    fleet.deliver()
    assert run(fleet, "erase", "3", "--wait", "0").exit_code == 1  # nobody works meanwhile
    fleet.deliver()
    assert run(fleet, "erase", "3", "--wait", "0").exit_code == 0
    for line in (
        *("status", "status --acknowledge", "explain 1 2", "explain 1 9", "health", "drain --timeout 5"),
        *(
            "dead-letters list",
            "dead-letters redrive",
            "dead-letters purge --yes",
            "forget 1 --also-waiting --yes",
            "pause",
            "resume",
        ),
    ):
        ran = run(fleet, *line.split())
        assert ran.exit_code == 0, (line, ran.stdout, ran.stderr)
    fleet.deliver()
    assert guarded.refused() == []


def test_serve_needs_no_more(guarded: Guarded) -> None:
    fleet = guarded.fleet
    letter = dead_letter(fleet, at=T)
    with serving(fleet) as client:
        assert metrics(client)["contact_sync_redis_up"] == 1
        for path in ("/readyz", "/api/status", "/api/explain?owner=1&contact=9", "/api/dead-letters"):
            assert client.get(path).status_code == 200, path
        assert client.post("/api/dead-letters/redrive", json={"ids": [letter]}).json()["noted"]
        assert client.post("/api/dead-letters/purge", json={"all": True}).json()["noted"]
        assert len(client.get("/api/audit").json()["entries"]) == 2
    assert guarded.refused() == []


@pytest.mark.redis(7, 0)  # an older one hides CLIENT from MONITOR
@pytest.mark.parametrize("user", USER_NAMES)
def test_what_is_granted_is_what_is_used(user: str) -> None:
    """It adds up what the tests above have run, so it needs all of them."""
    if len({name for name in USED if "need" in name}) < 4:
        pytest.skip("the tests above did not run in this process: run the whole file")
    used = {command for of in USED.values() for name, command in of if name == f"contact-sync-{user}"}
    granted = {word[1:] for word in rules("contact-sync")[f"contact-sync-{user}"] if word.startswith("+")}
    assert used - granted == set()
    assert granted - used <= UNTRIED[user].keys()


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("producer", "XRANGE {namespace}:{{0}}:events - +"),
        ("producer", "XTRIM {namespace}:{{0}}:events MAXLEN 0"),
        ("producer", "HSET {namespace}:{{0}}:pending a b"),
        ("producer", "HGETALL {namespace}:{{0}}:ledger:new"),
        ("producer", "HSCAN {namespace}:{{0}}:ledger:new 0"),
        ("producer", "DEL {namespace}:config"),
        ("producer", "XADD another:{{0}}:events * a b"),
        ("producer", "EVAL return 0"),
        ("worker", "GET another"),
        ("worker", "KEYS *"),
        ("worker", "FLUSHALL"),
        ("worker", "CONFIG SET maxmemory-policy allkeys-lru"),
        ("worker", "EVAL return(redis.call('get','another')) 0"),
        ("broker", "XADD {namespace}:{{0}}:events * a b"),
        ("broker", "EVAL return 0"),
        ("broker", "GET {namespace}:config"),
        ("broker", "LPUSH another-queue x"),
        ("broker", "FLUSHDB"),
        ("broker", "KEYS *"),
    ],
)
def test_they_may_do_nothing_else(guarded: Guarded, user: str, command: str) -> None:
    with (
        redis.Redis.from_url(guarded.url(user)) as client,
        pytest.raises(redis.ResponseError, match=r"(?i)permission|can.t access"),
    ):
        client.execute_command(*command.format(namespace=guarded.fleet.keys.namespace).split())


@pytest.mark.redis(
    7, 0
)  # the first that says since when a command is known; an older one must load the file all the same
def test_the_oldest_redis_knows_every_command_of_the_file(redis_client: redis.Redis) -> None:
    """A command or subcommand that a server does not know makes it refuse the whole file."""
    named = {word[1:] for word in USERS.read_text(encoding="utf-8").split() if word.startswith("+")}
    docs: Any = command(redis_client, "COMMAND DOCS", *{name.partition("|")[0] for name in named})
    since = dict(known_since(docs))
    newer = {name: since[name] for name in named if since[name] > OLDEST_REDIS}
    assert newer == {}


def known_since(docs: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each command and subcommand of a reply to COMMAND DOCS, with the version that brought it."""
    for name, facts in pairs(docs):
        about = dict(pairs(facts))
        yield name.decode(), tuple(int(part) for part in about[b"since"].decode().split("."))[:2]
        yield from known_since(about.get(b"subcommands", []))


def pairs(reply: Any) -> Iterable[tuple[Any, Any]]:
    """The items of what RESP3 sends as a map and RESP2 as a flat list."""
    return reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)


def test_redis_takes_the_file_as_it_is_and_lets_nobody_in_until_it_is_edited(tmp_path: Path) -> None:
    copied = tmp_path / "users.acl"
    copied.write_bytes(USERS.read_bytes())
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        for line in USERS.read_text(encoding="utf-8").splitlines():
            assert line.startswith("user ")  # Redis takes no comments in such a file
            if line.split()[1] != "default":
                client.execute_command("ACL", "SETUSER", *line.split()[1:])
        every: Any = client.acl_list()
    assert [each.split()[2] for each in every if not each.startswith("user default")] == ["off"] * 3
