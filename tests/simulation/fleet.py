"""The worker processes of a world: the real code, put together as `worker.process.runtime` does."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from producers.contract.keys import Keys
from tests.simulation.actors import Actor, SimulatedTicker, erasing, redriving, retrying, ticking, working
from worker.admin.eraser import Eraser
from worker.admin.parked import ParkedPairs
from worker.config.settings import WorkerSettings
from worker.core.flow import FlowLimits
from worker.delivery.claims import TURN_SECONDS, Claims
from worker.delivery.flush import Flusher
from worker.delivery.request import RequestSender
from worker.delivery.settle import Settler
from worker.store.client import node_of
from worker.store.cluster_backlog import scanner_of
from worker.store.gate import Gate
from worker.store.inbox import Inbox
from worker.store.loss_detector import GROUPS, LossDetector
from worker.store.namespace import Namespace
from worker.store.partitions import Partitions
from worker.store.suppressions import Suppressions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.world import World
    from worker.core.gate import Place
    from worker.core.pair import Readd

KEYS = Keys("s")
PARTITIONS = 2


@cache
def settings_of(  # noqa: PLR0913, PLR0917 - what a world is configured with
    readd: Readd,
    batch_size: int,
    ledger_seconds: float,
    linger_seconds: float,
    rate: float | Literal["auto"] = "auto",
    in_flight: int | Literal["auto"] = "auto",
) -> WorkerSettings:
    """Short waits, small batches: much happens in few steps."""
    return WorkerSettings(
        namespace=KEYS.namespace,
        partitions=PARTITIONS,
        readd=readd,
        batch_size=batch_size,
        ledger_seconds=ledger_seconds,
        linger_seconds=linger_seconds,
        request_timeout_seconds=1.0,
        lease_seconds=2.5,
        late_seconds=2.0,
        backoff_base_seconds=0.1,
        backoff_max_seconds=0.8,
        retry_after_max_seconds=1.0,
        rate=rate,
        in_flight=in_flight,
    )


class Silence:
    """The worker's log, which nobody reads here."""

    def info(self, event: str, **fields: Any) -> None: ...
    def warning(self, event: str, **fields: Any) -> None: ...
    def error(self, event: str, **fields: Any) -> None: ...


class ScanTurn:
    """Lets one thread of a process scan at a time; a lock would hold up all actors, which share the one real thread."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Waits until the thread before has scanned, by the world's clock."""
        latest = self._world.monotonic() + TURN_SECONDS
        while self._taken and self._world.monotonic() < latest:
            self._world.look_later(0.001)
        mine, self._taken = not self._taken, True
        try:
            yield
        finally:
            if mine:
                self._taken = False


class WatchedGate(Gate):
    """The gate, which each round asks first for a place."""

    def __init__(self, world: World, namespace: Namespace, limits: FlowLimits, token: Callable[[], str]) -> None:
        super().__init__(namespace, limits, token, world.monotonic)
        self._world = world

    def ask(self, life_seconds: float) -> Place:
        """Takes a place for the request of a round that begins."""
        self._world.begin_round()
        place = super().ask(life_seconds)
        self._world.see_gate(place.gate.state)
        return place


class Watch(LossDetector):
    """A process' memory of Redis, whose alarms and checks the world takes note of."""

    def __init__(self, world: World, namespace: Namespace, name: str) -> None:
        super().__init__(namespace, world.monotonic, self, lambda: None)
        self._world = world
        self._name = name
        self._group = crc32(name.encode()) % GROUPS  # the same in each run of a seed

    def check(self) -> None:
        """Checks if it is time to."""
        due, seen = self._monotonic() >= self._next, self._beats()
        self._world.losses_noticed.begin(self._name)
        if not self._knows_the_nodes():
            self._world.losses_noticed.trouble(self._name)
        super().check()
        if due:
            # A count rises with each answer. Its client leaves a node that hung alone, and says so without asking it.
            now = self._beats()
            if any(now.get(key, 0) <= seen.get(key, 0) for key in self._counted()):
                self._world.losses_noticed.trouble(self._name)
            self._world.losses_noticed.checked(self._name)

    def _beats(self) -> dict[str, int]:
        return {key: each.beat for key, each in self._seen.items()}

    def _knows_the_nodes(self) -> bool:
        """Whether it knows where each partition is: else it does not reach every node that has one."""
        cluster = self._world.cluster
        assert cluster is not None
        return all(node_of(self._client, p) == cluster.node_of(KEYS.lease(p)).address for p in range(PARTITIONS))

    def info(self, event: str, **fields: Any) -> None: ...
    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **_fields: Any) -> None:
        """An alarm."""
        self._world.tell("raises an alarm: {}", event)
        self._world.losses_noticed.alarm(self._name)

    def _agree(self) -> None:
        """How many partitions there are is recorded nowhere here."""


class Process:
    """One worker process: threads that flush, and a ticker.

    Attributes:
        actors: its threads; all die with it.
    """

    def __init__(self, fleet: Fleet, name: str, threads: int) -> None:
        world, settings = fleet.world, fleet.settings
        client = world.client().as_redis
        namespace = Namespace(client, KEYS, PARTITIONS)
        gate = WatchedGate(world, namespace, FlowLimits.of(settings.rate, settings.in_flight), fleet.token)
        partitions = Partitions.of(namespace, settings, world.monotonic, world.wait)
        suppressed = Suppressions(namespace).under
        requests = RequestSender(
            settings,
            gate=gate,
            endpoint=world,
            server_key=lambda _permit: "key",
            monotonic=world.monotonic,
            draw=world.chance.fraction,
            parks=partitions.parks,
            wait=world.wait,
        )
        scanner = scanner_of(namespace, world.monotonic, world.look_later)
        flusher = Flusher(
            settings,
            partitions=partitions,
            claims=Claims(
                settings,
                partitions=partitions,
                scanner=scanner,
                scan_turn=ScanTurn(world).taken,
                gate=gate,
                monotonic=world.monotonic,
                draw=world.chance.fraction,
                suppressed=suppressed,
                log=Silence(),
            ),
            requests=requests,
            settler=Settler(settings, partitions, requests, world.monotonic, Silence()),
            suppressed=suppressed,
            monotonic=world.monotonic,
            stopping=lambda: False,
            wait=world.look_later,
        )
        ticker = SimulatedTicker(
            settings,
            namespace=namespace,
            scanner=scanner_of(namespace, world.monotonic, world.look_later),
            gate=gate,
            broker=fleet,
            inbox=Inbox(namespace),
            flush=flusher.run,
            token=name,
            monotonic=world.monotonic,
            log=Silence(),
            watches=[] if world.cluster is None else [Watch(world, namespace, name).check],
        )
        self.name = name
        self.actors = [Actor(f"{name}.{i}", self, working(fleet, flusher)) for i in range(1, threads + 1)]
        self.actors.append(Actor(f"{name}.ticker", self, ticking(fleet, ticker)))


class Fleet:
    """All processes, and the queue of hints between them (a `Broker`).

    Attributes:
        broker_away: whether the queue takes and gives nothing.
        erased: whether the user who is erased was found nowhere any more.
    """

    def __init__(self, world: World, settings: WorkerSettings) -> None:
        self.world = world
        self.settings = settings
        self.keys = KEYS
        self.partitions = PARTITIONS
        self.broker_away = False
        self.erased = False
        self.waiting_hints = 0
        self._born = 0
        self._tokens = 0
        self.processes: list[Process] = []

    def start(self, threads: int) -> None:
        """One more process."""
        self._born += 1
        process = Process(self, f"w{self._born}", threads)
        self.processes.append(process)
        self.world.actors += process.actors

    def kill(self, process: Process) -> None:
        """Ends a process as SIGKILL does; a new one takes its place."""
        self.world.tell("killed: {}", process.name)
        self.processes.remove(process)
        for actor in process.actors:
            actor.die()
        self.world.forget_the_dead()
        self.start(len(process.actors) - 1)

    def redrive(self) -> None:
        """Somebody redrives all dead letters, in a process of his own."""
        client = self.world.client().as_redis
        self.world.actors.append(Actor("redrive", self.processes[0], redriving(self, client)))

    def erase(self, user: str, patience_seconds: float) -> None:
        """Somebody erases a user, in a process of his own."""
        world = self.world
        world.chronicle.erasing = user
        eraser = Eraser(self._partitions(), user, monotonic=world.monotonic, sleep=world.wait)
        world.actors.append(Actor("erase", self.processes[0], erasing(self, eraser, patience_seconds)))

    def cut_erasures_off(self) -> None:
        """Whoever erases is killed."""
        for actor in [each for each in self.world.actors if each.name == "erase"]:
            self.world.tell("killed: {}", actor.name)
            actor.die()
        self.world.forget_the_dead()

    def _partitions(self) -> Partitions:
        world = self.world
        namespace = Namespace(world.client().as_redis, KEYS, PARTITIONS)
        return Partitions.of(namespace, self.settings, world.monotonic, world.wait)

    def retry_parked(self) -> None:
        """Somebody lets all parked pairs be tried now, in a process of his own."""
        world, settings = self.world, self.settings
        pairs = ParkedPairs(self._partitions(), 2 * settings.lease_seconds, world.monotonic, world.wait)
        world.actors.append(Actor("parked retry", self.processes[0], retrying(self, pairs)))

    def token(self) -> str:
        """Names a request under way."""
        self._tokens += 1
        return f"{self._tokens:08d}"

    # The broker

    errors = (OSError,)

    def hints(self) -> int:
        """How many lie in the queue."""
        if self.broker_away:
            raise OSError
        return self.waiting_hints

    def leave(self, hints: int) -> None:
        """Leaves so many more."""
        self.waiting_hints += hints

    def take_hint(self) -> bool:
        """Takes one, if there is one."""
        if self.broker_away or not self.waiting_hints:
            return False
        self.waiting_hints -= 1
        return True
