"""Workers of one namespace against a real Redis and the real stand-in, and what lies in Redis afterwards."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import orjson
import redis

from producers import ContactProducer
from producers.contract.change import partition_of
from producers.contract.keys import PAIR_SEPARATOR, Keys
from producers.nodes.connect import cluster_client, is_cluster, pool_options
from producers.nodes.trip import NodeAwayError
from producers.settings import variable_of
from tests.support.waiting import wait_until
from worker.admin.status import TOTALS
from worker.config.settings import WorkerSettings
from worker.core.codec import decode_mark, decode_remembered, decode_state
from worker.core.lane import CLASSES
from worker.process import runtime
from worker.standin.settings import DEFAULT_KEY
from worker.store import scripts
from worker.store.namespace import Namespace
from worker.store.replies import time_ms

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from producers.contract.change import Lane
    from worker.core.codec import Mark
    from worker.core.pair import PairState, Remembered
    from worker.delivery.flush import Flusher
    from worker.process.runtime import Runtime
    from worker.standin.client import StandInClient

T = 1_795_460_000_000
"""A moment that changes carry as their `at`: in the past of every entry that a test appends."""

PARTITIONS = 8
"""Few, so that a look at all of them is cheap, and more than one."""

QUICK: dict[str, Any] = {
    "partitions": PARTITIONS,
    "server_key_id": DEFAULT_KEY,
    "server_key_secret": DEFAULT_KEY,
    "linger_seconds": 0.0,
    "request_timeout_seconds": 2.0,
    "lease_seconds": 3.0,
    "late_seconds": 0.3,
    "backoff_base_seconds": 0.02,
    "backoff_max_seconds": 0.1,
}
"""Settings under which every wait is over soon."""

ONCE_SECONDS = 0.0005
"""A budget that a round with a request in it always spends: so there is one, whatever is left."""


def run_once(flusher: Flusher) -> int:
    """Works one round, as soon as something is due, and returns 1: one request at most.

    A budget that allows no second round may be over before the first, where a thread is held up as it begins.
    """
    rounds = [0]

    def works() -> int:
        rounds.append(flusher.run(ONCE_SECONDS))
        return rounds[-1]

    wait_until(works, what="something is due")
    return rounds[-1]


class Fleet:
    """One namespace: its log, its state, and workers in this process.

    Args:
        redis_url: the real Redis.
        namespace: key prefix.
        stand_in: the endpoint that its workers deliver to.
        overrides: settings that differ from `QUICK`.
    """

    def __init__(self, redis_url: str, namespace: str, stand_in: StandInClient, **overrides: Any) -> None:
        self.stand_in = stand_in
        self.keys = Keys(namespace)
        self._given = {**QUICK, "redis_url": redis_url, "namespace": namespace, "endpoint_url": stand_in.url}
        self._given |= overrides
        self._open = ExitStack()
        if is_cluster(redis_url):
            client: Any = cluster_client(redis_url, socket_timeout=10, protocol=2)
        else:
            pool = redis.ConnectionPool(**pool_options(redis_url, socket_timeout=10, protocol=2))
            client = redis.Redis.from_pool(pool)
        self.client = self._open.enter_context(client)
        self.namespace = Namespace(self.client, self.keys, PARTITIONS)
        self._first: Runtime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def change(self, **overrides: Any) -> None:
        """Other settings, for every worker built from now on."""
        self._given |= overrides
        self._first = None

    def settings(self, **overrides: Any) -> WorkerSettings:
        return WorkerSettings(**(self._given | overrides))

    def environment(self, **overrides: Any) -> dict[str, str]:
        """The same settings as a worker process is given them."""
        return {variable_of(name): str(value) for name, value in (self._given | overrides).items() if value is not None}

    # Workers and producers

    def worker(self, **overrides: Any) -> Runtime:
        """One more worker, as a process of its own would build it."""
        built = runtime.build(self.settings(**overrides))
        self._open.callback(built.close)
        return built

    @property
    def first(self) -> Runtime:
        """The worker of tests that need but one."""
        if self._first is None:
            self._first = self.worker()
        return self._first

    def flush(self, seconds: float = 5.0) -> int:
        """Works while something is due; returns how many rounds that took."""
        return self.first.flusher.run(seconds)

    def flush_once(self) -> None:
        """Works one round, as soon as something is due: one request at most."""
        run_once(self.first.flusher)

    def deliver(self, *workers: Runtime, seconds: float = 20.0) -> None:
        """Works until nothing waits, as the fleet does however long that takes."""

        def done() -> bool:
            for worker in workers or (self.first,):
                worker.flusher.run(1.0)
            return not self.waits()

        wait_until(done, seconds=seconds, what="nothing waits in log, pending or late")

    def absorb(self, *changes: tuple[str, str, str, int, Lane], worker: Runtime | None = None) -> None:
        """Lets a worker read these while deliveries are paused: they wait, each in its class."""
        flusher = (worker or self.first).flusher
        self.client.hset(self.keys.gate, "paused", self.now_ms())
        for i, (owner, contact, op, at, lane) in enumerate(changes):
            old = f"{self.now_ms() - 60_000}-{i}"  # so old that it is read while nothing may be sent
            self.append(owner, contact, op, at, entry=old, lane=lane)
        wait_until(lambda: (flusher.run(0.2), not self.backlog())[1], what="the logs were read")
        self.client.hdel(self.keys.gate, "paused")

    def producer(self) -> ContactProducer:
        return self._open.enter_context(ContactProducer(settings=self.settings()))

    # The log

    def append(  # noqa: PLR0913 - a change as it is written down
        self, owner: str, contact: str, op: str, at: int | None = None, *, entry: str = "*", lane: Lane = "live"
    ) -> str:
        """One entry as any language would append it; `at` is left out unless given."""
        fields = {"owner": owner, "contact": contact, "op": op} | ({} if at is None else {"at": str(at)})
        return self.append_raw(self.partition(owner), fields, entry=entry, lane=lane)

    def append_raw(self, partition: int, fields: dict[Any, Any], *, entry: str = "*", lane: Lane = "live") -> str:
        """An entry of whatever fields, in whatever partition."""
        log = self.keys.bulk(partition) if lane == "bulk" else self.keys.events(partition)
        reply: Any = self.client.xadd(log, fields, id=entry)
        return bytes(reply).decode()

    def append_many(self, changes: Iterable[tuple[str, str, str, int | None]], *, lane: Lane = "live") -> None:
        """Many entries at once, in order: nobody sees some of them without the others."""
        pipe = self.client.pipeline(transaction=True)
        for owner, contact, op, at in changes:
            fields = {"owner": owner, "contact": contact, "op": op} | ({} if at is None else {"at": str(at)})
            log = self.keys.bulk if lane == "bulk" else self.keys.events
            pipe.xadd(log(self.partition(owner)), dict(fields))
        pipe.execute()

    def mark_late(self, partition: int, pair: bytes, upsert_until_ms: int, delete_until_ms: int) -> None:
        """Notes that a request may still act on a pair, as a worker does that got no answer."""
        keys = [self.keys.late(partition), self.keys.partition(partition), self.keys.events(partition)]
        call = scripts.Call(scripts.MARK_LATE, keys, [pair, upsert_until_ms, delete_until_ms])
        assert scripts.run(self.client, [call]) == [1]

    def partition(self, owner: str) -> int:
        return partition_of(owner, int(self._given["partitions"]))

    def now_ms(self) -> int:
        """Redis' clock, in Unix milliseconds."""
        reply: Any = self.client.time()
        return time_ms(reply)

    # What lies in Redis

    @property
    def _partitions(self) -> range:
        return range(int(self._given["partitions"]))

    def backlog(self) -> int:
        """How many entries the logs hold."""
        return sum(self.client.xlen(log(p)) for p in self._partitions for log in (self.keys.events, self.keys.bulk))

    def pending(self) -> dict[tuple[str, str], PairState]:
        """The pairs that were read and are not confirmed."""
        return {pair: decode_state(value) for each in self.classes() for pair, value in each.items()}

    def classes(self) -> list[dict[tuple[str, str], bytes]]:
        """The same by class, as stored, in the order of `worker.core.lane`."""
        return [self._pairs(lambda p, each=each: self.keys.pending_classes(p)[each]) for each in range(CLASSES)]

    def marks(self) -> dict[tuple[str, str], Mark]:
        """The late marks."""
        return {pair: decode_mark(value) for pair, value in self._pairs(self.keys.late).items()}

    def remembered(self) -> dict[tuple[str, str], Remembered]:
        """What both ledgers remember, the newer one with the last word."""
        every = self._pairs(self.keys.ledger_old) | self._pairs(self.keys.ledger_new)
        return {pair: decode_remembered(value) for pair, value in every.items()}

    def leases(self) -> list[int]:
        """The partitions that somebody holds."""
        return [p for p in self._partitions if self.client.exists(self.keys.lease(p))]

    def holders(self) -> list[int]:
        """The partitions that somebody has in hand, or had and did not give back."""
        return [p for p in self._partitions if self.client.hexists(self.keys.partition(p), "holder")]

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters, the first of each partition first."""
        found: list[dict[str, Any]] = []
        for p in self._partitions:
            letters: Any = self.client.hgetall(self.keys.dead(p))
            ids = sorted(letters, key=lambda each: int(each.rpartition(b"-")[2]))
            found += [{"id": each.decode(), **orjson.loads(letters[each])} for each in ids]
        return found

    def totals(self) -> dict[str, int]:
        """The counters of all partitions together (contract.md, section 6); one that never moved is missing."""
        summed: dict[str, int] = {}
        for p in self._partitions:
            counted: Any = self.client.hgetall(self.keys.totals(p))
            for name, number in counted.items():
                summed[name.decode()] = summed.get(name.decode(), 0) + int(number)
        return {name: number for name, number in summed.items() if name in TOTALS}

    def waits(self) -> bool:
        """Whether anything is left to do: entries, pending pairs, or late marks to be judged.

        It may be so too where a node of a cluster does not answer, as one that joins again: nobody knows.
        """
        try:
            return bool(self.backlog() or self.pending() or self._pairs(self.keys.late))
        except NodeAwayError:
            return True

    def _pairs(self, key_of: Any) -> dict[tuple[str, str], bytes]:
        found: dict[tuple[str, str], bytes] = {}
        for p in self._partitions:
            stored: Any = self.client.hgetall(key_of(p))
            for pair, value in stored.items():
                owner, _, contact = pair.decode().partition(PAIR_SEPARATOR.decode())
                found[owner, contact] = value
        return found

    # What the endpoint saw

    def applied(self) -> list[tuple[int, str, str, str]]:
        """What took effect, in order: number of the request, owner, contact, op."""
        return [(each["request"], each["owner"], each["contact"], each["op"]) for each in self.stand_in.applied()]

    def requests(self) -> list[list[tuple[str, str, str]]]:
        """The records of each request that came in whole, whatever became of it."""
        return [
            [(each["owner"], each["contact"], each["op"]) for each in request["records"]]
            for request in self.stand_in.requests()
        ]
