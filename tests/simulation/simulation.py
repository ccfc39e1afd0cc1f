"""One seed, one story: a world with workers and producers, everything that can go wrong, healing, and the judgement."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from traceback import extract_tb
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from tests.proof.history import History, Left, Paced, Sent, Violation
from tests.proof.oracle import judge
from tests.simulation.chronicle import Broken
from tests.simulation.endpoint_model import CLIMATES
from tests.simulation.fleet import KEYS, PARTITIONS, Fleet, settings_of
from tests.simulation.losses import disturbed
from tests.simulation.nodes_model import ClusterModel
from tests.simulation.producing import CONTACTS, OWNERS, Producers
from tests.simulation.world import World
from worker.core.entry import split_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from tests.proof.history import Pair
    from tests.simulation.chance import Chance
    from worker.core.pair import Readd

_PARTS: Final = range(PARTITIONS)
_LEASES: Final = [KEYS.lease(p) for p in _PARTS]
_LOGS: Final = [log for p in _PARTS for log in (KEYS.events(p), KEYS.bulk(p))]
_CLASSES: Final = [key for p in _PARTS for key in KEYS.pending_classes(p)]
_LATE: Final = [KEYS.late(p) for p in _PARTS]
_PARKED: Final = [KEYS.parked(p) for p in _PARTS]

HEALING_STEPS: Final = 4_000
"""Steps within which a healed world comes to rest; one that needs more has lost something."""

_RATES: Final[tuple[float | Literal["auto"], ...]] = ("auto", "auto", 5.0)
_IN_FLIGHT: Final[tuple[int | Literal["auto"], ...]] = ("auto", "auto", 1)
_SKEWS_US: Final = (0, 0, 0, 250_000, -700_000, 900_000)
_LENGTHS: Final = (35, 35, 35, 35, 35, 35, 35, 120)
"""Least events of a world's troubled part: most worlds are short, so that many faults strike in a second of ours."""

_LOOK_SECONDS: Final = 0.4
"""In a healed world, shortest wait for a place at the gate: where a rate binds, it has a place by then."""

_PATIENCE_STEPS: Final = 1_000
_PATIENCE_PROBES: Final = 12  # each pair there is has been tried twice by then
_EVER: Final = 1e9  # what a ledger has forgotten nobody can erase
_ERASURES_MOST: Final = 5
_DOZE_US: Final = 200_000
_DAY_US: Final = 86_400_000_000


class Told(NamedTuple):
    """What became of a seed.

    Attributes:
        violations: what is broken; none where all is well.
        steps: how many it took.
        sent: how many requests went out.
        taken: every draw, from which it can be told again.
        story: what happened, if it was asked for.
        faults: what went wrong, by name.
        outcomes: what came of it: answers of the endpoint, replies of scripts, ends of changes, losses.
    """

    violations: list[Violation]
    steps: int
    sent: int
    taken: list[int]
    story: list[str]
    faults: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()


def simulate(chance: Chance, *, told: bool = False) -> Told:
    """Lives one world from beginning to end."""
    world = World(chance, told=told)
    life = _Life(world)
    try:
        life.chaos()
        life.heal()
        life.finish_erasure()
        life.days_later()
        violations = life.judge()
    except Broken as broken:
        violations = [Violation("totals", None, str(broken))]
    except Exception as error:  # noqa: BLE001 - whatever the code raised where it should not have
        where = extract_tb(error.__traceback__)[-1]
        says = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        violations = [Violation("crash", None, says)]
    finally:
        for actor in world.actors:
            actor.die()
    sent = len(world.chronicle.sent)
    outcomes = frozenset(life.outcomes())
    return Told(violations, world.steps, sent, chance.taken, world.story or [], frozenset(world.faults), outcomes)


class _Life:
    """The course of one world."""

    def __init__(self, world: World) -> None:
        chance = self._chance = world.chance
        self._world = world
        self._readd: Readd = "absorb" if chance.one_in(5) else "resend"
        self._ledger_seconds = _EVER if chance.erases else chance.one_of((3600.0, 1.0, 2.0))
        self._rate = chance.one_of(_RATES)
        settings = settings_of(
            self._readd,
            chance.one_of((5, 2, 50, 5, 1, 50)),
            self._ledger_seconds,
            chance.one_of((0.0, 0.0, 0.3)),
            self._rate,
            chance.one_of(_IN_FLIGHT),
        )
        self._batch_size = settings.batch_size
        if not chance.erases and chance.one_in(4):
            self._build_cluster()
        if not chance.one_in(4):
            world.load_scripts()
        self._fleet = Fleet(world, settings)
        world.hinted = lambda: self._fleet.waiting_hints > 0 and not self._fleet.broker_away
        for _ in range(1 + chance.below(2)):
            self._fleet.start(threads=1 + chance.below(2))
        self._producers = Producers(world, unstamped=not chance.below(3), odd=not chance.below(2))
        self._user = chance.one_of((*OWNERS, *CONTACTS)) if chance.erases else ""
        self._went_back = False
        self._jumps = chance.one_in(6)
        world.losses = chance.one_of((0, 150, 40, 20))
        world.endpoint.rate = chance.one_of((0.0, 0.0, 0.0, 0.0, 0.0, 1.0))
        if chance.below(8):
            world.endpoint.climate = chance.one_of(CLIMATES)

    def _build_cluster(self) -> None:
        """Redis is a cluster of two or three nodes, each with a clock of its own."""
        world, chance = self._world, self._chance
        skews = [chance.one_of(_SKEWS_US) for _ in range(2 + chance.below(2))]
        # Its partitions are on nodes of their own, more often than not; all else is anywhere.
        places = [chance.below(len(skews)) for _ in range(4)]
        partitions = [(p + chance.below(2)) % len(skews) for p in range(PARTITIONS)]
        world.cluster = ClusterModel(world.model, KEYS, [*places, *partitions], skews)
        random.seed(chance.below(1 << 16))  # in which order its client asks nodes for the slots

    # The course

    def chaos(self) -> None:
        """Changes come in, and everything goes wrong that can."""
        chance, world = self._chance, self._world
        self._fleet.waiting_hints = 1
        for _ in range(chance.below(4)):
            self._producers.say()
        for _ in range(chance.one_of(_LENGTHS) + chance.below(50)):
            drawn = chance.below(64)
            if drawn < 49:
                world.step()
            elif drawn < 57:
                self._producers.say()
                self._fleet.waiting_hints += min(1, chance.below(4))  # its ticker was quick
            else:
                mishaps = _MISHAPS if world.cluster is None or chance.one_in(2) else _NODE_MISHAPS
                self._strike(chance.one_of(mishaps))
            if chance.erases and chance.one_in(25):
                self._strike(_Life._erase)

    def _strike(self, mishap: Callable[[_Life], None]) -> None:
        if mishap is not _Life._clock or self._jumps:
            self._world.faults.add(mishap.__name__.strip("_").replace("_", " "))
            mishap(self)

    def heal(self) -> None:
        """Everything is fixed; the world comes to rest."""
        world, fleet = self._world, self._fleet
        world.losses = world.redis_away_us = 0
        world.endpoint.climate, world.endpoint.most, world.endpoint.rate = CLIMATES[0], 1 << 30, 0.0
        fleet.broker_away, fleet.waiting_hints = False, min(fleet.waiting_hints, 1)  # the others found nothing to do
        world.look_seconds = _LOOK_SECONDS
        world.load_scripts()
        if world.cluster is not None:
            world.end_all_moves()
            for node in world.cluster.nodes:
                node.refuses_until_us = node.hangs_until_us = 0
                node.replica = None
        world.tell("healed")
        world.chronicle.held = 0
        for i in range(HEALING_STEPS):
            if self._idle():
                left = self._left()
                if not any(left):
                    return
                if left == Left(parked=left.parked, marks=left.marks):
                    self._until_due()
                world.pass_time(_DOZE_US)  # nobody is in the middle of anything: leases and marks run out
            # Where all that is left is poison the endpoint is held for it, until somebody helps.
            if i == _PATIENCE_STEPS or world.chronicle.held == _PATIENCE_PROBES:
                world.endpoint.poison.clear()
                world.endpoint.unknown.clear()
            world.step()

    def finish_erasure(self) -> None:
        """An erasure that was begun is called again until it has found an end, and the endpoint takes all by then."""
        world, fleet = self._world, self._fleet
        for _ in range(_ERASURES_MOST):
            if fleet.erased or not world.chronicle.listed:
                return
            world.endpoint.poison.clear()
            world.endpoint.unknown.clear()
            fleet.redrive()
            self.heal()
            fleet.erase(self._user, 30.0)
            self.heal()
        if not fleet.erased:
            raise Broken("an erasure finds no end")

    def days_later(self) -> None:
        """Days pass, the endpoint takes what it refused, changes come in, and somebody redrives the dead letters."""
        world, chance = self._world, self._chance
        letters = any(each.gone_ms is None for each in world.chronicle.letters.values())
        if not letters and not chance.one_in(8):
            return
        for _ in range(chance.below(3)):
            world.pass_time(_DAY_US)
            if chance.one_in(2):
                world.endpoint.poison.clear()
            for _ in range(1 + chance.below(3)):
                self._producers.say()
            self.heal()
        world.endpoint.poison.clear()
        self._fleet.redrive()
        for _ in range(chance.below(8)):
            world.step()
        if chance.one_in(2):
            self._producers.say()
        self.heal()

    def _idle(self) -> bool:
        return all(each.waits or each.ticks for each in self._world.actors)

    def _left(self) -> Left:
        model, leased = self._world.model, 0
        for lease in _LEASES:
            self._world.go_by(lease)
            leased += model.exists(lease)
        return Left(
            entries=sum(map(model.xlen, _LOGS)),
            pending=sum(map(model.hlen, _CLASSES)),
            marks=sum(map(model.hlen, _LATE)),
            in_flight=leased,
            parked=sum(map(model.hlen, _PARKED)),
        )

    def _until_due(self) -> None:
        """Only parked pairs and repairs are left: time passes until one is due, which the endpoint may take by then."""
        world, model = self._world, self._world.model
        if not self._chance.one_in(2):
            world.endpoint.unknown.clear()
        fields = [model.hget(KEYS.partition(p), name) for p in range(PARTITIONS) for name in ("parked_due", "late_due")]
        due_ms = min(int(each) for each in fields if each)
        self._world.model.skew_us = 0  # the clocks of its nodes are no further apart than a doze
        if due_ms > model.now_ms:
            world.tell("time passes until something is due")
            world.pass_time((due_ms - model.now_ms) * 1000)

    def outcomes(self) -> Iterator[str]:
        """What came of it all, by name."""
        world = self._world
        yield "Redis: a cluster" if world.cluster is not None else "Redis: one server"
        yield from (f"answer: {each}" for each in world.weathers)
        yield from world.chronicle.outcomes()
        for p in range(PARTITIONS):
            names = map(bytes.decode, world.model.hash_of(KEYS.totals(p)))
            yield from (f"counted: {name}" for name in names if not name.startswith("took:"))
        if world.lost:
            yield "a tail was lost"
        if world.losses_noticed.alarms:
            yield "a loss was noticed"

    def judge(self) -> list[Violation]:
        """What is broken; of pairs that a lost tail speaks of, nothing is promised."""
        history, lost = self.history(), self._world.lost
        if not lost:
            return judge(history)
        apart = disturbed(self._world.chronicle, lost)
        kept = replace(
            history,
            peak_pending={},
            changes=[each for each in history.changes if (each.owner, each.contact) not in apart],
            sent=[each for each in (_without(sent, apart) for sent in history.sent) if each.records],
        )
        # How many entries, records and letters there were, nobody can say.
        return [each for each in judge(kept) if each.kind not in {"totals", "dead_letters"}]

    def history(self) -> History:
        """What the oracle is to judge."""
        world, chronicle = self._world, self._world.chronicle
        totals: dict[str, int] = {}
        for p in range(PARTITIONS):
            for name, number in world.model.hash_of(KEYS.totals(p)).items():
                totals[name.decode()] = totals.get(name.decode(), 0) + int(number)
        left = self._left()
        totals["events"] = totals.get("events", 0) + left.entries
        sent = [
            Sent(
                each.number,
                each.records,
                each.built_ms,
                each.begun_ms,
                each.ended_ms,
                each.outcome,
                each.applied,
                frozenset(each.settled),
                each.whole,
                each.beyond,
                each.built_ms,
                each.read_from,
                each.settled,
                None if each.placed_us is None else each.placed_us // 1000,
                each.suppressed,
            )
            for each in chronicle.sent
        ]
        return History(
            chronicle.changes,
            sent,
            list(chronicle.letters.values()),
            frozenset(world.endpoint.contacts),
            left,
            totals,
            self._readd,
            # What a clock that goes back does to the ledger's time nobody promises.
            0.0 if self._went_back else self._ledger_seconds,
            self._batch_size,
            unsent=chronicle.unsent,
            peak_pending=chronicle.peak_pending,
            paced=self._paced(),
            erased=chronicle.listed,
            mentions=self._mentions(),
        )

    def _mentions(self) -> list[str]:
        """The keys in which somebody who was erased still stands; a delete that the endpoint refused since may."""
        model, erased = self._world.model, {each.encode() for each in self._world.chronicle.listed}
        keys = [
            key
            for p in range(PARTITIONS)
            for key in (*KEYS.pending_classes(p), KEYS.parked(p), KEYS.late(p), KEYS.ledger_new(p), KEYS.ledger_old(p))
        ]
        return [key for key in keys if any(not erased.isdisjoint(split_pair(pair)) for pair in model.hash_of(key))]

    def _paced(self) -> list[Paced]:
        """The spans in which the configured limit held: a clock that jumps begins the pace anew."""
        if not isinstance(self._rate, float):
            return []
        bounds = [0, *self._world.chronicle.jumps_us, self._world.mono_us + 1]
        return [Paced(since // 1000, until // 1000, self._rate) for since, until in pairwise(bounds)]

    # What can go wrong

    def _erase(self) -> None:
        """Somebody begins to erase, once more perhaps, or is killed while at it."""
        if self._chance.one_in(3):
            self._fleet.cut_erasures_off()
        else:
            self._fleet.erase(self._user, 1.0 + self._chance.below(5))

    def _weather(self) -> None:
        self._world.endpoint.climate = self._chance.one_of(CLIMATES)

    def _burst(self) -> None:
        for _ in range(2 + self._chance.below(8)):
            self._producers.say()

    def _kill(self) -> None:
        self._fleet.kill(self._chance.one_of(self._fleet.processes))

    def _pause(self) -> None:
        actor = self._chance.one_of(self._world.actors)
        actor.ready_us = self._world.mono_us + 100_000 * (1 + self._chance.below(60))
        self._world.tell("{} stands still", actor.name)

    def _time_passes(self) -> None:
        self._world.pass_time(100_000 * (1 + self._chance.below(self._chance.one_of((10, 40)))))

    def _redis_away(self) -> None:
        self._world.redis_away_us = self._world.mono_us + 100_000 * (1 + self._chance.below(30))
        self._world.tell("Redis is away")

    def _scripts_vanish(self) -> None:
        self._world.model.known_scripts.clear()

    def _hints_lost(self) -> None:
        self._fleet.waiting_hints = 0

    def _hints_doubled(self) -> None:
        self._fleet.waiting_hints = 2 * self._fleet.waiting_hints + 1

    def _broker(self) -> None:
        self._fleet.broker_away = not self._fleet.broker_away

    def _poison(self) -> None:
        pair = self._chance.one_of(OWNERS), self._chance.one_of(CONTACTS)
        self._world.endpoint.poison ^= {pair}
        self._world.tell("poison: {}", sorted(self._world.endpoint.poison))

    def _unknown(self) -> None:
        pair = self._chance.one_of(OWNERS), self._chance.one_of(CONTACTS)
        self._world.endpoint.unknown ^= {pair}
        self._world.tell("refused with an unknown code: {}", sorted(self._world.endpoint.unknown))

    def _retry_parked(self) -> None:
        self._fleet.retry_parked()

    def _small(self) -> None:
        self._world.endpoint.most = self._chance.one_of((1 << 30, 1, 2))

    def _limit(self) -> None:
        self._world.endpoint.rate = self._chance.one_of((0.0, 1.0, 2.0, 5.0))
        self._world.tell("the endpoint allows {} requests a second", self._world.endpoint.rate)

    def _lease(self) -> None:
        partition = self._chance.below(PARTITIONS)
        self._world.lose_lease(partition, KEYS.lease(partition))

    def _redrive(self) -> None:
        self._fleet.redrive()

    def _clock(self) -> None:
        us = 500_000 * self._chance.one_of((1, 4, 60, -1, -4, -60))
        self._went_back = self._went_back or us < 0
        self._world.jump(us)

    # What can go wrong with nodes

    @property
    def _cluster(self) -> ClusterModel:
        assert self._world.cluster is not None
        return self._world.cluster

    def _node_away(self) -> None:
        node = self._chance.one_of(self._cluster.nodes)
        node.refuses_until_us = self._world.mono_us + 100_000 * (1 + self._chance.below(30))
        self._world.tell("{} is away", node.address)

    def _node_hangs(self) -> None:
        node = self._chance.one_of(self._cluster.nodes)
        node.hangs_until_us = self._world.mono_us + 100_000 * (1 + self._chance.below(40))
        self._world.tell("{} hangs", node.address)

    def _slot_moves(self) -> None:
        world, chance = self._world, self._chance
        key = chance.one_of((*(KEYS.lease(p) for p in range(PARTITIONS)), KEYS.gate, KEYS.config))
        node = chance.one_of(self._cluster.nodes)
        self._went_back = True  # by the clock of another node
        world.begin_to_move(key, node, world.mono_us + 100_000 * (1 + chance.below(40)))

    def _replica_lags(self) -> None:
        self._world.stop_replicating(self._chance.one_of(self._cluster.nodes))

    def _failover(self) -> None:
        nodes = self._cluster.nodes
        node = self._chance.one_of([each for each in nodes if each.replica is not None] or nodes)
        partitions = [p for p in range(PARTITIONS) if self._cluster.node_of(KEYS.lease(p)) is node]
        alive = [each.name for each in self._fleet.processes]
        self._went_back = True
        self._world.fail_over(node, self._chance.one_of(_SKEWS_US), partitions, alive)


def _without(sent: Sent, pairs: Collection[Pair]) -> Sent:
    """A request without the records of these pairs."""
    return sent._replace(records=tuple(each for each in sent.records if each[:2] not in pairs))


_MISHAPS: Final[tuple[Callable[[_Life], None], ...]] = (
    _Life._weather,  # noqa: SLF001 - its own
    _Life._kill,  # noqa: SLF001
    _Life._pause,  # noqa: SLF001
    _Life._time_passes,  # noqa: SLF001
    _Life._weather,  # noqa: SLF001
    _Life._pause,  # noqa: SLF001
    _Life._kill,  # noqa: SLF001
    _Life._time_passes,  # noqa: SLF001
    _Life._time_passes,  # noqa: SLF001
    _Life._burst,  # noqa: SLF001
    _Life._redis_away,  # noqa: SLF001
    _Life._scripts_vanish,  # noqa: SLF001
    _Life._hints_lost,  # noqa: SLF001
    _Life._hints_doubled,  # noqa: SLF001
    _Life._broker,  # noqa: SLF001
    _Life._poison,  # noqa: SLF001
    _Life._small,  # noqa: SLF001
    _Life._small,  # noqa: SLF001
    _Life._limit,  # noqa: SLF001
    _Life._redrive,  # noqa: SLF001
    _Life._lease,  # noqa: SLF001
    _Life._clock,  # noqa: SLF001
    _Life._unknown,  # noqa: SLF001
    _Life._retry_parked,  # noqa: SLF001
)
_NODE_MISHAPS: Final[tuple[Callable[[_Life], None], ...]] = (
    _Life._node_away,  # noqa: SLF001
    _Life._node_hangs,  # noqa: SLF001
    _Life._slot_moves,  # noqa: SLF001
    _Life._slot_moves,  # noqa: SLF001
    _Life._replica_lags,  # noqa: SLF001
    _Life._failover,  # noqa: SLF001
)
