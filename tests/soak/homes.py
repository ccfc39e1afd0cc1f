"""Where the log of a soak lives: one Redis, a master that sentinels name, or a cluster; and what is seen of its nodes.

Every node is behind a proxy, whose port it announces: clients, replicas and sentinels reach it by that alone. So
a node can be cut off from all of them while it lives. The bus on which the nodes of a cluster watch each other is not
cut: a cluster fails over when a node dies or hangs, and not when only its clients lose it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from producers.nodes.url import Address
from tests.soak.proxy import Proxy
from tests.support.sentinels import MASTER, SentinelSetup
from worker.local.cluster import EmbeddedCluster
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path

    from tests.soak.lineage import Moved

On = Literal["redis", "sentinel", "cluster"]
"""One Redis; a master and two replicas that three sentinels watch; a cluster of three masters and three replicas."""

ASK_SECONDS: Final = 0.3
"""Longest that a node may take to say what it is: one that hangs holds up the look at all others."""

ONE: Final = {"appendfsync": "always", "auto-aof-rewrite-percentage": "0"}
"""Every accepted change is on disk before it is acknowledged; the file is never rewritten, as it is read."""

SEVERAL: Final = {
    "appendfsync": "no",  # written before it is acknowledged, so that a killed process loses nothing of its file
    "auto-aof-rewrite-percentage": "0",
    "aof-disable-auto-gc": "yes",  # a master that was deposed takes over another's data: its file says what was lost
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    "repl-backlog-size": "16mb",
}


class Claim(NamedTuple):
    """What a node says of itself.

    Attributes:
        epoch: of two nodes that claim a slot, the one with the greater epoch has it.
        slots: first and last of each span that it serves.
        open_slots: how many slots are on their way from it or to it.
    """

    epoch: int
    slots: tuple[tuple[int, int], ...]
    open_slots: int


class Node:
    """One server of a home, behind its proxy.

    Attributes:
        server: the server.
        proxy: what others reach it through.
        data: the directory of its data.
    """

    def __init__(self, server: EmbeddedRedis, proxy: Proxy, data: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.data = data
        self._client: redis.Redis | None = None

    @property
    def address(self) -> Address:
        """Its own, past the proxy."""
        return Address("127.0.0.1", int(self.server.url.rpartition(":")[2].partition("/")[0]))

    @property
    def announced(self) -> Address:
        """Its proxy's."""
        return Address("127.0.0.1", self.proxy.port)

    def command(self, *words: Any) -> Any:
        """Runs a command on it, past the proxy.

        Raises:
            redis.RedisError: it does not answer, or refuses.
        """
        return self._connected().execute_command(*words)  # type: ignore[no-untyped-call] # redis-py leaves it untyped

    def quick(self) -> Any:
        """What it replies to ROLE, None if it does not answer at once."""
        with suppress(redis.RedisError):
            return self.command("ROLE")
        return None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to its process."""
        with suppress(ProcessLookupError):
            os.kill(self.server.pid, number)

    def close(self) -> None:
        """Closes the connection to it."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> redis.Redis:
        if self._client is None:
            at = self.address
            self._client = redis.Redis(
                host=at.host,
                port=at.port,
                socket_timeout=ASK_SECONDS,
                socket_connect_timeout=ASK_SECONDS,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        return self._client


class Home:
    """Where the log lives, as a context manager.

    Attributes:
        on: which kind.
        appendfsync: of its nodes.
        nodes: its servers.
        url: what workers and producers are given.
        broker_url: the same for Celery's broker; None where it is the log's own.
        moves: the partitions that moved from node to node.
        log, broker: proxies before one Redis, where it is only one, and before the broker, where it has a server.
    """

    on: On
    appendfsync = "no"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[Node] = []
        self.url = ""
        self.broker_url: str | None = None
        self.log: Proxy | None = None
        self.broker: Proxy | None = None
        self.moves: list[Moved] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._start(undo)
            undo.callback(self._disconnect)
            self._open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _disconnect(self) -> None:
        for each in self.nodes:
            each.close()

    @property
    def observer_url(self) -> str:
        """What the soak itself looks through."""
        return self.url

    def flush_broker(self) -> None:
        """Forgets every message.

        Raises:
            redis.RedisError: it does not answer.
        """
        raise NotImplementedError

    def serving(self, keys: Mapping[int, str]) -> dict[int, int]:
        """Which node serves each of these keys, as far as anybody says."""
        raise NotImplementedError

    def whole(self) -> bool:
        """Whether every node is there, every replica follows, and no slot is open."""
        raise NotImplementedError

    def _start(self, undo: ExitStack) -> None:
        raise NotImplementedError

    def add(self, undo: ExitStack, data: Path, config: Mapping[str, str], announced_by: str) -> EmbeddedRedis:
        """Starts a node and its proxy.

        Args:
            undo: ends both.
            data: the directory of its data.
            config: more directives.
            announced_by: what the directives begin with by which it tells its port.
        """
        proxy = undo.enter_context(Proxy(""))
        announced = {f"{announced_by}-announce-ip": "127.0.0.1", f"{announced_by}-announce-port": str(proxy.port)}
        server = undo.enter_context(EmbeddedRedis(data, tcp=True, config={**config, **SEVERAL, **announced}))
        proxy.point_at(server.url)
        self.nodes.append(Node(server, proxy, data))
        return server

    def _broker_of_its_own(self, undo: ExitStack) -> None:
        server = undo.enter_context(EmbeddedRedis(config={"save": ""}))
        self._broker_server = server
        self.broker = undo.enter_context(Proxy(server.url))
        self.broker_url = f"redis://127.0.0.1:{self.broker.port}/1"

    def _flush(self, url: str) -> None:
        with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5.0) as client:
            client.flushdb()


class OneRedis(Home):
    """One server, which is event log and broker."""

    on = "redis"
    appendfsync = "always"

    def _start(self, undo: ExitStack) -> None:
        data = self.directory / "redis"
        server = undo.enter_context(EmbeddedRedis(data, config=ONE))
        self.log = undo.enter_context(Proxy(server.url))
        self.broker = undo.enter_context(Proxy(server.url))
        self.nodes = [Node(server, self.log, data)]
        self.url = f"redis://127.0.0.1:{self.log.port}/0"
        self.broker_url = f"redis://127.0.0.1:{self.broker.port}/1"

    @property
    def observer_url(self) -> str:
        return self.nodes[0].server.url

    def flush_broker(self) -> None:
        self._flush(self.observer_url.replace("db=0", "db=1"))

    def serving(self, keys: Mapping[int, str]) -> dict[int, int]:
        return dict.fromkeys(keys, 0)

    def whole(self) -> bool:
        return True


class SentinelHome(Home):
    """A master and two replicas; the broker is in another database of the master."""

    on = "sentinel"

    def _start(self, undo: ExitStack) -> None:
        self.setup = undo.enter_context(_Sentinels(self))
        self.url = self.setup.url
        self.broker_url = f"{self.url.removesuffix('/0')}/1"

    def flush_broker(self) -> None:
        node = self.master()
        if node is not None:
            self._flush(f"redis://{self.nodes[node].address}/1")

    def master(self) -> int | None:
        """Which node most sentinels name, if it takes itself for the master."""
        named = self.setup.named()
        found = next((i for i, each in enumerate(self.nodes) if each.announced == named), None)
        role = None if found is None else self.nodes[found].quick()
        return found if role is not None and role[0] == b"master" else None

    def serving(self, keys: Mapping[int, str]) -> dict[int, int]:
        master = self.master()
        return {} if master is None else dict.fromkeys(keys, master)

    def whole(self) -> bool:
        master = self.master()
        if master is None or len(self.setup.names()) < len(self.setup.sentinels):
            return False
        port = self.nodes[master].announced.port
        roles = [each.quick() for i, each in enumerate(self.nodes) if i != master]
        return all(_follows(role, port) for role in roles)


class _Sentinels(SentinelSetup):
    down_after_ms = 2_000  # a machine that is busy with a soak lets a server wait for longer than usual

    def __init__(self, home: SentinelHome) -> None:
        super().__init__()
        self._home = home

    def announced(self, server: EmbeddedRedis) -> Address:
        return next(each.announced for each in self._home.nodes if each.server is server)

    def names(self) -> list[Address]:
        """Which master each sentinel names that answers at once."""
        named = []
        for each in self.sentinels:
            client = redis.Redis(
                host=each.host,
                port=each.port,
                socket_timeout=ASK_SECONDS,
                socket_connect_timeout=ASK_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            with suppress(redis.RedisError, TypeError), client:
                reply: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)  # type: ignore[no-untyped-call]
                named.append(Address(reply[0].decode(), int(reply[1])))
        return named

    def named(self) -> Address | None:
        """Which one most of them name."""
        named = self.names()
        return max(named, key=named.count) if named else None

    def _start_server(self, undo: ExitStack, index: int, config: dict[str, str]) -> EmbeddedRedis:
        return self._home.add(undo, self._home.directory / f"node-{index}", config, announced_by="replica")


class ClusterHome(Home):
    """Three masters and three replicas; the broker is a server of its own, as Celery cannot use a cluster."""

    on = "cluster"

    def _start(self, undo: ExitStack) -> None:
        self.cluster = undo.enter_context(_Cluster(self))
        self.url = f"redis+cluster://{','.join(str(each.announced) for each in self.nodes[:3])}"
        self._broker_of_its_own(undo)

    def flush_broker(self) -> None:
        self._flush(self._broker_server.url.replace("db=0", "db=1"))

    def claims(self) -> list[Claim | None]:
        """What each node says of itself; None if it is not a master, or does not answer."""
        return [self._claim(each) for each in self.nodes]

    def serving(self, keys: Mapping[int, str]) -> dict[int, int]:
        claims = self.claims()
        found = {}
        for name, key in keys.items():
            slot = key_slot(key.encode())
            own = [
                (each.epoch, i)
                for i, each in enumerate(claims)
                if each is not None and any(first <= slot <= last for first, last in each.slots)
            ]
            if own:
                found[name] = max(own)[1]
        return found

    def whole(self) -> bool:
        claims = self.claims()
        masters = [each for each in claims if each is not None and each.slots]
        if len(masters) != len(claims) // 2 or any(each.open_slots for each in masters):
            return False
        roles = [self.nodes[i].quick() for i, each in enumerate(claims) if each is None]
        followed = {
            int(role[2]) for role in roles if role is not None and role[0] == b"slave" and role[3] == b"connected"
        }
        if len(roles) != len(masters) or len(followed) != len(masters):
            return False
        return all(self._agrees(each, claims) for each in self.nodes)

    def _agrees(self, node: Node, claims: list[Claim | None]) -> bool:
        """Whether a node takes the others for what they are, and none for away."""
        with suppress(redis.RedisError):
            lines = bytes(node.command("CLUSTER", "NODES")).decode().splitlines()
            flags = [line.split()[2].split(",") for line in lines]
            masters = sum("master" in each for each in flags)
            return masters == sum(each is not None for each in claims) and not any(
                {"fail", "fail?", "handshake"} & set(each) for each in flags
            )
        return False

    @staticmethod
    def _claim(node: Node) -> Claim | None:
        with suppress(redis.RedisError):
            for line in bytes(node.command("CLUSTER", "NODES")).decode().splitlines():
                words = line.split()
                flags = words[2].split(",")
                if "myself" not in flags or "master" not in flags:
                    continue
                spans = [each.partition("-") for each in words[8:] if not each.startswith("[")]
                slots = tuple((int(first), int(last or first)) for first, _, last in spans)
                return Claim(int(words[6]), slots, sum(each.startswith("[") for each in words[8:]))
        return None


class _Cluster(EmbeddedCluster):
    def __init__(self, home: ClusterHome) -> None:
        super().__init__(3, 1, data_dir=home.directory)
        self._home = home

    def _start_server(self, undo: ExitStack, index: int) -> EmbeddedRedis:
        return self._home.add(undo, self._home.directory / f"node-{index}", self._config, announced_by="cluster")


HOMES: Final[Mapping[On, type[Home]]] = {"redis": OneRedis, "sentinel": SentinelHome, "cluster": ClusterHome}


def _follows(role: Any, port: int) -> bool:
    return role is not None and role[0] == b"slave" and int(role[2]) == port and role[3] == b"connected"
