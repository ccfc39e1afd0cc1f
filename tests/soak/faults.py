"""What each kind of fault does to the real thing, and how it is healed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tests.soak.nemesis import PREVIOUS
from tests.soak.node_faults import LOST, LOST_TIMES, NodeFaults, insist
from tests.soak.previous import PreviousProducer
from tests.soak.traffic import POISONABLE
from worker.local.data_dir import free_port
from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.soak.nemesis import Fault
    from tests.soak.system import System
    from tests.soak.traffic import Traffic
    from tests.soak.workers import Fleet, Worker

LOST_BY_BROKER: Final = (b"BRPOP", b"LPUSH", b"ZADD", b"LLEN", b"ZREM")

PRODUCERS: Final = 2
"""How many producers of the previous release say things at once."""

BARRED_SECONDS: Final = 20.0
"""Longest that a worker may take to find out that it is too old."""

ORDERS: Final[Mapping[str, Mapping[str, object]]] = {
    "endpoint drops before": {"kind": "drop_before"},
    "endpoint drops after": {"kind": "drop_after"},
    "endpoint resets after": {"kind": "reset", "apply": True},
    "endpoint hangs": {"kind": "hang"},
    "endpoint hangs after": {"kind": "hang", "apply": True},
    "endpoint acts late": {"kind": "late", "seconds": 4.0},
    "endpoint slow": {"kind": "delay", "seconds": 3.0},
    "endpoint drips": {"kind": "drip_body", "seconds": 0.5},
    "endpoint 503": {"kind": "status", "status": 503},
    "endpoint 500 after": {"kind": "status", "status": 500, "garbage": True, "apply": True},
    "endpoint 502 after": {"kind": "status", "status": 502, "apply": True},
    "endpoint 429": {"kind": "status", "status": 429, "retry_after": "1"},
    "endpoint 50001": {"kind": "envelope", "status": 500, "code": "50001"},
    "endpoint 404": {"kind": "status", "status": 404},
    "endpoint garbage": {"kind": "garbage"},
    "endpoint garbage after": {"kind": "garbage", "apply": True},
    "endpoint absurdly long answer": {"kind": "large_body", "bytes": 1 << 22},
    "endpoint redirects": {"kind": "redirect", "location": "https://elsewhere.example/"},
}
"""Faults that the stand-in takes as orders, until they are removed."""

FLAKY: Final[tuple[Mapping[str, object], ...]] = (
    {"kind": "drop_after", "probability": 0.15},
    {"kind": "late", "seconds": 3.0, "probability": 0.1},
    {"kind": "status", "status": 503, "probability": 0.2},
    {"kind": "reset", "probability": 0.1},
    {"kind": "delay", "seconds": 2.5, "probability": 0.1},
)


class Faults:
    """Lets faults strike a system.

    Args:
        system: the system.
        traffic: who says things.
        import_size: changes of one bulk import.

    Attributes:
        system: the same.
    """

    def __init__(self, system: System, traffic: Traffic, import_size: int) -> None:
        self.system = system
        self._traffic = traffic
        self._import_size = import_size
        self._secrets = 0
        self._nodes = NodeFaults(system)

    def strike(self, fault: Fault) -> Callable[[], None]:
        """Lets it begin; what comes back ends it."""
        draw = random.Random(fault.seed)
        name, sort, what = fault.kind.name, fault.kind.sort, fault.kind.name.partition(" ")[2]
        if name in PREVIOUS:
            return self._strike_with_previous(name, draw)
        if what in {"paused", "reset", "refused", "loses replies"} and sort in {"log", "broker", "endpoint"}:
            return self._strike_connections(sort, what, draw)
        match sort:
            case "workers":
                return self._strike_workers(name, draw)
            case "redis":
                return self._strike_redis(name)
            case "nodes":
                return self._nodes.strike(name, draw)
        acts = {"import": self._do_at_once, "operator": self._do_at_once, "erasure": self._erase}
        return acts.get(sort, self._strike_endpoint)(name, draw)

    def _do_at_once(self, name: str, draw: random.Random) -> Callable[[], None]:
        match name:
            case "bulk import":
                self._traffic.bring_in(self._import_size, draw)
            case "all parked pairs retried":
                insist(self.system.retry_parked)
            case _:
                insist(self.system.redrive)
        return _nothing

    def _erase(self, name: str, draw: random.Random) -> Callable[[], None]:
        erasures, fleet = self.system.erasures, self.system.fleet
        of = {"an owner erased": "owner", "a contact erased": "contact"}
        erasure = erasures.begin(of.get(name, "either"))
        match name:
            case "somebody erased by two at once" if erasure is not None:
                erasures.call(erasure)
            case "an erasure killed and called again" if erasure is not None:
                return lambda: erasures.kill(erasure)
            case "somebody erased while workers are killed":
                fleet.kill(draw.choice(fleet.of_pool()), name)
                return lambda: fleet.kill(draw.choice(fleet.of_pool()), name)
        return _nothing

    # Workers

    def _strike_workers(self, name: str, draw: random.Random) -> Callable[[], None]:
        fleet = self.system.fleet
        one = draw.choice(fleet.of_pool("prefork") if name.startswith("prefork") else fleet.of_pool())
        match name:
            case "worker killed":
                fleet.kill(one, name)
            case "all workers killed":
                for each in fleet.of_pool():
                    fleet.kill(each, name)
            case "prefork child killed":
                _signal_child(one, draw, signal.SIGKILL)
            case "prefork child paused":
                pid = _signal_child(one, draw, signal.SIGSTOP)
                return lambda: _signal(pid, signal.SIGCONT)
            case "worker paused":
                return _pause(fleet, [one])
            case "all workers but one paused":
                return _pause(fleet, draw.sample(fleet.of_pool(), len(fleet.of_pool()) - 1))
            case "rolling restart":
                for each in fleet.of_pool():
                    fleet.replace(each)
        return _nothing

    # The previous release

    def _strike_with_previous(self, name: str, draw: random.Random) -> Callable[[], None]:
        if name.startswith("producers"):
            return self._start_previous_producers(draw)
        workers = self.system.fleet.of_pool()
        return self._put_back(workers if name.startswith("all") else [draw.choice(workers)])

    def _put_back(self, workers: Sequence[Worker]) -> Callable[[], None]:
        """Replaces workers one after another by those of the previous release; the end is an upgrade."""
        fleet, previous = self.system.fleet, self.system.previous
        barred = fleet.exits.barred
        for each in workers:
            fleet.replace(each, previous)

        def upgrade() -> None:
            if fleet.upgraded and not _within(BARRED_SECONDS, lambda: fleet.exits.barred > barred):
                fleet.exits.wrong.append("a worker of the previous release works on a log that it does not know")
            for each in workers:
                fleet.replace(each)

        return upgrade

    def _start_previous_producers(self, draw: random.Random) -> Callable[[], None]:
        fleet, previous = self.system.fleet, self.system.previous
        assert previous is not None
        barred = fleet.upgraded
        producers = [
            PreviousProducer(previous, self.system.settings, draw.randrange(1 << 30)) for _ in range(PRODUCERS)
        ]

        def end() -> None:
            for each in producers:
                each.end(self._traffic.acknowledged, barred=barred)

        return end

    # Redis

    def _strike_redis(self, name: str) -> Callable[[], None]:
        server, client = self.system.redis, self.system.client
        match name:
            case "redis killed":
                os.kill(server.pid, signal.SIGKILL)
                return server.restart
            case "redis paused":
                os.kill(server.pid, signal.SIGSTOP)
                return lambda: os.kill(server.pid, signal.SIGCONT)
            case "redis read-only":
                insist(lambda: command(client, "REPLICAOF", "127.0.0.1", free_port()))
                return lambda: insist(lambda: command(client, "REPLICAOF", "NO", "ONE"))
            case "redis without replicas":
                return self._configure("min-replicas-to-write", 1, 0)
            case "redis full":
                return self._configure("maxmemory", "1mb", 0)
            case "scripts flushed":
                for each in self.system.servers():
                    insist(each.script_flush)
            case "broker flushed":
                insist(self.system.home.flush_broker)
        return _nothing

    def _configure(self, directive: str, value: str | int, before: str | int) -> Callable[[], None]:
        client = self.system.client
        insist(lambda: client.config_set(directive, value))
        return lambda: insist(lambda: client.config_set(directive, before))

    # Connections

    def _strike_connections(self, which: str, what: str, draw: random.Random) -> Callable[[], None]:
        home = self.system.home
        proxy = {"log": home.log, "broker": home.broker, "endpoint": self.system.endpoint}[which]
        assert proxy is not None
        match what:
            case "paused":
                proxy.pause()
                return proxy.resume
            case "refused":
                proxy.refuse()
                return proxy.listen
            case "loses replies":
                needles = LOST if which == "log" else LOST_BY_BROKER
                proxy.lose_reply_to(draw.choice(needles), times=draw.randint(1, LOST_TIMES))
                return proxy.keep_replies
        proxy.reset()
        return _nothing

    # The endpoint

    def _strike_endpoint(self, name: str, draw: random.Random) -> Callable[[], None]:
        match name.removeprefix("endpoint "):
            case "flaky":
                return self._order(*({**order, "seed": draw.randrange(1 << 30)} for order in FLAKY))
            case "takes few":
                refusal = draw.choice(["413", "40002"])
                return self._set({"largest_batch": draw.randrange(20, 100), "largest_batch_refusal": refusal})
            case "limits rate" | "changes its limit":
                return self._limit(draw, changes=name.endswith("changes its limit"))
            case "refuses records" | "refuses with unknown codes":
                poisoned = draw.sample(POISONABLE, 3)
                code = "40002" if name.endswith("records") else draw.choice(["40301", "40401", "99999"])
                return self._set({"poisoned": poisoned, "poison_code": code})
            case "credentials changed" | "credentials wrong":
                return self._change_credentials(followed=name.endswith("changed"))
        return self._order({**ORDERS[name]})

    def _order(self, *orders: Mapping[str, object]) -> Callable[[], None]:
        stand_in = self.system.stand_in
        numbers = [order["id"] for order in stand_in.faults(*orders)]

        def heal() -> None:
            for number in numbers:
                stand_in.remove_faults(number)

        return heal

    def _set(self, changes: dict[str, Any]) -> Callable[[], None]:
        stand_in = self.system.stand_in
        before = {name: stand_in.settings()[name] for name in changes}
        stand_in.settings(**changes)
        return lambda: _ignore(stand_in.settings(**before))

    def _limit(self, draw: random.Random, *, changes: bool) -> Callable[[], None]:
        """The endpoint limits its rate; if it changes, to another one every second, some above the fleet's own."""
        heal = self._set({"rate_limit_per_second": draw.uniform(2.0, 10.0)})
        if not changes:
            return heal
        over = threading.Event()

        def change() -> None:
            while not over.wait(1.0):
                self.system.stand_in.settings(rate_limit_per_second=draw.uniform(2.0, 30.0))

        thread = threading.Thread(target=change, name="limits", daemon=True)
        thread.start()

        def end() -> None:
            over.set()
            thread.join()
            heal()

        return end

    def _change_credentials(self, *, followed: bool) -> Callable[[], None]:
        """The endpoint takes another secret: the workers are given it too in the end, or it is taken back."""
        self._secrets += 1
        secret = f"secret-{self._secrets}"
        system = self.system
        before = system.secret_file.read_text("utf-8")
        system.stand_in.settings(key_secret=secret)
        if followed:
            return lambda: system.write_secret(secret)
        return lambda: _ignore(system.stand_in.settings(key_secret=before))


def _nothing() -> None:
    """There is nothing to heal."""


def _ignore(_: object) -> None:
    """What comes back does not matter."""


def _pause(fleet: Fleet, workers: Sequence[Worker]) -> Callable[[], None]:
    for each in workers:
        fleet.signal(each, signal.SIGSTOP)

    def heal() -> None:
        for each in workers:
            fleet.signal(each, signal.SIGCONT)

    return heal


def _signal_child(worker: Worker, draw: random.Random, number: signal.Signals) -> int:
    children = worker.children()
    pid = draw.choice(children) if children else worker.process.pid
    if children:
        _signal(pid, number)
    return pid


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether something comes to be within so many seconds."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True
