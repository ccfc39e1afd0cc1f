"""The partitions in Redis: claim, read, settle and release them.

Only this module reads or writes their state for a flush. Every write is one of the scripts in `lua/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.core.codec import decode_mark
from worker.core.dead_letter import DEAD_CAP
from worker.core.lease import Lease
from worker.core.read import ReadResult, Recalled
from worker.store import scripts
from worker.store.client import command, round_trip
from worker.store.loss_detector import log_trimmed
from worker.store.replies import all_checked, checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from worker.core.codec import Mark
    from worker.core.read import ReadRequest
    from worker.core.settlement import Settlement
    from worker.store.namespace import Namespace

_LOG = structlog.get_logger("contact_sync")

Settled = Literal["settled", "fenced", "full"]
"""What became of a settle: done; refused because the lease was lost; refused because the dead letters do not fit."""

_Value = TypeVar("_Value")


class Partitions:
    """All partitions of one namespace.

    Attributes:
        namespace: where they are stored.
    """

    def __init__(
        self,
        namespace: Namespace,
        monotonic: Callable[[], float],
        *,
        lease_seconds: float,
        late_seconds: float,
        ledger_seconds: float,
    ) -> None:
        self.namespace = namespace
        self._client, self._keys, _ = namespace
        self._monotonic = monotonic
        self._lease_seconds = lease_seconds
        self._late_ms = int(late_seconds * 1000)
        self._ledger_ms = int(ledger_seconds * 1000)

    def now_ms(self) -> int:
        """Redis' clock, which all times in the stored state are of (Unix ms)."""
        return time_ms(command(self._client, "TIME"))

    def claim(self, partitions: Sequence[int]) -> list[Lease]:
        """Takes the leases that nobody holds; passes over a partition with a key of the wrong type.

        Raises:
            redis.RedisError: it is not certain which leases were taken; they expire.
        """
        until = self._monotonic() + self._lease_seconds  # taken before asking: never later than Redis' own
        args = [int(self._lease_seconds * 1000), self._late_ms]
        calls = [scripts.Call(scripts.CLAIM, self._keys_for_claim(p), args) for p in partitions]
        leases = []
        trimmed = {}
        for partition, reply in zip(partitions, scripts.run(self._client, calls), strict=True):
            if reply is None or is_wrong_type(reply):
                continue
            token, _now, seq, position, *rest, trimmed[partition] = checked(reply)
            leases.append(lease := Lease(partition, token, int(seq), until, position, *rest))
            if lease.replaced:
                _LOG.error("log_replaced", partition=partition, reads="from the start of the log that is there")
        log_trimmed(trimmed)
        return leases

    def _keys_for_claim(self, p: int) -> list[str]:
        k = self._keys
        counted = [k.pending(p), k.late(p), k.dead(p), k.dead_pairs(p)]
        return [k.lease(p), k.partition(p), k.events(p), *counted, k.ledger_new(p), k.ledger_old(p), k.totals(p)]

    def read(self, leases: Sequence[Lease], requests: Sequence[ReadRequest]) -> list[ReadResult]:
        """Reads as much of each leased partition as requested, in one round trip.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        commands: list[tuple[Any, ...]] = []
        for lease, request in zip(leases, requests, strict=True):
            p = lease.partition
            commands.append(("XRANGE", self._keys.events(p), b"(" + lease.position, "+", "COUNT", request.entries))
            commands.append(("EXISTS", self._keys.ledger_old(p)))
            if request.pairs:
                commands.append(("HSCAN", self._keys.pending(p), lease.pending_cursor, "COUNT", request.pairs))
            if request.marks:
                commands.append(("HSCAN", self._keys.late(p), lease.late_cursor, "COUNT", request.marks))
        replies = iter(all_checked(round_trip(self._client, commands)))
        return [self._result(lease, request, replies) for lease, request in zip(leases, requests, strict=True)]

    def _result(self, lease: Lease, request: ReadRequest, replies: Iterator[Any]) -> ReadResult:
        entries, has_old_ledger = next(replies) or [], bool(next(replies))
        pending: dict[bytes, bytes] = {}
        marks: dict[bytes, tuple[bytes, Mark]] = {}
        if request.pairs:
            key, begun = self._keys.pending(lease.partition), lease.pending_cursor
            pending, lease.pending_cursor = self._scan_on(key, begun, next(replies), request.pairs, _as_stored)
        if request.marks:

            def due(value: bytes) -> tuple[bytes, Mark] | None:
                mark = decode_mark(value)
                return (value, mark) if mark.until_ms <= request.now_ms else None

            key, begun = self._keys.late(lease.partition), lease.late_cursor
            marks, lease.late_cursor = self._scan_on(key, begun, next(replies), request.marks, due)
        return ReadResult(entries, has_old_ledger, pending, marks)

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
        targets: list[tuple[dict[bytes, bytes], Sequence[bytes]]] = []
        results = []
        for lease, read, every in zip(leases, reads, pairs, strict=True):
            kinds: list[dict[bytes, bytes]] = [{}, {}, {}, {}]
            results.append(Recalled(*kinds))
            for kind, key, some in self._stored_about(lease, read, every):
                if some:
                    commands.append(("HMGET", key, *some))
                    targets.append((kinds[kind], some))
        for (target, some), values in zip(targets, all_checked(round_trip(self._client, commands)), strict=True):
            unknown = values.count(None)
            if not unknown:
                target.update(zip(some, values, strict=True))
            elif unknown < len(values):  # otherwise all are new, and nothing is stored about them
                target.update((pair, value) for pair, value in zip(some, values, strict=True) if value is not None)
        return results

    def _stored_about(
        self, lease: Lease, read: ReadResult, every: Sequence[bytes]
    ) -> Iterator[tuple[int, str, Sequence[bytes]]]:
        """For each hash to ask: the field of `Recalled` that it fills, its key, and the pairs."""
        p, k = lease.partition, self._keys
        # The older ledger goes first, so that the newer one has the last word.
        if read.has_old_ledger:
            yield 0, k.ledger_old(p), every
        yield 0, k.ledger_new(p), every
        if lease.pending:
            yield 1, k.pending(p), [pair for pair in every if pair not in read.pending]
        if lease.late:
            yield 2, k.late(p), [pair for pair in every if pair not in read.marks]
        if lease.dead_pairs:
            yield 3, k.dead_pairs(p), every

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
            all_checked(scripts.run(self._client, calls))

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
        if calls:
            all_checked(self._run_again(calls))

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
        replies = self._run_again([*calls, *along])
        all_checked(replies[len(calls) :])
        settled = zip(leases, settlements, replies[: len(calls)], strict=True)
        return [_settled(lease, each, reply, until) for lease, each, reply in settled]

    def _run_again(self, calls: Sequence[scripts.Call]) -> list[Any]:
        """Runs scripts that do nothing when they run a second time; once more if the connection failed."""
        try:
            return scripts.run(self._client, calls)
        except (RedisConnectionError, RedisTimeoutError):
            # Only the reply may have been lost. A second settle is known by its seq, a second release by its token.
            return scripts.run(self._client, calls)

    def _settle_call(self, lease: Lease, each: Settlement, *, keep: bool) -> scripts.Call:
        p, k = lease.partition, self._keys
        keys = [k.lease(p), k.partition(p), k.events(p), k.pending(p), k.ledger_new(p), k.ledger_old(p)]
        keys += [k.late(p), k.dead(p), k.dead_pairs(p), k.totals(p)]
        totals = [item for name, number in each.totals.items() if number for item in (name, number)]
        renew_ms = int(self._lease_seconds * 1000) if keep else 0
        head = [lease.token, lease.seq, renew_ms, each.position, self._ledger_ms, DEAD_CAP]
        counts = [len(each.ledger) // 2, len(each.keep) // 2, len(each.drop), len(each.clear) // 2]
        counts += [len(each.letters) // 3, len(each.know) // 2, len(totals) // 2]
        items = [*each.ledger, *each.keep, *each.drop, *each.clear, *each.letters, *each.know, *totals]
        return scripts.Call(scripts.SETTLE, keys, [*head, *counts, *items])


def _as_stored(value: bytes) -> bytes:
    return value


def _settled(lease: Lease, each: Settlement, reply: Any, until: float) -> Settled:
    what = checked(reply)[0]
    if what != b"settled":
        return "full" if what == b"full" else "fenced"
    lease.seq += 1
    lease.until = until
    lease.position = each.position or lease.position
    lease.waiting, lease.pending, lease.late, lease.late_due_ms, lease.dead, lease.dead_pairs = reply[1:]
    return "settled"
