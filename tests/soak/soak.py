"""One soak: traffic and faults for some minutes, then peace until nothing waits, then everything that was seen."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import redis

from tests.soak.faults import Faults
from tests.soak.nemesis import KINDS, OF_NODES, PREVIOUS, plan
from tests.soak.recorder import Recorder
from tests.soak.system import System
from tests.soak.traffic import Traffic
from tests.support.previous import previous_commit, unpack
from worker.store.dead_letters import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from producers.nodes.trip import Replicas
    from tests.soak.erasures import Erasure
    from tests.soak.homes import On
    from tests.soak.lineage import Moved
    from tests.soak.nemesis import Step
    from tests.soak.recorder import Seen
    from tests.soak.traffic import Acknowledged
    from tests.soak.workers import Alarm, Exits
    from worker.admin.status import Status
    from worker.core.pair import Readd

RECOVERY_SECONDS: Final = 120.0
"""Longest that a recovery may take; more is a violation."""

DRAIN_SECONDS: Final = 180.0
"""Longest that it may take at the end until nothing waits, beside what an import takes; more is a violation."""

IMPORTED_A_SECOND: Final = 2_000.0
"""Changes of an import that drain in a second at least: half of what the endpoint's limit allows."""

WHOLE_SECONDS: Final = 60.0
"""Longest that the servers may take after a fault until all of them are there and follow whom they should."""

READY_SECONDS: Final = 60.0
"""Longest until the workers are there."""

UPGRADED_AT: Final = 0.5
"""After what part of the time `contact-sync upgrade` bars the previous release."""

FIRST: Final = "upgrade of all workers"
"""What the report calls the first upgrade, under load and one after another."""

LOOK_SECONDS: Final = 0.05
"""Time between two looks at whether the system has recovered."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a soak is to be.

    Attributes:
        seconds: how long faults strike; the rest takes what it takes.
        seed: decides the faults and what producers say.
        workers: how many worker processes.
        rate: changes a second.
        only: names of the kinds of faults that may strike; all if empty.
        readd: CONTACT_SYNC_READD.
        import_size: changes of one bulk import.
        on: where the log lives.
        wait_replicas: CONTACT_SYNC_WAIT_REPLICAS.
        partitions: CONTACT_SYNC_PARTITIONS; with many of them, what waits lies in many short logs.
    """

    seconds: float
    seed: int = 0
    workers: int = 4
    rate: float = 500.0
    only: tuple[str, ...] = ()
    readd: Readd = "resend"
    import_size: int = 20_000
    on: On = "redis"
    wait_replicas: Replicas = 0
    partitions: int = 16


@dataclass(frozen=True, slots=True)
class Struck:
    """Faults that struck together, and how the system took it.

    Attributes:
        kinds: what happened.
        begun, healed: monotonic seconds.
        recovered_seconds: from healing until all that had been accepted before was confirmed; None if it never was.
    """

    kinds: tuple[str, ...]
    begun: float
    healed: float
    recovered_seconds: float | None


@dataclass(slots=True)
class Ran:
    """All that a soak leaves behind.

    Attributes:
        options: what it was to be.
        settings: what the workers worked with, by name.
        began, ended: monotonic seconds.
        unix_ms: Unix milliseconds less those of the monotonic clock.
        struck: the faults, in order.
        seen: what was seen from outside.
        told: what the producers were told.
        unsent: changes that a producer could not get rid of in the end.
        exits: how workers ended.
        left_letters: the dead letters that are left after a last redrive of all.
        redriven: what became of letters that were to be redriven in the end.
        status: what waits in the end, None if Redis did not say.
        marks: pairs that a request may still act on, in the end.
        contacts: what the endpoint holds in the end.
        counts: the endpoint's own.
        said: how often the workers logged each warning or error.
        drained: whether nothing waited any more in the end.
        previous: the commit of the previous release that began and came back at times; None if its tree is not here.
        beside: spans in which its workers ran (monotonic seconds).
        upgraded: whether it was barred in the end.
        appendfsync: of the servers.
        keys: a key of each place that a server may serve.
        moves: the partitions that moved from server to server.
        unpaced: spans in which the server with the limit of the rate was perhaps away (monotonic seconds).
        alarms: what workers said of losses.
        erasures: the people who were erased.
        mentions: the keys in which one of them still stands in the end.
    """

    options: Options
    settings: dict[str, Any]
    began: float
    unix_ms: float
    exits: Exits
    seen: Seen
    told: Acknowledged
    struck: list[Struck] = field(default_factory=list)
    ended: float = 0.0
    unsent: int = 0
    left_letters: list[str] = field(default_factory=list)
    redriven: Counter[str] = field(default_factory=Counter)
    status: Status | None = None
    marks: int = 0
    contacts: set[tuple[str, str]] = field(default_factory=set)
    counts: dict[str, Any] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)
    drained: bool = False
    previous: str | None = None
    beside: list[tuple[float, float]] = field(default_factory=list)
    upgraded: bool = False
    appendfsync: str = "always"
    keys: dict[int, str] = field(default_factory=dict)
    moves: list[Moved] = field(default_factory=list)
    unpaced: list[tuple[float, float]] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)
    mentions: list[str] = field(default_factory=list)


class Progress(Protocol):
    """Says how far it is."""

    def at(self, fraction: float, what: str) -> None:
        """So much of the time is over, and this is what happens."""


def run(options: Options, directory: Path, progress: Progress) -> Ran:
    """Runs one.

    Args:
        options: what it is to be.
        directory: where data and logs go.
        progress: who is told how far it is.

    Raises:
        SoakFailedError: it could not be carried out, which says nothing of the system.
    """
    only, previous = _kinds(options.only, options.on)
    tree = unpack(previous, directory / "previous") if previous else None
    with System(
        directory,
        options.workers,
        options.readd,
        tree,
        on=options.on,
        wait_replicas=options.wait_replicas,
        partitions=options.partitions,
    ) as system:
        recorder = Recorder(system)
        traffic = Traffic(system.settings, options.partitions, options.seed, options.rate)
        ran = Ran(
            options,
            settings=system.settings.model_dump(include=set(_SHOWN)),
            began=time.monotonic(),
            unix_ms=(time.time() - time.monotonic()) * 1000,
            exits=system.fleet.exits,
            seen=recorder.seen,
            told=traffic.acknowledged,
            previous=previous,
            beside=system.fleet.beside,
            appendfsync=system.home.appendfsync,
            keys=system.keys,
            moves=system.home.moves,
            erasures=system.erasures.every,
        )
        with recorder:
            system.fleet.start()
            try:
                traffic.start()
                _Soak(system, traffic, ran, progress).strike(only)
            finally:
                progress.at(1.0, "peace: producers finish")
                ran.unsent = traffic.stop(DRAIN_SECONDS)
            _Peace(system, ran, progress).conclude()
        ran.said = system.fleet.said()
        ran.alarms = system.fleet.alarms()
        ran.ended = time.monotonic()
    return ran


def _kinds(only: Sequence[str], on: On) -> tuple[list[str], str | None]:
    """The kinds that may strike, and the previous release if any of them needs it."""
    wanted = [kind.name for kind in KINDS if on in kind.on and (not only or kind.name in only)]
    previous = previous_commit() if set(wanted) & set(PREVIOUS) else None
    return (wanted if previous else [name for name in wanted if name not in PREVIOUS]), previous


class SoakFailedError(RuntimeError):
    """The soak itself cannot go on; the message is one line that says why."""


class _Soak:
    """The time in which faults strike."""

    def __init__(self, system: System, traffic: Traffic, ran: Ran, progress: Progress) -> None:
        self._system = system
        self._ran = ran
        self._faults = Faults(system, traffic, ran.options.import_size)
        self._progress = progress
        self._ends = time.monotonic() + ran.options.seconds

    def strike(self, only: Sequence[str]) -> None:
        """Step after step of the plan, until the time is over."""
        self._say("workers start")
        if _wait_until(lambda: self._status() is not None and self._worker_awake(), READY_SECONDS) is None:
            raise SoakFailedError(f"no worker was ready within {READY_SECONDS:.0f} seconds")
        if self._system.previous:
            self._begin()
        self._ends = time.monotonic() + self._ran.options.seconds
        upgrade_at = time.monotonic() + UPGRADED_AT * self._ran.options.seconds
        for step in plan(self._ran.options.seed, only, self._ran.options.on):
            if self._system.previous and not self._ran.upgraded and time.monotonic() >= upgrade_at:
                self._upgrade()
            if time.monotonic() >= self._ends:
                return
            self._step(step)

    def _begin(self) -> None:
        """The previous release works, and is upgraded, one worker after another."""
        fleet = self._system.fleet
        if _wait_until(lambda: self._system.stand_in.counts()["requests"] > 0, READY_SECONDS) is None:
            raise SoakFailedError(f"the previous release delivered nothing within {READY_SECONDS:.0f} seconds")

        def upgrade() -> None:
            for each in fleet.of_pool():
                fleet.replace(each)

        self._struck((FIRST,), [(0.0, upgrade)])

    def _upgrade(self) -> None:
        """`contact-sync upgrade`, again while workers of the previous release are seen that were killed."""

        def raised() -> bool:
            try:
                return self._system.upgrade()
            except redis.RedisError:
                return False

        self._say("contact-sync upgrade")
        self._ran.upgraded = _wait_until(raised, RECOVERY_SECONDS) is not None

    def _step(self, step: Step) -> None:
        self._struck(tuple(fault.kind.name for fault in step.faults), _timed(step, self._faults))
        time.sleep(step.calm_seconds)

    def _struck(self, kinds: tuple[str, ...], acts: Iterable[tuple[float, Callable[[], None]]]) -> None:
        self._say(" + ".join(kinds))
        begun = time.monotonic()
        for wait, act in acts:
            time.sleep(max(0.0, begun + wait - time.monotonic()))
            act()
        healed = time.monotonic()
        healed_ms = healed * 1000 + self._ran.unix_ms
        self._say(f"{' + '.join(kinds)}: recovery")
        took = _wait_until(lambda: self._recovered(healed_ms), RECOVERY_SECONDS)
        self._ran.struck.append(Struck(kinds, begun, healed, took))
        if self._ran.options.on != "redis" and set(kinds) & set(OF_NODES):
            self._say(f"{' + '.join(kinds)}: the servers find each other")
            whole = _wait_until(self._system.home.whole, WHOLE_SECONDS)
            if whole is None:
                self._ran.seen.gaps.append(f"the servers did not find each other after: {' + '.join(kinds)}")
            self._ran.unpaced.append((begun, time.monotonic()))

    def _recovered(self, healed_ms: float) -> bool:
        """Whether all that was accepted live by then is confirmed, dead, or superseded: nobody waits for an import."""
        status = self._status()
        if status is None:
            return False
        if status.away_partitions or status.gate_away:
            return False
        oldest_ms = status.lanes["live"].oldest_ms
        return oldest_ms is None or oldest_ms > healed_ms

    def _status(self) -> Status | None:
        try:
            return self._system.status()
        except redis.RedisError:
            return None

    def _worker_awake(self) -> bool:
        status = self._status()
        return status is not None and status.worker_awake

    def _say(self, what: str) -> None:
        left = max(0.0, self._ends - time.monotonic())
        self._progress.at(1.0 - left / self._ran.options.seconds, what)


class _Peace:
    """The time after: whatever is left is delivered, and all is written down."""

    def __init__(self, system: System, ran: Ran, progress: Progress) -> None:
        self._system = system
        self._ran = ran
        self._progress = progress

    def conclude(self) -> None:
        """Drains, redrives what lies dead, drains again, and takes stock."""
        system, ran = self._system, self._ran
        self._progress.at(1.0, "peace: erasures end")
        system.erasures.finish(DRAIN_SECONDS)
        ran.drained = self._drain("drains") and self._drain_parked()
        ran.redriven = Counter(system.redrive())
        ran.drained = self._drain("drains what was redriven") and ran.drained
        ran.mentions = system.mentions({each.user for each in system.erasures.every if each.ended is not None})
        ran.left_letters = [letter.id for letter in system.dead_letters.find(Wanted())]
        ran.status, ran.marks = system.status(), system.marks()
        ran.contacts = system.stand_in.contacts()
        ran.counts = dict(system.stand_in.counts())

    def _drain_parked(self) -> bool:
        """Lets parked pairs be tried until none is left."""

        def none() -> bool:
            return not self._system.retry_parked() and self._quiet()

        self._progress.at(1.0, "peace: retries parked pairs")
        return _wait_until(none, DRAIN_SECONDS) is not None

    def _drain(self, what: str) -> bool:
        """Waits until nothing waits, nothing is in flight, and nothing may act late any more; whether that came."""
        self._progress.at(1.0, f"peace: {what}")
        longest = DRAIN_SECONDS + self._ran.options.import_size / IMPORTED_A_SECOND
        return _wait_until(self._quiet, longest) is not None

    def _quiet(self) -> bool:
        try:
            status = self._system.status()
            quiet = status.idle and not status.away_partitions and not self._system.marks()
        except redis.RedisError:
            return False
        return quiet and not self._system.stand_in.counts()["late"]


_SHOWN: Final = (
    *("batch_size", "linger_seconds", "request_timeout_seconds", "lease_seconds", "late_seconds"),
    *("backoff_base_seconds", "backoff_max_seconds", "ledger_seconds", "readd", "partitions"),
    *("rate",),
)


def _timed(step: Step, faults: Faults) -> Iterator[tuple[float, Callable[[], None]]]:
    """What to do when, in order: each fault strikes, and is healed after its time. Seconds from the first on."""
    heals: dict[int, Callable[[], None]] = {}

    def strike(number: int) -> None:
        heals[number] = faults.strike(step.faults[number])

    def heal(number: int) -> None:
        heals[number]()

    acts: list[tuple[float, Callable[[], None]]] = []
    for number, fault in enumerate(step.faults):
        begins = number * step.stagger_seconds
        acts.append((begins, lambda number=number: strike(number)))  # type: ignore[misc] # mypy: default of a lambda
        acts.append((begins + fault.seconds, lambda number=number: heal(number)))  # type: ignore[misc] # the same
    return iter(sorted(acts, key=lambda act: act[0]))


def _wait_until(condition: Callable[[], bool], seconds: float) -> float | None:
    """How many seconds it took until the condition held, None if it did not within so many."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + seconds:
            return None
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - begun
