"""What strikes the servers behind sentinels, and the nodes of a cluster."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.crc import key_slot

from tests.soak.homes import ClusterHome, SentinelHome
from tests.soak.lineage import Moved
from tests.soak.system import CONFIG, GATE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from tests.soak.homes import Node
    from tests.soak.system import System

HEAL_SECONDS: Final = 30.0
"""Longest that Redis may take to be set right again."""

LOST: Final = (b"records_confirmed", b"EVALSHA", b"XRANGE", b"XADD", b"HMGET")
"""What requests hold whose replies are lost: a settle, any script, a read, an append, a look at what is remembered."""

LOST_TIMES: Final = 3
"""How many replies are lost: more than one, as a settle whose reply was lost asks again."""

MOVES: Final = 3
"""How many slots move at once."""

_KEYS_AT_ONCE: Final = 100
_MIGRATE_MS: Final = 5_000


class NodeFaults:
    """Lets them strike.

    Args:
        system: what they strike.
    """

    def __init__(self, system: System) -> None:
        self._system = system

    def strike(self, name: str, draw: random.Random) -> Callable[[], None]:
        """Lets it begin; what comes back ends it."""
        home = self._system.home
        if "sentinel" in name:
            assert isinstance(home, SentinelHome)
            return self._strike_sentinels(home, name, draw)
        if "slot" in name:
            assert isinstance(home, ClusterHome)
            return self._move(home, name, draw)
        if name.startswith("all "):
            return self._strike_all(home.nodes, name)
        master = self._victim(name, draw)
        return self._strike(master, name, draw)

    def _victim(self, name: str, draw: random.Random) -> int:
        """Which node that leads is struck."""
        keys = self._system.keys
        if name.startswith("gate's"):
            keys = {GATE: keys[GATE]}
        elif name.startswith("configuration's"):
            keys = {CONFIG: keys[CONFIG]}
        return draw.choice(sorted(set(self._serving(keys).values())))

    def _serving(self, keys: dict[int, str]) -> dict[int, int]:
        found: dict[int, int] = {}

        def look() -> None:
            nonlocal found
            found = self._system.home.serving(keys)
            if len(found) < len(keys):
                raise redis.ConnectionError("somebody must serve it")

        insist(look)
        return found

    def _followers(self, master: int) -> list[int]:
        """The replicas of a node."""
        nodes = self._system.home.nodes
        port = nodes[master].announced.port
        roles = {i: each.quick() for i, each in enumerate(nodes) if i != master}
        return [i for i, role in roles.items() if role is not None and role[0] == b"slave" and int(role[2]) == port]

    def _strike(self, master: int, name: str, draw: random.Random) -> Callable[[], None]:  # noqa: PLR0911 - one for each kind
        nodes = self._system.home.nodes
        node = nodes[master]
        match name.split(" "):
            case [*_, "killed"] | ["master", "killed", *_]:
                return self._strike_dead(master, name, draw)
            case ["replica", "hung"]:
                return _hang([nodes[i] for i in self._followers(master)[:1]])
            case [*_, "hung"] | [*_, "hung", "shortly"]:
                return _hang([node])
            case [_, "dies", *_]:
                return self._fall_behind(node, [nodes[i] for i in self._followers(master)])
            case [_, "full"]:
                return _configured(node, "maxmemory", "1mb", "0")
            case [_, "without", "replicas"]:
                return _configured(node, "min-replicas-to-write", "5", "0")
            case ["planned", _] | ["failover", *_]:
                self._fail_over(
                    master, *{"force": ["FORCE"], "takeover": ["TAKEOVER"]}.get(name.rsplit(" ", maxsplit=1)[-1], [])
                )
                return _nothing
        return _strike_connections(node, name, draw)

    def _strike_dead(self, master: int, name: str, draw: random.Random) -> Callable[[], None]:
        nodes = self._system.home.nodes
        killed = [nodes[master]]
        if name.startswith("replica"):
            followers = [nodes[i] for i in self._followers(master)]
            return self._kill(draw.sample(followers, min(1, len(followers))), follows=nodes[master])
        if name.startswith("two"):
            others = sorted(set(self._serving(self._system.keys).values()) - {master})
            killed += [nodes[i] for i in others[:1]]
        restart = self._kill(killed)
        if name.endswith("at once"):
            restart()
            return _nothing
        return restart

    def _strike_all(self, nodes: Sequence[Node], name: str) -> Callable[[], None]:
        match name:
            case "all nodes killed":
                return self._kill(nodes)
            case "all nodes hung":
                return _hang(nodes)
        for each in nodes:
            each.proxy.reset()
        return _nothing

    def _kill(self, nodes: Sequence[Node], follows: Node | None = None) -> Callable[[], None]:
        """Kills servers; they come back as what they were, a replica as its configuration would say."""
        for each in nodes:
            each.signal(signal.SIGKILL)

        def restart() -> None:
            for each in nodes:
                each.server.restart()
                if follows is not None and isinstance(self._system.home, SentinelHome):
                    insist(partial(each.command, "REPLICAOF", *_of(self._named() or follows)))

        return restart

    def _named(self) -> Node | None:
        home = self._system.home
        assert isinstance(home, SentinelHome)
        master = home.master()
        return None if master is None else home.nodes[master]

    def _fall_behind(self, master: Node, followers: Sequence[Node]) -> Callable[[], None]:
        """Its replicas get nothing more; when one of them takes over, all that it accepted meanwhile is lost."""
        master.proxy.hold_replication()

        def die() -> None:
            restart = self._kill([master])
            master.proxy.drop_replication()
            _until(lambda: any((role := each.quick()) is not None and role[0] == b"master" for each in followers))
            restart()

        return die

    def _fail_over(self, master: int, *how: str) -> None:
        home = self._system.home
        if isinstance(home, SentinelHome):
            home.setup.fail_over()
            return
        followers = self._followers(master)
        if followers:
            with suppress(redis.ResponseError):  # it may have just taken over by itself
                insist(lambda: home.nodes[followers[0]].command("CLUSTER", "FAILOVER", *how))

    # Sentinels

    def _strike_sentinels(self, home: SentinelHome, name: str, draw: random.Random) -> Callable[[], None]:
        setup = home.setup
        many = 3 if name.startswith("all") else 2 if "two" in name or "quorum" in name else 1
        struck = draw.sample(range(len(setup.sentinels)), many)
        if name.endswith("hung"):
            pids = [setup.sentinel_pids[i] for i in struck]
            for pid in pids:
                setup.hang(pid)
            return lambda: _each(setup.wake, pids)
        for i in struck:
            setup.kill_sentinel(i)
        then = self._kill([home.nodes[self._victim(name, draw)]]) if "quorum" in name else _nothing

        def restart() -> None:
            then()
            _each(setup.restart_sentinel, struck)

        return restart

    # Slots

    def _move(self, home: ClusterHome, name: str, draw: random.Random) -> Callable[[], None]:
        keys = self._system.keys
        serving = self._serving(keys)
        masters = sorted(set(serving.values()))
        if name.startswith(("gate's", "configuration's")):
            moved = [GATE if name.startswith("gate's") else CONFIG]
        else:
            moved = draw.sample(sorted(each for each in keys if each >= 0), MOVES if name == "slots moved" else 1)
        opened = []
        for each in moved:
            to = draw.choice([i for i in masters if i != serving[each]])
            opened.append(_Opened(home, each, keys[each], serving[each], to))
        for one in opened:
            insist(one.open)
            if "left open" not in name:
                one.finish()
            elif "half" in name:
                insist(partial(one.move, half=True))
        return (lambda: _each(_Opened.finish, opened)) if "left open" in name else _nothing


class _Opened:
    """A slot on its way to another node.

    Args:
        home: the cluster.
        name: of what is in it.
        key: one of its keys.
        source, to: from which node to which.
    """

    def __init__(self, home: ClusterHome, name: int, key: str, source: int, to: int) -> None:
        self._home = home
        self._name = name
        self._slot = key_slot(key.encode())
        self._source, self._to = home.nodes[source], home.nodes[to]
        self._target = to
        self._begun_ms = 0

    def open(self) -> None:
        """Says on both nodes that it is on its way."""
        self._begun_ms = self._begun_ms or int(time.time() * 1000)
        ids = [bytes(each.command("CLUSTER", "MYID")).decode() for each in (self._source, self._to)]
        self._to.command("CLUSTER", "SETSLOT", self._slot, "IMPORTING", ids[0])
        self._source.command("CLUSTER", "SETSLOT", self._slot, "MIGRATING", ids[1])

    def move(self, *, half: bool = False) -> None:
        """Moves its keys, the logs first: so all changes before went to the one node, and all since to the other."""
        at = self._to.address
        while True:
            keys: list[bytes] = list(self._source.command("CLUSTER", "GETKEYSINSLOT", self._slot, _KEYS_AT_ONCE))
            if not keys:
                return
            keys.sort(key=lambda each: not each.endswith((b":events", b":bulk")))
            for each in keys[: len(keys) // 2] if half else keys:
                self._source.command("MIGRATE", at.host, at.port, each, 0, _MIGRATE_MS)
            if half:
                return

    def finish(self) -> None:
        """Moves the rest, and says who has it now."""
        insist(self.move)
        insist(self._close)
        now_ms = int(time.time() * 1000)
        self._home.moves.append(Moved(self._name, self._target, self._begun_ms, now_ms))

    def _close(self) -> None:
        node_id = bytes(self._to.command("CLUSTER", "MYID")).decode()
        # The target first, so that the slot is never nobody's.
        self._to.command("CLUSTER", "SETSLOT", self._slot, "NODE", node_id)
        for each in self._home.nodes:
            if each is not self._to:
                with suppress(redis.RedisError):  # refused by a replica
                    each.command("CLUSTER", "SETSLOT", self._slot, "NODE", node_id)


def insist(action: Callable[[], object]) -> None:
    """Does it, and again if Redis is away or busy just now: another fault may be striking it."""
    ends = time.monotonic() + HEAL_SECONDS
    while True:
        try:
            action()
        except (redis.ConnectionError, redis.TimeoutError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
        else:
            return


def _until(condition: Callable[[], bool]) -> None:
    """Waits for it, and for no longer than anything may take to heal."""
    ends = time.monotonic() + HEAL_SECONDS
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)


def _hang(nodes: Sequence[Node]) -> Callable[[], None]:
    for each in nodes:
        each.signal(signal.SIGSTOP)
    return lambda: _each(lambda each: each.signal(signal.SIGCONT), nodes)


def _strike_connections(node: Node, name: str, draw: random.Random) -> Callable[[], None]:
    match name.removeprefix("master").removeprefix("'s"):
        case " cut off":
            node.proxy.refuse()
            return node.proxy.listen
        case " loses replies":
            node.proxy.lose_reply_to(draw.choice(LOST), times=draw.randint(1, LOST_TIMES))
            return node.proxy.keep_replies
        case " connections held":
            node.proxy.pause()
            return node.proxy.resume
    node.proxy.reset()
    return _nothing


def _configured(node: Node, directive: str, value: str, before: str) -> Callable[[], None]:
    insist(lambda: node.command("CONFIG", "SET", directive, value))
    return lambda: insist(lambda: node.command("CONFIG", "SET", directive, before))


def _of(node: Node) -> tuple[str, str]:
    return node.announced.host, str(node.announced.port)


def _each(action: Callable[[Any], object], those: Iterable[Any]) -> None:
    for each in those:
        action(each)


def _nothing() -> None:
    """There is nothing to heal."""
