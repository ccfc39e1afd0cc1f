"""The partitions in Redis: claim, read, settle and release them.

Only this module reads or writes their state for a flush. Every write is one of the scripts in `lua/`.
"""

from __future__ import annotations

import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.exceptions import TryAgainError

from producers.nodes.cluster import ClusterClient
from producers.nodes.trip import NodeAwayError
from worker.core.codec import Unreadable, decode_mark, decode_parked
from worker.core.dead_letter import DEAD_CAP
from worker.core.lane import CLASSES, class_of
from worker.core.lease import ClockReading, Lease
from worker.core.read import ReadResult, Recalled
from worker.store import scripts
from worker.store.client import command, in_parts, node_of, round_trip
from worker.store.log_form import record_oldest, recorded_form
from worker.store.loss_detector import tell_of_logs
from worker.store.replies import all_checked, checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from worker.config.settings import WorkerSettings
    from worker.core.codec import Mark
    from worker.core.read import ReadRequest
    from worker.core.settlement import Settlement
    from worker.store.namespace import Namespace


_LOG = structlog.get_logger("contact_sync")

_PARKED_PAGE: Final = 500
"""Parked pairs to look at in one step for one that is due."""

FORM_SECONDS: Final = 10.0
"""How often it is asked whether older workers may still come back, as long as they may."""

_SHARED: Final = class_of("upsert", bulk=False)

Settled = Literal["settled", "fenced", "full"]
"""What became of a settle: done; refused because the lease was lost; refused because the dead letters do not fit."""

FULL_FIELD: Final = "full"
"""Field of a partition's hash: until when its logs are left alone, because its dead letters are full (Unix ms)."""

_Value = TypeVar("_Value")

_PASSED_OVER: Final = (NodeAwayError, TryAgainError)
"""Replies that concern one node or slot of a cluster, and pass."""

_AGAIN_SECONDS: Final = 0.05


class Partitions:
    """All partitions of one namespace.

    Attributes:
        namespace: where they are stored.
        one_pending: whether all pairs that wait are kept in one hash, so that older workers find them.
    """

    def __init__(  # noqa: PLR0913 - its clock and its times, by name
        self,
        namespace: Namespace,
        monotonic: Callable[[], float],
        *,
        lease_seconds: float,
        late_seconds: float,
        ledger_seconds: float,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.namespace = namespace
        self._client, self._keys, _ = namespace
        self._monotonic = monotonic
        self._wait = wait
        self._lease_seconds = lease_seconds
        self._late_ms = int(late_seconds * 1000)
        self._ledger_ms = int(ledger_seconds * 1000)
        self.one_pending = False
        self._form_read = float("-inf")

    @classmethod
    def of(
        cls,
        namespace: Namespace,
        settings: WorkerSettings,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> Self:
        """All partitions of a namespace, with the times that are configured."""
        return cls(
            namespace,
            monotonic,
            lease_seconds=settings.lease_seconds,
            late_seconds=settings.late_seconds,
            ledger_seconds=settings.ledger_seconds,
            wait=wait,
        )

    def parks(self) -> bool:
        """Whether pairs may be parked: older workers know no parked pairs, and would send a newer change past them."""
        return not self.one_pending

    def now_ms(self) -> int:
        """Redis' clock (Unix ms); in a cluster that of any node."""
        return time_ms(command(self._client, "TIME"))

    def clock_of(self, partition: int) -> int:
        """The clock of the server that has a partition, which all times in its stored state are of (Unix ms)."""
        _, time = all_checked(round_trip(self._client, [("EXISTS", self._keys.lease(partition)), ("TIME",)]))
        return time_ms(time)

    def claim(self, partitions: Sequence[int]) -> list[Lease]:
        """Takes the leases that nobody holds; passes over a partition with a key of the wrong type.

        A partition whose own fields something else wrote is left alone until the lease that was taken expires.

        Other errors of a partition are passed over as long as there are leases: raised, these would be held by nobody.

        Raises:
            redis.RedisError: none was taken, and one was refused; or it is not certain which were taken: they expire.
        """
        if self.one_pending:
            self._read_form()
        asked = self._monotonic()
        until = asked + self._lease_seconds  # taken before asking: never later than Redis' own
        args = [int(self._lease_seconds * 1000), self._late_ms]
        calls = [scripts.Call(scripts.CLAIM, self._keys_for_claim(p), args) for p in partitions]
        leases = []
        trimmed = {}
        refused: Exception | None = None
        replies = scripts.run(self._client, calls)
        answered = self._monotonic()
        for partition, reply in zip(partitions, replies, strict=True):
            if reply is None or is_wrong_type(reply) or isinstance(reply, _PASSED_OVER):
                continue
            if isinstance(reply, Exception):
                refused = reply
                continue
            token, now_ms, seq, *rest, lost = reply
            try:
                lease = Lease(partition, token, int(seq), until, *rest[:-CLASSES])
            except (TypeError, ValueError):  # a field that is not a number ends the reply; the lease expires
                error = Unreadable("a field of NAMESPACE:{P}:partition").within(partition)
                _LOG.error("state_unreadable", partition=partition, error=str(error))
                continue
            trimmed[partition] = lost
            lease.classes = list(rest[-CLASSES:])
            if isinstance(self._client, ClusterClient):
                lease.clock = ClockReading(int(now_ms), asked, answered)
            leases.append(lease)
        if refused is not None and not leases:
            raise refused
        tell_of_logs(self._client, self._keys, [each.partition for each in leases if each.replaced], trimmed)
        return leases

    def _read_form(self) -> None:
        """Finds out whether the older workers are gone for good, if it is time to."""
        now = self._monotonic()
        if now - self._form_read >= FORM_SECONDS:
            self._form_read = now
            try:
                # If Redis lost what was recorded, the older workers are there as before.
                form = recorded_form(self.namespace) or record_oldest(self.namespace)
            except NodeAwayError:
                return  # asked again later
            self.one_pending = form is None or form.one_pending

    def _keys_for_claim(self, p: int) -> list[str]:
        k = self._keys
        counted = [k.late(p), k.dead(p), k.dead_pairs(p), *k.pending_classes(p), k.parked(p)]
        return [
            k.lease(p),
            k.partition(p),
            k.events(p),
            k.bulk(p),
            *counted,
            k.ledger_new(p),
            k.ledger_old(p),
            k.totals(p),
        ]

    def read(self, leases: Sequence[Lease], requests: Sequence[ReadRequest]) -> list[ReadResult]:
        """Reads as much of each leased partition as requested, in one round trip; nothing if its lease is lost.

        Redis may lose a lease before its time. Its next holder settles what is read here, and the rest of the log alone
        may say an upsert that a delete outdates.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            Unreadable: something else wrote into a key of a partition.
        """
        commands: list[tuple[Any, ...]] = []
        for lease, request in zip(leases, requests, strict=True):
            p = lease.partition
            commands.append(("XRANGE", self._keys.events(p), b"(" + lease.position, "+", "COUNT", request.entries))
            commands.append(("TIME",))  # of the node that has the partition: no other's clock tells what is due in it
            commands.append(("EXISTS", self._keys.ledger_old(p)))
            if request.bulk:
                commands.append(("XRANGE", self._keys.bulk(p), b"(" + lease.bulk_position, "+", "COUNT", request.bulk))
            for each, key in self._classes(lease, request):
                commands.append(("HSCAN", key, lease.cursors[each], "COUNT", request.pairs[each]))
            if request.marks:
                commands.append(("HSCAN", self._keys.late(p), lease.late_cursor, "COUNT", request.marks))
            if request.parked:
                commands.append(("HSCAN", self._keys.parked(p), 0, "COUNT", _PARKED_PAGE))
            commands.append(("GET", self._keys.lease(p)))  # after all that nobody else may settle meanwhile
        replies = iter(all_checked(round_trip(self._client, commands)))
        return [self._result(lease, request, replies) for lease, request in zip(leases, requests, strict=True)]

    def _result(self, lease: Lease, request: ReadRequest, replies: Iterator[Any]) -> ReadResult:
        try:
            return self._decoded(lease, request, replies)
        except Unreadable as error:
            raise error.within(lease.partition) from None

    def _decoded(self, lease: Lease, request: ReadRequest, replies: Iterator[Any]) -> ReadResult:
        entries, now_ms, has_old_ledger = next(replies) or [], time_ms(next(replies)), bool(next(replies))
        bulk = (next(replies) or []) if request.bulk else []
        pending: dict[bytes, bytes] = {}
        classes: dict[bytes, int] = {}
        marks: dict[bytes, tuple[bytes, Mark]] = {}
        for each, key in self._classes(lease, request):
            begun, enough = lease.cursors[each], request.pairs[each]
            found, lease.cursors[each] = self._scan_on(key, begun, next(replies), enough, _as_stored)
            pending.update(found)
            classes.update(dict.fromkeys(found, each))
        if request.marks:

            def due(value: bytes) -> tuple[bytes, Mark] | None:
                mark = decode_mark(value)
                return (value, mark) if mark.until_ms <= now_ms else None

            key, begun = self._keys.late(lease.partition), lease.late_cursor
            marks, lease.late_cursor = self._scan_on(key, begun, next(replies), request.marks, due)
        parked: dict[bytes, bytes] = {}
        if request.parked:

            def tried(value: bytes) -> tuple[int, bytes] | None:
                due_ms = decode_parked(value).due_ms
                return (due_ms, value) if due_ms <= now_ms else None

            found_due, _ = self._scan_on(self._keys.parked(lease.partition), 0, next(replies), _PARKED_PAGE, tried)
            parked = {pair: value for pair, (_, value) in sorted(found_due.items(), key=itemgetter(1))[:1]}
        if next(replies) != lease.token:
            return ReadResult([], has_old_ledger, {}, {}, [], {}, {}, now_ms)
        return ReadResult(entries, has_old_ledger, pending, classes, bulk, marks, parked, now_ms)

    def _classes(self, lease: Lease, request: ReadRequest) -> list[tuple[int, str]]:
        """The classes of waiting pairs to read, with their keys."""
        keys = self._keys.pending_classes(lease.partition)
        return [(each, keys[each]) for each in range(CLASSES) if request.pairs[each]]

    def _scan_on(
        self, key: str, begun: int, reply: Any, enough: int, wanted: Callable[[bytes], _Value | None]
    ) -> tuple[dict[bytes, _Value], int]:
        """Scans a hash until enough wanted fields are found, or it was seen whole; returns them and the next cursor.

        One HSCAN looks at a number of places, not of fields: where many fields have gone it may find none.
        """
        found: dict[bytes, _Value] = {}
        whole = begun == 0
        while True:
            cursor, flat = int(reply[0]), iter(reply[1])  # field and value in turn
            for field, value in zip(flat, flat, strict=True):
                if (kept := wanted(value)) is not None:
                    found[field] = kept
            if len(found) >= enough or (cursor == 0 and whole):
                return found, cursor
            whole = whole or cursor == 0
            reply = checked(round_trip(self._client, [("HSCAN", key, cursor, "COUNT", enough)])[0])

    def recall(
        self, leases: Sequence[Lease], reads: Sequence[ReadResult], pairs: Sequence[Sequence[bytes]]
    ) -> list[Recalled]:
        """Reads what is stored about the pairs of each leased partition, in one round trip.

        Args:
            leases: the partitions' leases.
            reads: what was read of each before, which is not read again.
            pairs: the pairs of each.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        commands: list[tuple[Any, ...]] = []
        targets: list[tuple[dict[bytes, bytes], Sequence[bytes], dict[bytes, int], int | None]] = []
        results = []
        for lease, read, every in zip(leases, reads, pairs, strict=True):
            kinds: list[dict[bytes, bytes]] = [{}, {}, {}, {}, {}]
            classes: dict[bytes, int] = {}
            results.append(Recalled(kinds[0], kinds[1], classes, *kinds[2:]))
            for kind, key, some, each in self._stored_about(lease, read, every):
                for words in in_parts(("HMGET", key), some):
                    commands.append(words)
                    targets.append((kinds[kind], words[2:], classes, each))
        for (target, some, classes, each), values in zip(
            targets, all_checked(round_trip(self._client, commands)), strict=True
        ):
            unknown = values.count(None)
            if unknown == len(values):
                continue  # all are new, and nothing is stored about them
            found = dict(zip(some, values, strict=True))
            if unknown:
                found = {pair: value for pair, value in found.items() if value is not None}
            target.update(found)
            if each is not None:
                classes.update(dict.fromkeys(found, each))
        return results

    def _stored_about(
        self, lease: Lease, read: ReadResult, every: Sequence[bytes]
    ) -> Iterator[tuple[int, str, Sequence[bytes], int | None]]:
        """For each hash to ask: what it fills, its key, the pairs, and the class of pairs that wait in it."""
        p, k = lease.partition, self._keys
        # The older ledger goes first, so that the newer one has the last word.
        if read.has_old_ledger:
            yield 0, k.ledger_old(p), every, None
        yield 0, k.ledger_new(p), every, None
        if lease.pending:
            unread = [pair for pair in every if pair not in read.pending]
            for each, key in enumerate(k.pending_classes(p)):
                if lease.classes[each]:
                    yield 1, key, unread, each
        if lease.late:
            yield 2, k.late(p), [pair for pair in every if pair not in read.marks], None
        if lease.dead_pairs:
            yield 3, k.dead_pairs(p), every, None
        if lease.parked:
            yield 4, k.parked(p), [pair for pair in every if pair not in read.parked], None

    def mark_late(self, marks: Sequence[tuple[int, Sequence[bytes | int]]]) -> None:
        """Marks pairs that an unanswered request may still change. This needs no lease.

        Args:
            marks: partitions, each with pair, upsert_until_ms and delete_until_ms in turn (Unix ms; 0 for no request).

        Raises:
            redis.RedisError: it is not certain that they are marked.
        """
        calls = [
            scripts.Call(scripts.MARK_LATE, [self._keys.late(p), self._keys.partition(p), self._keys.events(p)], flat)
            for p, flat in marks
            if flat
        ]
        if calls:
            replies = scripts.run(self._client, calls)
            all_checked(self._run_moving(calls, replies, self._monotonic() + self._lease_seconds))

    def release(self, leases: Sequence[Lease]) -> None:
        """Releases those leases that are still held; nothing else of their partitions changes.

        Raises:
            redis.RedisError: it is not certain that they were released; they expire.
        """
        calls = [
            scripts.Call(
                scripts.RELEASE, [self._keys.lease(each.partition), self._keys.partition(each.partition)], [each.token]
            )
            for each in leases
        ]
        if calls:  # a lease whose node is away, or whose slot is on its way, expires
            all_checked([each for each in self._run_again(calls) if not isinstance(each, _PASSED_OVER)])

    def settle(
        self,
        leases: Sequence[Lease],
        settlements: Sequence[Settlement],
        keep: Sequence[bool],
        along: Sequence[scripts.Call] = (),
    ) -> list[Settled]:
        """Settles each partition, all of its writes or none, and renews or releases its lease in the same step.

        Args:
            leases: the partitions' leases; they are updated.
            settlements: the writes of each.
            keep: for each whether the lease is renewed; otherwise it is released.
            along: scripts to run in the same round trip; running one a second time must not matter.

        Raises:
            redis.RedisError: it is not certain what was settled; the leases must be left to expire.
        """
        until = self._monotonic() + self._lease_seconds
        calls = [
            self._settle_call(lease, each, keep=renew)
            for lease, each, renew in zip(leases, settlements, keep, strict=True)
        ]
        replies = self._run_again([*calls, *along], min((lease.until for lease in leases), default=0.0))
        # What frees a place at the gate expires by itself, should the gate's node be away.
        all_checked([reply for reply in replies[len(calls) :] if not isinstance(reply, NodeAwayError)])
        settled = zip(leases, settlements, replies[: len(calls)], strict=True)
        return [_settled(lease, each, reply, until) for lease, each, reply in settled]

    def leave_alone(self, partition: int, until_ms: int) -> scripts.Call:
        """Notes that the logs of a partition whose dead letters are full are left alone until then (Unix ms).

        This holds while the letters are full. To be run along with a settle.
        """
        return scripts.Call(scripts.NOTE, [self._keys.partition(partition)], [FULL_FIELD, until_ms])

    def _run_again(self, calls: Sequence[scripts.Call], until: float = 0.0) -> list[Any]:
        """Runs scripts that do nothing when they run a second time; once more if the connection failed.

        Args:
            calls: the scripts.
            until: until when those whose slot is on its way to another node are run again (monotonic, seconds).
        """
        try:
            replies = scripts.run(self._client, calls)
        except (RedisConnectionError, RedisTimeoutError):
            # Only the reply may have been lost. A second settle is known by its seq, a second release by its token.
            replies = scripts.run(self._client, calls)
        self._run_some(calls, replies, [i for i, each in enumerate(replies) if _is_unanswered(each)])
        return self._run_moving(calls, replies, until)

    def _run_moving(self, calls: Sequence[scripts.Call], replies: list[Any], until: float) -> list[Any]:
        """Runs those again whose slot is on its way: it has done nothing yet."""
        while (
            moving := [i for i, reply in enumerate(replies) if isinstance(reply, TryAgainError)]
        ) and self._monotonic() < until:
            self._wait(_AGAIN_SECONDS)
            self._run_some(calls, replies, moving)
        return replies

    def _run_some(self, calls: Sequence[scripts.Call], replies: list[Any], some: Sequence[int]) -> None:
        if some:
            for i, reply in zip(some, scripts.run(self._client, [calls[i] for i in some]), strict=True):
                replies[i] = reply

    def node_of(self, partition: int) -> object:
        """Which node of a cluster serves a partition; None for all partitions if there is one server."""
        return node_of(self._client, partition)

    def _settle_call(self, lease: Lease, each: Settlement, *, keep: bool) -> scripts.Call:
        p, k = lease.partition, self._keys
        keys = [k.lease(p), k.partition(p), k.events(p), k.bulk(p), k.ledger_new(p), k.ledger_old(p)]
        keys += [k.late(p), k.dead(p), k.dead_pairs(p), k.totals(p), *k.pending_classes(p), k.parked(p)]
        totals = [item for name, number in each.totals.items() if number for item in (name, number)]
        renew_ms = int(self._lease_seconds * 1000) if keep else 0
        head = [lease.token, lease.seq, renew_ms, each.position, self._ledger_ms, DEAD_CAP, each.bulk_position]
        kept, dropped = _in_one_hash(each) if self.one_pending else (each.keep, each.drop)
        counts = [len(each.ledger) // 2, *(len(some) // 2 for some in kept), *map(len, dropped)]
        counts += [len(each.clear) // 2, len(each.letters) // 3, len(each.know) // 2, len(totals) // 2]
        counts += [len(each.park) // 2, len(each.unpark), len(each.forget)]
        waits = [item for some in (*kept, *dropped) for item in some]
        items = [*each.ledger, *waits, *each.clear, *each.letters, *each.know, *totals]
        items += [*each.park, *each.unpark, *each.forget]
        return scripts.Call(scripts.SETTLE, keys, [*head, *counts, *items])


def _in_one_hash(settlement: Settlement) -> tuple[list[list[bytes]], list[list[bytes]]]:
    """What to keep and to drop in the hash of each class if all pairs that wait are kept in that of live upserts.

    A pair may still wait in another one: if older workers were thought to be gone before.
    """
    keep: list[list[bytes]] = [[] for _ in range(CLASSES)]
    keep[_SHARED] = [item for some in settlement.keep for item in some]
    drop = [some + kept[::2] for some, kept in zip(settlement.drop, settlement.keep, strict=True)]
    drop[_SHARED] = settlement.drop[_SHARED]  # what is dropped here and kept is written after that
    return keep, drop


def _as_stored(value: bytes) -> bytes:
    return value


def _is_unanswered(reply: object) -> bool:
    return isinstance(reply, NodeAwayError) and reply.written


def _settled(lease: Lease, each: Settlement, reply: Any, until: float) -> Settled:
    what = checked(reply)[0]
    if what != b"settled":
        return "full" if what == b"full" else "fenced"
    lease.seq += 1
    lease.until = until
    lease.position = each.position or lease.position
    lease.bulk_position = each.bulk_position or lease.bulk_position
    lease.waiting, lease.bulk_waiting, lease.late, lease.late_due_ms, lease.dead, lease.dead_pairs = reply[1:7]
    lease.parked, lease.parked_due_ms = reply[7:9]
    lease.classes = list(reply[9:])
    return "settled"
