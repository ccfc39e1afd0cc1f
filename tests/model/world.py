"""One pair in a world so small that everything that can happen to it can be tried.

There are two workers, one Redis and one endpoint. The workers run the real core and the real store on the Redis model
of the simulation. What one of them does between two looks at the world is one move; so is a change that is said, a
request that takes effect, an answer that is lost, a second that passes, a crash, a failover. A state is everything
that decides what can happen next.
"""

from __future__ import annotations

import marshal
import pickle
from dataclasses import astuple, dataclass, field, fields
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from producers.contract.keys import Keys
from tests.simulation.client import ModelClient
from tests.simulation.redis_model import RedisModel
from tests.simulation.values import Stream, Text
from worker.core.batch import fill
from worker.core.codec import decode_mark, decode_parked, decode_state
from worker.core.lane import CLASSES
from worker.core.lease import Lease
from worker.core.read import ReadRequest
from worker.core.settlement import BatchResult, Refusal, Settlement, settlement
from worker.core.slice import assemble, coalesce_prefix, pairs_of
from worker.store.namespace import Namespace
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from producers.contract.change import Lane
    from producers.contract.change import Op as ChangeOp
    from tests.model.bugs import Bug
    from tests.simulation.redis_model import Op
    from worker.core.read import ReadResult, Recalled
    from worker.core.slice import PartitionSlice
    from worker.store.partitions import Settled

KEYS: Final = Keys("m")
START_MS: Final = 1_795_460_000_000
SECOND_MS: Final = 1_000
TIMEOUT_MS: Final = 1_000
LATE_MS: Final = 3_000
"""A request may act before this time has passed since its deadline, and not later."""
LEASE_MS: Final = 2_000
"""A lease outlives the request timeout by a second, as the settings demand."""

HEALINGS: Final = ("now", "last", "never")
"""When requests take effect that are under way when all is well again: at once, at the last moment that is promised,
or never."""

_ROOM: Final = 8
_SETTLES: Final = 100
_REST_SECONDS: Final = 200
"""Longer than all leases, late requests and parked pairs of one world need."""

_UNKNOWN: Final = Refusal("40401", "", "", known=False)


class Said(NamedTuple):
    """A change that somebody says.

    Attributes:
        op: upsert or delete.
        at: its order among the stamped ones, 0 if it carries no time.
        lane: the lane that it takes.
    """

    op: ChangeOp
    at: int = 0
    lane: Lane = "live"

    def __str__(self) -> str:
        return f"{self.op}{f' at {self.at}' if self.at else ''}{' in bulk' if self.lane == 'bulk' else ''}"


@dataclass(slots=True)
class Request:
    """A request that was sent.

    Attributes:
        op: of its one record.
        deadline_ms: when its worker waits no longer.
        acted: whether it took effect.
        lost: whether its answer never comes.
        refused: whether it was refused with a code that nobody knows; it never takes effect.
        old: whether it was under way when all was well again.
    """

    op: ChangeOp
    deadline_ms: int
    acted: bool = False
    lost: bool = False
    refused: bool = False
    old: bool = False


@dataclass(slots=True)
class Worker:
    """Where a worker stands.

    Attributes:
        stage: what it did last: nothing, held (a lease), read, sent, answered, marked, fenced.
        lease: of the partition.
        read: what it read, and what it recalled; in bytes, since most moves do not touch it.
        now_ms: when it read.
        begun_ms: when its request began, 0 if none was sent.
        request: number of that request, -1 if none was sent.
        outcome: confirmed, retry, refused, absorbed (nothing may be sent now, and what was read waits on), none.
    """

    stage: str = ""
    lease: Lease | None = None
    read: bytes = b""
    now_ms: int = 0
    begun_ms: int = 0
    request: int = -1
    outcome: str = "none"


@dataclass(slots=True)
class State:
    """Everything that decides what can happen next.

    Attributes:
        now_ms: the one clock (Unix ms).
        data: every key of Redis.
        before: the same as a replica has it that lacks the last write of a worker; None once a failover is no longer
            tried.
        present: whether the contact is there at the endpoint.
        said: changes that were said, in order.
        left: changes that nobody has said yet.
        requests: all that were sent and may still act, or are waited for.
        workers: both.
        faults: which kinds may still happen, once each: crash, failover, lose (an answer), refuse (a record). What a
            failover takes from a worker that crashed nobody can tell, so these two do not go together.
    """

    now_ms: int
    data: dict[str, Any]
    before: dict[str, Any] | None
    present: bool
    said: tuple[Said, ...]
    left: tuple[Said, ...]
    requests: dict[int, Request] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=lambda: [Worker(), Worker()])
    faults: tuple[str, ...] = ()


class Broken(Exception):  # noqa: N818 - a finding about the code, not an error of this one
    """Something that must hold does not."""


class World:
    """The moves from a state, and what they lead to.

    Args:
        seconds: how long anything may go wrong.
        bug: planted into the scripts or the loop.
    """

    def __init__(self, seconds: int, bug: Bug) -> None:
        self._until_ms = START_MS + seconds * SECOND_MS
        self._bug = bug
        self.state = State(START_MS, {}, None, present=False, said=(), left=())
        self._redis = RedisModel(lambda: self.state.now_ms * 1000)
        self._redis.known_scripts = _All()
        self._partitions = Partitions(
            Namespace(ModelClient(self._round_trip).as_redis, KEYS, 1),
            lambda: self.state.now_ms / 1000,
            lease_seconds=LEASE_MS / 1000,
            late_seconds=LATE_MS / 1000,
            ledger_seconds=3600,
        )

    def begin(self, changes: Sequence[Said], faults: Sequence[str]) -> bytes:
        """The state in which nobody has said anything yet."""
        data: dict[str, Any] = {}
        before: dict[str, Any] | None = {} if "failover" in faults else None
        self.state = State(START_MS, data, before, present=False, said=(), left=tuple(changes), faults=tuple(faults))
        return self.freeze()

    # States

    def freeze(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        self._in_order()
        state = self.state
        requests = tuple((number, *astuple(each)) for number, each in state.requests.items())
        workers = tuple((*(_fields(worker) or ()), _fields(worker.lease)) for worker in state.workers)
        before = None if state.before is None else _plain(state.before)
        said, left = (tuple(map(tuple, some)) for some in (state.said, state.left))
        whole = (state.now_ms, _plain(state.data), before, state.present, said, left, requests, workers, state.faults)
        # The version that keeps no references: equal values give equal bytes, whatever objects they share.
        return marshal.dumps(whole, 2)

    def _in_order(self) -> None:
        """Gives equal names to states that differ in names alone.

        Workers are alike; a request's number is only a name; of tokens only their order counts, and of the number of
        settles only whether it is the one that a worker knows.
        """
        state = self.state
        numbers = {number: i for i, number in enumerate(sorted(state.requests), start=1)}
        state.requests = {numbers[number]: state.requests[number] for number in sorted(state.requests)}
        for worker in state.workers:
            worker.request = numbers.get(worker.request, 0 if worker.request >= 0 else -1)
        leases = [worker.lease for worker in state.workers if worker.lease is not None]
        stored = [each for each in (state.data, state.before) if each is not None]
        tokens = {lease.token for lease in leases}.union(*map(_tokens, stored))
        ranks = {token: b"%d" % i for i, token in enumerate(sorted(tokens, key=int), start=1)}
        settles = _seq(state.data)
        for lease in leases:
            lease.token, lease.seq = ranks[lease.token], _SETTLES + lease.seq - settles
        for data in stored:
            _rename(data, ranks, _SETTLES - settles)
        state.workers.sort(key=lambda each: (each.stage, each.lease.token if each.lease is not None else b""))

    def thaw(self, frozen: bytes) -> None:
        """Goes to a state."""
        now_ms, data, before, present, said, left, requests, workers, faults = marshal.loads(frozen)  # noqa: S302 - ours
        self.state = State(
            now_ms,
            _rich(data),
            None if before is None else _rich(before),
            present,
            tuple(Said(*each) for each in said),
            tuple(Said(*each) for each in left),
            {number: Request(*rest) for number, *rest in requests},
            [_worker(*each) for each in workers],
            faults,
        )

    # Moves

    def moves(self) -> list[tuple[str, int]]:
        """What can happen next: a name, and whom or what it happens to."""
        state = self.state
        found = [("say", i) for i in range(len(state.left))]
        found += [(self._step_of(worker), i) for i, worker in enumerate(state.workers) if self._step_of(worker)]
        found += [("absorb", i) for i, worker in enumerate(state.workers) if self._absorbs(worker)]
        found += [("act", number) for number, each in state.requests.items() if not each.acted and not each.refused]
        if "crash" in state.faults:
            found += [("crash", i) for i, worker in enumerate(state.workers) if worker.stage]
        if "failover" in state.faults and state.before not in (None, state.data):
            found.append(("failover", 0))
        if "lose" in state.faults:
            found += [("lose", number) for number, each in state.requests.items() if each.acted and not each.lost]
        if "refuse" in state.faults:
            found += [("refuse", number) for number, each in state.requests.items() if self._refusable(number, each)]
        if state.now_ms < self._until_ms:
            found.append(("pass", 0))
        return found

    def do(self, move: tuple[str, int]) -> None:
        """Makes a move.

        Raises:
            Broken: what must hold in every state does not.
        """
        name, which = move
        getattr(self, f"_{name}")(which)
        self._check()

    def _step_of(self, worker: Worker) -> str:
        """The next move of a worker, empty if it waits."""
        if not worker.stage:
            return "claim" if self._claimable() else ""
        if worker.stage == "sent":
            request = self.state.requests[worker.request]
            return "hear" if self._answered(request) or self.state.now_ms >= request.deadline_ms else ""
        return {"held": "read", "read": "send", "answered": "mark", "marked": "settle", "fenced": "tell"}[worker.stage]

    @staticmethod
    def _absorbs(worker: Worker) -> bool:
        """Whether it could read the logs into what waits."""
        if worker.stage != "read":
            return False
        read, _ = _known(worker.read)
        return bool(read.entries or read.bulk)

    @property
    def _waited(self) -> set[int]:
        """Numbers of the requests whose answers are waited for."""
        return {worker.request for worker in self.state.workers if worker.stage == "sent"}

    def _answered(self, request: Request) -> bool:
        return (request.acted or request.refused) and not request.lost and self.state.now_ms <= request.deadline_ms

    def _refusable(self, number: int, request: Request) -> bool:
        return (
            number in self._waited
            and not request.acted
            and not request.refused
            and self.state.now_ms <= request.deadline_ms
        )

    # The world

    def _say(self, which: int) -> None:
        state = self.state
        said = state.left[which]
        state.left = state.left[:which] + state.left[which + 1 :]
        state.said = (*state.said, said)
        flat: list[str | int] = ["owner", "1", "contact", "2", "op", said.op]
        flat += ["at", START_MS - 1000 + said.at] if said.at else []
        key = KEYS.bulk(0) if said.lane == "bulk" else KEYS.events(0)
        for data in (state.data, state.before):
            if data is not None:
                self._redis.data = data
                self._redis.xadd(key, *flat)  # its producer waits for the replica

    def _act(self, number: int) -> None:
        request = self.state.requests[number]
        request.acted = True
        self.state.present = request.op == "upsert"
        self._forget_requests()

    def _lose(self, number: int) -> None:
        self._happens("lose")
        self.state.requests[number].lost = True

    def _refuse(self, number: int) -> None:
        self._happens("refuse")
        self.state.requests[number].refused = True

    def _pass(self, _: int) -> None:
        self.state.now_ms += SECOND_MS
        self._forget_requests()

    def _crash(self, which: int) -> None:
        self._happens("crash", "failover")
        self.state.workers[which] = Worker()
        self._forget_requests()

    def _failover(self, _: int) -> None:
        state = self.state
        assert state.before is not None
        state.data = state.before
        self._happens("failover", "crash")

    def _happens(self, *kinds: str) -> None:
        """These kinds of faults happen no more."""
        self.state.faults = tuple(each for each in self.state.faults if each not in kinds)
        if "failover" in kinds:
            self.state.before = None

    def _forget_requests(self) -> None:
        """A request that can act no more, and that nobody waits for, decides nothing."""
        waited = self._waited
        for number, each in list(self.state.requests.items()):
            over = each.acted or each.refused or self.state.now_ms >= each.deadline_ms + LATE_MS
            if over and number not in waited:
                del self.state.requests[number]

    # A worker

    def _round_trip(self, ops: Sequence[Op]) -> list[Any]:
        self._redis.data = self.state.data
        return self._redis.apply(self._bug.of_redis(ops, self._redis))

    def _writes(self, *, durable: bool = False) -> None:
        """Before a worker writes: the replica may lack this write, or, if it is durable, nothing."""
        if self.state.before is not None:
            self.state.before = None if durable else _rich(_plain(self.state.data))

    def _claimable(self) -> bool:
        self._redis.data = self.state.data
        if self._redis.exists(KEYS.lease(0)):
            return False
        logs = any(self._redis.xlen(key) for key in (KEYS.events(0), KEYS.bulk(0)))
        pending = any(self._redis.hlen(key) for key in KEYS.pending_classes(0))
        marks = self._redis.hash_of(KEYS.late(0)).values()
        parked = self._redis.hash_of(KEYS.parked(0)).values()
        due = [decode_mark(each).until_ms for each in marks] + [decode_parked(each).due_ms for each in parked]
        return logs or pending or any(each <= self.state.now_ms for each in due)

    def _claim(self, which: int) -> None:
        self._writes()
        (lease,) = self._partitions.claim([0])
        self._bug.after_claim(lease)
        self.state.workers[which] = Worker("held", lease)

    def _read(self, which: int) -> None:
        worker = self.state.workers[which]
        lease = worker.lease
        assert lease is not None
        worker.now_ms = self.state.now_ms
        wanted = ReadRequest(
            entries=_ROOM,
            bulk=_ROOM,
            pairs=[_ROOM] * CLASSES,
            marks=_ROOM if lease.late else 0,
            parked=lease.retries(worker.now_ms),
        )
        (read,) = self._partitions.read([lease], [wanted])
        (recalled,) = self._partitions.recall([lease], [read], [pairs_of(_prefix(read), read)])
        worker.read, worker.stage = pickle.dumps((read, self._bug.of_recalled(recalled))), "read"

    def _absorb(self, which: int) -> None:
        """The gate is closed: what was read waits in another form."""
        worker = self.state.workers[which]
        worker.stage, worker.outcome = "answered", "absorbed"

    def _send(self, which: int) -> None:
        worker, state = self.state.workers[which], self.state
        lease, part = worker.lease, self._slice(worker)
        assert lease is not None
        batch = fill([part], _ROOM)
        deadline_ms = state.now_ms + TIMEOUT_MS
        worker.stage = "answered"
        if batch.records and (lease.outlives(deadline_ms / 1000) or self._bug.sends_without_lease):
            assert batch.records == 1
            number = max(state.requests, default=0) + 1
            worker.stage, worker.request, worker.begun_ms = "sent", number, state.now_ms
            state.requests[number] = Request("upsert" if batch.upserts else "delete", deadline_ms)
            if self._bug.settles_before_answer:
                self._settle_by(worker, part, "confirmed")

    def _hear(self, which: int) -> None:
        worker = self.state.workers[which]
        request = self.state.requests[worker.request]
        confirmed = "refused" if request.refused else "confirmed"
        worker.outcome = confirmed if self._answered(request) else "retry"
        worker.stage = "answered"
        self._forget_requests()

    def _mark(self, which: int) -> None:
        """What may still act is marked before anything else is written."""
        worker = self.state.workers[which]
        part = self._slice(worker)
        late = self._settlement(worker, part, worker.outcome).late
        if worker.outcome == "retry" and not self._bug.marks_nothing:
            late = self._marks(part, worker.begun_ms + TIMEOUT_MS + LATE_MS)
        if late:
            self._writes(durable=True)
            self._partitions.mark_late([(0, late)])
        worker.stage = "marked"

    def _settle(self, which: int) -> None:
        worker = self.state.workers[which]
        result = self._settle_by(worker, self._slice(worker), worker.outcome)
        fenced = result == "fenced" and worker.request >= 0 and not self._bug.fenced_says_nothing
        if fenced:
            worker.stage = "fenced"
        else:
            self.state.workers[which] = Worker()

    def _tell(self, which: int) -> None:
        """One that was fenced tells what it sent."""
        worker = self.state.workers[which]
        self._writes(durable=True)
        self._partitions.mark_late([(0, self._marks(self._slice(worker), self.state.now_ms))])
        self.state.workers[which] = Worker()

    def _settle_by(self, worker: Worker, part: PartitionSlice, outcome: str) -> Settled:
        lease = worker.lease
        assert lease is not None
        self._writes()
        writes = self._bug.of_settlement(self._settlement(worker, part, outcome))
        (settled,) = self._partitions.settle([lease], [writes], [False])
        if settled == "settled" and writes.ledger and self._bug.clears_marks:
            self.state.data.pop(KEYS.late(0), None)
        return settled

    def _settlement(self, worker: Worker, part: PartitionSlice, outcome: str) -> Settlement:
        batch = fill([part], _ROOM)
        if outcome == "retry" or (outcome == "none" and batch.records):
            return Settlement()
        begun_ms, now_ms = worker.begun_ms or worker.now_ms, self.state.now_ms
        if outcome in {"none", "absorbed"}:
            return settlement(part, frozenset(), frozenset(), BatchResult("kept", begun_ms, now_ms))
        fate = BatchResult(outcome, begun_ms, now_ms, refusal=_UNKNOWN)  # type: ignore[arg-type] # one of the fates
        return settlement(part, batch.chosen[0], batch.repairs[0], fate)

    def _marks(self, part: PartitionSlice, until_ms: int) -> list[bytes | int]:
        part.materialize()
        batch = fill([part], _ROOM)
        flat: list[bytes | int] = []
        for pair in batch.upserts:
            flat += (pair, until_ms, 0)
        for pair in batch.deletes:
            flat += (pair, 0, until_ms)
        return flat

    def _slice(self, worker: Worker) -> PartitionSlice:
        assert worker.lease is not None
        read, recalled = _known(worker.read)
        part = assemble(worker.lease, _prefix(read), read, recalled)
        part.judge("resend", worker.now_ms)
        return part

    # What must hold

    def _check(self) -> None:
        """A pair waits in one place, and what waits can be read."""
        data = self.state.data
        classes = [data[key] for key in KEYS.pending_classes(0) if key in data]
        if sum(map(len, classes)) + (KEYS.parked(0) in data) > 1:
            raise Broken("the pair waits in two places")
        for each in classes:
            for value in each.values():
                decode_state(value)

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits, and nothing can act any more."""
        state = self.state
        self._redis.data = state.data
        busy = any(worker.stage for worker in state.workers) or state.requests or state.left
        return (
            not busy and not self._claimable() and not self._redis.exists(KEYS.late(0), KEYS.parked(0), KEYS.lease(0))
        )

    def heal(self, requests: str, healed: set[bytes]) -> None:
        """Nothing goes wrong any more, until all is at rest, and ends as it must.

        Args:
            healed: states that are known to end well; those on the way are added.
            requests: when those that are under way take effect, one of `HEALINGS`.

        Raises:
            Broken: it never comes to rest, or does not end as the contract says.
        """
        way: list[bytes] = []
        until_ms = self.state.now_ms + _REST_SECONDS * SECOND_MS
        for each in self.state.requests.values():
            each.old = not each.acted
        while not self.at_rest:
            here = digest(
                self.freeze() + (requests.encode() if any(each.old for each in self.state.requests.values()) else b"")
            )
            if here in healed:
                break
            way.append(here)
            if self.state.now_ms > until_ms:
                raise Broken("it never comes to rest")
            self.do(self._healing(requests))
        else:
            if not self._ends_right:
                raise Broken(
                    f"it ends {'present' if self.state.present else 'absent'}; requests under way act {requests}"
                )
        healed.update(way)

    def _healing(self, requests: str) -> tuple[str, int]:
        state = self.state
        waiting = [(number, each) for number, each in state.requests.items() if not each.acted and not each.refused]
        for number, each in waiting:
            if not each.old or requests == "now":
                return "act", number
        if state.left:
            return "say", 0
        for i, worker in enumerate(state.workers):
            if step := self._step_of(worker):
                return step, i
        for number, each in waiting:
            if requests == "last" and state.now_ms + SECOND_MS >= each.deadline_ms + LATE_MS:
                return "act", number
        return "pass", 0

    @property
    def _ends_right(self) -> bool:
        """Whether the contact is at the endpoint exactly if the contract says so (section 3)."""
        stamped = [each for each in self.state.said if each.at]
        if not self.state.said:
            return not self.state.present
        if len(stamped) == len(self.state.said):
            newest = max(stamped, key=lambda each: (each.at, each.op == "delete"))
            return self.state.present == (newest.op == "upsert")
        # A delete that was said last wins over whatever it may have waited with; an upsert that was said last need not.
        return self.state.said[-1].op == "upsert" or not self.state.present


@lru_cache(maxsize=4096)
def _known(read: bytes) -> tuple[ReadResult, Recalled]:
    """What a worker read; nobody changes it."""
    known: tuple[ReadResult, Recalled] = pickle.loads(read)  # noqa: S301 - from a move of this process
    return known


def digest(frozen: bytes) -> bytes:
    """A name of a state."""
    return blake2b(frozen, digest_size=16).digest()


def _seq(data: dict[str, Any]) -> int:
    return int(data.get(KEYS.partition(0), {}).get(b"seq", b"0"))


def _tokens(data: dict[str, Any]) -> set[bytes]:
    """The tokens that Redis knows."""
    partition, lease = data.get(KEYS.partition(0), {}), data.get(KEYS.lease(0))
    found = {partition.get(b"token"), partition.get(b"holder"), lease.value if lease is not None else None}
    return {each for each in found if each is not None}


def _rename(data: dict[str, Any], tokens: dict[bytes, bytes], settles: int) -> None:
    """Gives tokens other names, and counts settles from another number."""
    partition, lease = data.get(KEYS.partition(0), {}), data.get(KEYS.lease(0))
    if lease is not None:
        data[KEYS.lease(0)] = lease._replace(value=tokens[lease.value])
    for name in (b"token", b"holder"):
        if name in partition:
            partition[name] = tokens[partition[name]]
    if partition:
        partition[b"seq"] = b"%d" % (_seq(data) + settles)
    if b"rotated" in partition:
        partition[b"rotated"] = b"%d" % START_MS  # no ledger is old enough to rotate here


class _All(set[str]):
    """Redis knows every script."""

    def __contains__(self, _: object) -> bool:
        return True


def _prefix(read: ReadResult) -> Any:
    prefix = coalesce_prefix(read.entries, 0, 1, _ROOM, fast=True)
    if read.bulk:
        prefix.take(coalesce_prefix(read.bulk, 0, 1, _ROOM, fast=True, lane="bulk"))
    return prefix


def _plain(data: dict[str, Any]) -> tuple[Any, ...]:
    """Every key of a Redis, in order, in types that can be written down fast."""
    found: list[tuple[Any, ...]] = []
    for key in sorted(data):
        value = data[key]
        if type(value) is dict:
            if key == KEYS.totals(0):  # no other counter decides anything
                value = {name: number for name, number in value.items() if name == b"events"}
            found.append((key, "hash", tuple(sorted(value.items()))))
        elif type(value) is Text:
            found.append((key, "text", tuple(value)))
        else:
            entries = tuple((entry_id, tuple(flat)) for entry_id, flat in value.entries)
            found.append((key, "stream", (value.last, value.added, entries)))
    return tuple(found)


def _rich(data: tuple[Any, ...]) -> dict[str, Any]:
    """The same as the model of Redis keeps it."""
    found: dict[str, Any] = {}
    for key, kind, value in data:
        if kind == "hash":
            found[key] = dict(value)
        elif kind == "text":
            found[key] = Text(*value)
        else:
            last, added, entries = value
            found[key] = Stream.of(entries, last, added)
    return found


_LEASE: Final = tuple(each.name for each in fields(Lease))
_WORKER: Final = tuple(each.name for each in fields(Worker) if each.name != "lease")


def _fields(of: Lease | Worker | None) -> tuple[Any, ...] | None:
    if of is None:
        return None
    names = _LEASE if isinstance(of, Lease) else _WORKER
    values = (getattr(of, name) for name in names)
    return tuple(tuple(value) if type(value) is list else value for value in values)


def _worker(*values: Any) -> Worker:
    *own, lease = values
    worker = Worker(**dict(zip(_WORKER, own, strict=True)))
    if lease is not None:
        stored: list[Any] = [list(value) if type(value) is tuple else value for value in lease]
        worker.lease = Lease(*stored)
    return worker
