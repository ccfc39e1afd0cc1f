"""Whoever acts in a world: each runs the real code in a greenlet of its own, and hands over before each effect."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
from greenlet import GreenletExit, greenlet  # type: ignore[import-untyped] # it has no types

from producers.nodes.trip import NodeAwayError
from worker.admin.eraser import NotErasable
from worker.admin.parked import NotMoved
from worker.core.timing import FLUSH_BUDGET_SECONDS, TICKER_STANDBY_SECONDS
from worker.process.ticker import Ticker
from worker.store.dead_letters import DeadLetters, Wanted
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.proof.history import Places
    from tests.simulation.endpoint_model import Request
    from tests.simulation.fleet import Fleet, Process
    from worker.admin.eraser import Eraser
    from worker.admin.parked import ParkedPairs
    from worker.delivery.flush import Flusher

NORMAL: Final = 0
REQUEST_LOST: Final = 1
REPLY_LOST: Final = 2
"""What a round trip comes to."""

_LONG_MS: Final = 10**12

PACE_SECONDS: Final = 0.15
"""Shortest time between two looks of a ticker, or of a worker that waits for a place at the gate: longer than the real
ones, so that most steps are the workers' at work."""


class Actor:
    """Something that acts step by step.

    Attributes:
        name: for stories.
        ticks: whether it is a ticker, which is never done.
        ready_us: when it goes on at the earliest (monotonic).
        waits: whether only a hint wakes it.
        blocked: whether it sleeps in a blocking read, which an entry ends.
        request: the request that it has under way, or settles.
        read_ms: when it read logs last.
        read_from: of each of these partitions the last entries that had been settled.
        bulk_from: of each partition the last entry of its bulk lane that is settled, as far as it knows.
        placed_us: when the gate gave it a place in the pace (monotonic), None if it did not.
        leases: of each partition it took, when its lease ends if nobody renews it (monotonic).
        looked: the gate's state when it looked last.
        looked_us: when that was (monotonic).
        probes: whether the gate let it through as a probe.
        suppressed: who was suppressed when the gate let it through.
    """

    def __init__(self, name: str, process: Process, run: Callable[[Actor], None]) -> None:
        self.name = name
        self.ticks = name.endswith(".ticker")
        self.process = process
        self.ready_us = 0
        self.waits = False
        self.blocked = False
        self.request: Request | None = None
        self.read_ms = 0
        self.read_from: dict[int, Places] = {}
        self.bulk_from: dict[int, str] = {}
        self.placed_us: int | None = None
        self.leases: dict[int, int] = {}
        self.looked = b"ok"
        self.looked_us = 0
        self.probes = False
        self.suppressed: frozenset[str] = frozenset()
        self._greenlet = greenlet(lambda _: run(self))

    @property
    def ended(self) -> bool:
        """Whether there is nothing left of it."""
        return bool(self._greenlet.dead)

    def go_on(self, fate: int) -> None:
        """Lets it do its next step; the fate is its round trip's."""
        self._greenlet.switch(fate)

    def die(self) -> None:
        """Ends it where it stands: what it was about to do never happens."""
        if self._greenlet:  # one that never ran has nothing to end
            self._greenlet.throw(GreenletExit)


def working(fleet: Fleet, flusher: Flusher) -> Callable[[Actor], None]:
    """A thread of the pool: it flushes whenever it takes a hint."""

    def run(actor: Actor) -> None:
        while True:
            actor.waits = True
            fleet.world.hand_over()
            actor.waits = False
            if not fleet.take_hint():
                continue
            try:
                flusher.run(FLUSH_BUDGET_SECONDS)
            except redis.RedisError as error:
                fleet.world.tell("gives up: {}", type(error).__name__)
            actor.request = None

    return run


class SimulatedTicker(Ticker):
    """The ticker, whose thread waits by the world's clock."""

    def tick(self) -> float:
        """One turn of `run`; how long to wait before the next, in seconds."""
        for check in self._watches:
            with suppress(NodeAwayError):
                check()
        return self._tick() if self.take_lead() else TICKER_STANDBY_SECONDS


def ticking(fleet: Fleet, ticker: SimulatedTicker) -> Callable[[Actor], None]:
    """The ticker's thread."""

    def run(actor: Actor) -> None:
        while True:
            try:
                wait = max(ticker.tick(), fleet.world.look_seconds)
            except redis.RedisError:
                wait = 1.0
            actor.request = None
            actor.ready_us = fleet.world.mono_us + int(wait * 1_000_000)
            fleet.world.hand_over()

    return run


def redriving(fleet: Fleet, client: Any) -> Callable[[Actor], None]:
    """Somebody who puts all dead letters back into the log."""

    def run(_actor: Actor) -> None:
        letters = DeadLetters(Namespace(client, fleet.keys, fleet.partitions))
        try:
            letters.redrive(list(letters.find(Wanted())))
        except redis.RedisError as error:
            fleet.world.tell("gives up: {}", type(error).__name__)

    return run


def erasing(fleet: Fleet, eraser: Eraser, patience_seconds: float) -> Callable[[Actor], None]:
    """Somebody who erases a user."""

    def run(_actor: Actor) -> None:
        try:
            erased = eraser.erase(_LONG_MS, patience_seconds, 2 * fleet.settings.lease_seconds)
        except (redis.RedisError, NotErasable) as error:
            fleet.world.tell("gives up: {}", type(error).__name__)
            return
        fleet.world.tell("erased: {}", erased)
        fleet.erased = fleet.erased or erased.left.nothing

    return run


def retrying(fleet: Fleet, pairs: ParkedPairs) -> Callable[[Actor], None]:
    """Somebody who lets all parked pairs be tried now."""

    def run(_actor: Actor) -> None:
        try:
            pairs.retry(list(pairs.find(Wanted())))
        except (redis.RedisError, NotMoved) as error:
            fleet.world.tell("gives up: {}", type(error).__name__)

    return run
