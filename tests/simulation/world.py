"""A world: Redis, endpoint, clocks and workers, in which exactly one thing happens at a time.

Who is next, what a round trip comes to and what goes wrong is drawn from one `Chance`, so that a seed is a story.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

import redis
from greenlet import getcurrent  # type: ignore[import-untyped] # it has no types
from redis.exceptions import AskError, MovedError, TryAgainError

from producers.nodes.exchange import Answer
from producers.nodes.trip import NODE_SECONDS
from tests.simulation.actors import NORMAL, PACE_SECONDS, REPLY_LOST, REQUEST_LOST, Actor
from tests.simulation.chronicle import WATCHED, Chronicle
from tests.simulation.client import ModelClient, ModelCluster
from tests.simulation.endpoint_model import EndpointModel, Request, confirmation, records_of
from tests.simulation.losses import Loss, Noticed
from tests.simulation.nodes_model import Since
from tests.simulation.redis_model import RedisModel, digest_of
from tests.simulation.scripts_model import SCRIPTS
from worker.core.outcome import Answer as Answered
from worker.core.outcome import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from producers.nodes.url import Address
    from tests.simulation.chance import Chance
    from tests.simulation.client import Line
    from tests.simulation.nodes_model import ClusterModel, Node
    from tests.simulation.redis_model import Op

START_US: Final = 1_795_460_000_000_000
"""Redis' clock when a world begins."""

LATE_US: Final = 2_000_000
"""CONTACT_SYNC_LATE_SECONDS of every world."""

_FATES: Final = {REQUEST_LOST: "request lost", REPLY_LOST: "reply lost"}
_DAWDLES: Final = 3  # beside the fates of a round trip: it comes to nothing for a while
_FAR_US: Final = 10_000_000  # longer than a lease and a request
_PACE_US: Final = (100, 300, 1_000, 6_000)


class World:
    """Everything there is.

    Attributes:
        chance: what decides.
        model: Redis.
        cluster: the nodes that hold its keys; None while one server has them all.
        faults: those that struck, by name.
        weathers: what requests met, by name.
        losses_noticed: who must notice what failovers lost.
        lost: what they lost.
        endpoint: theirs.
        actors: whoever acts.
        now_us: Redis' clock (Unix).
        mono_us: the clock of all machines that never jumps.
        redis_away_us: until when no round trip reaches Redis (monotonic).
        losses: one round trip in so many is lost, 0 for none.
        look_seconds: shortest time between two looks of whoever only looks.
        steps: how many were made.
        story: what happened, in words; None where nobody asks.
        current: who acts now.
        hinted: whether a hint lies in the queue.
    """

    def __init__(self, chance: Chance, *, told: bool = False) -> None:
        self.chance = chance
        self.now_us = START_US
        self.mono_us = 0
        self.model = RedisModel(lambda: self.now_us)
        self.endpoint = EndpointModel()
        self.chronicle = Chronicle(self.model, self.history_ms, lambda: self.mono_us)
        self.faults: set[str] = set()
        self.weathers: set[str] = set()
        self.cluster: ClusterModel | None = None
        self.losses_noticed = Noticed(lambda: self.mono_us)
        self.lost: list[Loss] = []
        self.actors: list[Actor] = []
        self.redis_away_us = 0
        self.losses = 0
        self.look_seconds = PACE_SECONDS
        self.steps = 0
        self.story: list[str] | None = [] if told else None
        self.current: Actor | None = None
        self.hinted: Callable[[], bool] = lambda: False
        self._jumped_us = -_FAR_US
        self._latest_us = START_US
        self._hub = getcurrent()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._requests = 0
        self._sequence = 0

    # Clocks

    def monotonic(self) -> float:
        """Seconds since the world began."""
        return self.mono_us / 1_000_000

    def history_ms(self) -> int:
        """Redis' clock as the oracle knows it: it never goes back (Unix ms)."""
        self._latest_us = max(self._latest_us, self.now_us)
        return self._latest_us // 1000

    def pass_time(self, us: int) -> None:
        """Lets time pass; what is due on the way happens at its moment."""
        until = self.mono_us + us
        if not self._due or self._due[0][0] > until:
            self.mono_us, self.now_us = until, self.now_us + us
            return
        while self._due and self._due[0][0] <= until:
            at, _, act = heappop(self._due)
            self._shift(max(0, at - self.mono_us))
            act()
        self._shift(until - self.mono_us)

    def lose_lease(self, partition: int, key: str) -> None:
        """A lease is gone before its time, as after a failover; what its holder sends from now on nobody knows of."""
        self.go_by(key)  # by another clock it may be over, and would be gone without anybody knowing
        if self.model.delete(key):
            self.chronicle.forget_lease(partition)
            self._jumped_us = self.mono_us
            self.tell("the lease {} is lost", key)

    def jump(self, us: int) -> None:
        """Redis' clock is put right; what could act by its old time has done so, or will count as beyond."""
        if us > 0:
            waiting, self._due = sorted(self._due), []
            for _, _, act in waiting:
                act()
            self._jumped_us = self.mono_us
        self.chronicle.forget_expired()
        self.chronicle.forget_places()
        self.now_us += us
        self.tell("Redis' clock jumps by {} ms", us // 1000)

    def at(self, mono_us: int, act: Callable[[], None]) -> None:
        """Lets something happen at that moment."""
        self._sequence += 1
        heappush(self._due, (mono_us, self._sequence, act))

    def _shift(self, us: int) -> None:
        self.mono_us += us
        self.now_us += us

    # Steps

    def step(self) -> None:
        """One actor does its next thing; where all sleep, time passes until one wakes."""
        self.steps += 1
        chance = self.chance
        self.pass_time(_PACE_US[chance.below(4)])
        now_us, hinted = self.mono_us, self.hinted()
        ready = [each for each in self.actors if each.ready_us <= now_us and (hinted or not each.waits)]
        if not ready:
            self._sleep()
            return
        actor = ready[chance.below(len(ready))] if len(ready) > 1 else ready[0]
        fate = NORMAL
        if self.losses:
            drawn = chance.below(self.losses)
            fate = drawn if drawn in {REQUEST_LOST, REPLY_LOST} else NORMAL
            if drawn == _DAWDLES:
                self.faults.add("dawdles")
                actor.ready_us = self.mono_us + 100_000 * (1 + chance.below(16))
                return
        self.current = actor
        actor.go_on(fate)
        if actor.ended:
            self.actors.remove(actor)

    def _sleep(self) -> None:
        """Until somebody wakes or something happens by itself."""
        hinted = self.hinted()
        wakes = [each.ready_us for each in self.actors if hinted or not each.waits]
        if self._due:
            wakes.append(self._due[0][0])
        self.pass_time(max(0, min(wakes, default=self.mono_us + 1_000_000) - self.mono_us))

    def hand_over(self) -> int:
        """Ends the step of whoever acts; returns with his next, and the fate of what he does in it."""
        fate: int = self._hub.switch()
        return fate

    def wait(self, seconds: float) -> None:
        """Whoever acts goes on so much later."""
        self._acting.ready_us = self.mono_us + int(seconds * 1_000_000)
        self.hand_over()

    def look_later(self, seconds: float) -> None:
        """As `wait`, for whoever only looks again afterwards: no sooner than most looks are worth a step."""
        self.wait(max(seconds, self.look_seconds) if seconds > 0 else seconds)

    def forget_the_dead(self) -> None:
        """Those that were killed act no more."""
        self.actors = [each for each in self.actors if not each.ended]

    @property
    def _acting(self) -> Actor:
        assert self.current is not None
        return self.current

    # Redis

    def round_trip(self, ops: Sequence[Op]) -> list[Any]:
        """Carries commands out for whoever acts.

        Raises:
            redis.ConnectionError: Redis is away, or the request or its reply was lost.
        """
        fate = self.hand_over()
        actor = self._acting
        if fate != NORMAL:
            self.faults.add(_FATES[fate])
        if self.redis_away_us > self.mono_us or fate == REQUEST_LOST:
            self.tell("cannot reach Redis")
            raise redis.ConnectionError("away")
        replies = self._apply(actor, ops)
        if fate == REPLY_LOST:
            self.tell("loses the reply")
            raise redis.ConnectionError("lost")
        name, args = ops[0]
        if name == "XREAD" and replies[0] is None and "BLOCK" in args:
            actor.ready_us, actor.blocked = self.mono_us + 1000 * int(args[args.index("BLOCK") + 1]), True
            self.hand_over()
            actor.blocked = False
            replies = self.model.apply(ops)
        return replies

    def _apply(self, actor: Actor, ops: Sequence[Op]) -> list[Any]:
        replies = self.model.apply(ops)
        note = self.chronicle.note
        for (name, args), reply in zip(ops, replies, strict=True):
            if name in WATCHED:
                note(actor, name, args, reply, self)
        return replies

    def begin_round(self) -> None:
        """Whoever acts begins a round of the flush loop, whether or not he reaches the gate."""
        self.chronicle.forget_round(self._acting)

    def see_gate(self, state: str) -> None:
        """Whoever acts takes the gate to be so, whatever it told somebody who did not get its reply."""
        self._acting.looked = state.encode()

    # A cluster

    def client(self) -> ModelClient | ModelCluster:
        """A client of Redis, for a new process."""
        if self.cluster is None:
            return ModelClient(self.round_trip)
        return ModelCluster([each.address for each in self.cluster.nodes], self)

    def load_scripts(self) -> None:
        """Redis knows all scripts, as it does soon after a fleet began."""
        for known in [
            each.known_scripts for each in (self.cluster.nodes if self.cluster is not None else [self.model])
        ]:
            known.update(SCRIPTS)

    def go_by(self, key: str) -> None:
        """Redis' clock is from now on that of whoever has this key."""
        if self.cluster is not None:
            self.cluster.use(self.cluster.node_of(key))

    def write(self, parcels: Mapping[Address, Sequence[Line]]) -> dict[Address, Answer]:
        """Carries out what a trip writes to nodes, for whoever acts (a `Wire`)."""
        fate = self.hand_over()
        actor = self._acting
        struck = self.chance.one_of(sorted(parcels)) if fate != NORMAL else None
        if fate != NORMAL:
            self.faults.add(_FATES[fate])
        answers: dict[Address, Answer] = {}
        hung = False
        for address, lines in parcels.items():
            answers[address] = self._carry_out(actor, address, lines, fate if address == struck else NORMAL)
            hung = hung or isinstance(answers[address].broken, redis.TimeoutError)
        if hung:
            self.wait(NODE_SECONDS)
        return answers

    def _carry_out(self, actor: Actor, address: Address, lines: Sequence[Line], fate: int) -> Answer:
        assert self.cluster is not None
        node = self.cluster.at(address)
        hangs = node.hangs_until_us > self.mono_us
        refused = self.redis_away_us > self.mono_us or node.refuses_until_us > self.mono_us
        # Who hangs may have read the commands before, or never does: its client has gone when it wakes.
        if refused or fate == REQUEST_LOST or (hangs and self.chance.one_in(2)):
            self.losses_noticed.trouble(actor.process.name)
            self.tell("cannot reach {}", address)
            broken = redis.TimeoutError("hung") if hangs and not refused else redis.ConnectionError("away")
            return Answer([], broken, written=not refused)
        replies, read, failed = [], [], False
        cluster, note = self.cluster, self.chronicle.note
        for op, asking in lines:
            reply = cluster.apply(node, op, asking=asking)
            replies.append(reply)
            if isinstance(reply, Exception):
                failed = True
            elif op[0] == "EVAL":
                note(actor, "EVALSHA", (digest_of(op[1][0]), *op[1][1:]), reply, self)
            elif op[0] in WATCHED:
                note(actor, *op, reply, self)
            if asking:  # the answers to ASKING are read before those to the commands
                read.append(b"OK")
            read.append(reply)
        if hangs or fate == REPLY_LOST:
            self.losses_noticed.trouble(actor.process.name)
            self.tell("loses replies of {}", address)
            broken = redis.TimeoutError("hung") if hangs else redis.ConnectionError("lost")
            return Answer(read[: self.chance.below(len(read))], broken)
        for (op, _), reply in zip(lines, replies, strict=True) if failed else ():
            if isinstance(reply, MovedError | AskError | TryAgainError):
                self.losses_noticed.trouble(actor.process.name)
                self.tell("{} says {} to {}", address, type(reply).__name__, self.chronicle.name_of(op))
        return Answer(read)

    def slots_told_by(self, node: Address) -> Any:
        """CLUSTER SLOTS, as a node tells it to whoever acts."""
        self.hand_over()
        assert self.cluster is not None
        found = self.cluster.at(node)
        if max(found.refuses_until_us, found.hangs_until_us, self.redis_away_us) > self.mono_us:
            return redis.ConnectionError("away")
        return self.cluster.slots()

    def answers(self, node: Address) -> bool:
        """Whether a node answers a PING of whoever acts."""
        return not isinstance(self.slots_told_by(node), Exception)

    def begin_to_move(self, key: str, to: Node, until_us: int) -> None:
        """A slot begins to move, and has arrived at that moment; some of its keys go on the way (monotonic)."""
        assert self.cluster is not None
        if self.cluster.begin_to_move(key, to):
            self.tell("the slot of {} begins to move to {}", key, to.address)
            half_us = (self.mono_us + until_us) // 2
            self.at(half_us, lambda: self._move_some(key))
            self.at(until_us, lambda: self._end_move(key))

    def _move_some(self, key: str) -> None:
        assert self.cluster is not None
        self.cluster.move_some(key, 1 + self.chance.below(8))
        self._clocks_differ()

    def _end_move(self, key: str) -> None:
        assert self.cluster is not None
        if self.cluster.end_move(key):
            self._clocks_differ()
            self.tell("the slot of {} has arrived", key)

    def end_all_moves(self) -> None:
        """Every moving slot has arrived."""
        assert self.cluster is not None
        self.cluster.end_all_moves()
        self._clocks_differ()

    def stop_replicating(self, node: Node) -> None:
        """A node's replica gets nothing more from now on."""
        assert self.cluster is not None
        self.cluster.stop_replicating(node, Since(self.mono_us, self.history_ms()))
        self.tell("the replica of {} gets nothing more", node.address)

    def fail_over(self, node: Node, skew_us: int, partitions: Collection[int], alive: Collection[str]) -> None:
        """A node's replica takes over, perhaps without what the node accepted last."""
        assert self.cluster is not None
        since = self.cluster.fail_over(node, skew_us)
        for p in partitions:
            self.chronicle.roll_back(p)
        self._clocks_differ()
        self.tell("{} fails over, and loses {}", node.address, "nothing" if since is None else "its tail")
        if since is not None:
            self.losses_noticed.lose(since.mono_us, alive, certain=bool(partitions))
            self.lost.append(Loss(partitions, since.time_ms, self.history_ms()))

    def _clocks_differ(self) -> None:
        """Keys are judged by another node's clock: what could act by the old one has done so, or counts as beyond."""
        waiting, self._due = sorted(self._due), []
        for _, _, act in waiting:
            act()
        self._jumped_us = self.mono_us
        self.chronicle.forget_leases()
        self.chronicle.forget_places()

    def takes(self, key: str) -> bool:
        """Whether a producer reaches whoever has this key."""
        if self.cluster is None:
            return True
        node = self.cluster.node_of(key)
        return max(node.refuses_until_us, node.hangs_until_us) <= self.mono_us

    def append(self, partition: int, key: str, flat: Sequence[Any]) -> bytes:
        """A producer's XADD; whoever blocks for an entry wakes."""
        self.go_by(key)
        (entry_id,) = self.model.apply([("xadd", (key, *flat))])
        for each in self.actors:
            if each.blocked:
                each.ready_us = min(each.ready_us, self.mono_us)
        self.tell("p{} accepts {} as {}", partition, flat, entry_id)
        return bytes(entry_id)

    # The endpoint

    def distrust(self) -> None:
        """No connection is modelled."""

    def send(self, body: bytes, server_key: str, deadline_monotonic: float | None = None) -> Answered | NoAnswer:
        """A request on its way: it begins, may take effect, is answered or not (a `Sender`)."""
        _ = server_key
        self.hand_over()
        actor = self._acting
        assert deadline_monotonic is not None
        deadline_us = int(deadline_monotonic * 1_000_000)
        if deadline_us <= self.mono_us:
            self.chronicle.unsent += 1
            return NoAnswer(sent=False, why="the deadline passed before the request began")
        self.chronicle.check_leases(actor, deadline_us)
        request = self._begin(actor, body)
        weather = self.endpoint.meet(request, self.chance, self.mono_us)
        self.weathers.add(weather.name)
        left_us = deadline_us - self.mono_us
        answered_us = self.mono_us + (0, left_us // 3, left_us)[weather.patience]
        self._let_act(request, weather.acts, answered_us, deadline_us)
        self.tell("request {} says {}: {}", request.number, request.records, weather.name)
        actor.ready_us = answered_us
        self.hand_over()
        request.ended_ms = self.history_ms()
        if weather.answer is not None:
            return weather.answer
        if request.applied is None:  # one of its records became poison meanwhile
            return Answered(503, None, b'{"status": 503, "error": {"code": "50001"}}')
        request.outcome = "confirmed"
        return confirmation(request)

    def _begin(self, actor: Actor, body: bytes) -> Request:
        self._requests += 1
        whole = actor.probes and actor.looked != b"ok"
        records = records_of(body)
        actor.request = Request(self._requests, records, actor.read_ms, self.history_ms(), whole)
        actor.request.read_from = actor.read_from
        actor.request.placed_us = actor.placed_us
        actor.request.suppressed = actor.suppressed
        self.chronicle.sent.append(actor.request)
        return actor.request

    def _let_act(self, request: Request, acts: str, answered_us: int, deadline_us: int) -> None:
        if acts == "never":
            return
        begun_us, looked_us = self.mono_us, self._acting.looked_us
        late_us = deadline_us + LATE_US
        # At once; with the answer; later, at any time that the promise covers, its last moment too; or never.
        choices = (begun_us, answered_us) if acts == "at_once" else (0, begun_us, answered_us, late_us, -1)
        act_us = self.chance.one_of(choices)
        if act_us == -1:
            act_us = answered_us + (late_us - answered_us) * self.chance.below(16) // 16
        if not act_us:
            return

        def act() -> None:
            self.endpoint.apply(request)
            # After the worker looked its lease ended before its time: only who lives to say what he sent is repaired.
            request.beyond = self.mono_us > answered_us and self._jumped_us > looked_us - _FAR_US
            self.tell("request {} takes effect", request.number)

        if act_us <= self.mono_us:
            act()
        else:
            self.at(act_us, act)

    # Words

    def tell(self, text: str, *values: object) -> None:
        """Adds a line to the story."""
        if self.story is not None:
            who = self.current.name if self.current is not None else ""
            self.story.append(f"{self.mono_us / 1_000_000:9.4f} {who:10} {text.format(*values)}")
