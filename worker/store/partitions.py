"""The partitions in Redis: who works on them, what they hold, and how they move forward.

The only module that reads or writes their state; everything that moves goes through the scripts in `lua/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.core.codec import decode_dead_pair, decode_mark, decode_remembered, decode_state
from worker.core.dead_letter import DEAD_CAP
from worker.core.lease import Lease
from worker.core.slice import LogPrefix, PartitionSlice, RawEntry
from worker.store import scripts
from worker.store.client import round_trip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from worker.core.settlement import Settlement
    from worker.store.namespace import Namespace

_LOG = structlog.get_logger("contact_sync")

Settled = Literal["settled", "fenced", "full"]


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """How much of a leased partition to read: entries of its log, pairs that wait, late marks due at a time (ms)."""

    entries: int
    pairs: int
    marks: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What was read first: the log as it stands, whether there is an older ledger, and of what waits as asked."""

    raw: RawEntry
    older: bool
    pending: dict[bytes, bytes]
    marks: dict[bytes, bytes]


class Partitions:
    """All partitions of one namespace.

    Attributes:
        namespace: where they lie.
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
        """Redis' clock, which all times in its state are of (Unix ms)."""
        reply: Any = self._client.time()
        return int(reply[0]) * 1000 + int(reply[1]) // 1000

    def claim(self, partitions: Sequence[int]) -> list[Lease]:
        """Takes the leases of those that nobody holds; one whose keys are of strange types is passed over."""
        until = self._monotonic() + self._lease_seconds  # taken before asking: never later than Redis' own
        args = [int(self._lease_seconds * 1000), self._late_ms]
        calls = [scripts.Call(scripts.CLAIM, self._keys_for_claim(p), args) for p in partitions]
        leases = []
        for partition, reply in zip(partitions, scripts.run(self._client, calls), strict=True):
            if reply is None or _is_wrong_type(reply):
                continue
            if isinstance(reply, Exception):
                raise reply
            token, _now, seq, position, *rest = reply
            leases.append(lease := Lease(partition, token, int(seq), until, position, *rest))
            if lease.replaced:
                _LOG.error("log_replaced", partition=partition, reads="from the start of the log that is there")
        return leases

    def _keys_for_claim(self, p: int) -> list[str]:
        k = self._keys
        counted = [k.pending(p), k.late(p), k.dead(p), k.dead_pairs(p)]
        return [k.lease(p), k.partition(p), k.events(p), *counted, k.ledger_new(p), k.ledger_old(p), k.totals(p)]

    def read(self, leases: Sequence[Lease], asked: Sequence[ReadRequest]) -> list[ReadResult]:
        """What each leased partition holds, as far as asked, in one round trip."""
        commands: list[tuple[Any, ...]] = []
        for lease, want in zip(leases, asked, strict=True):
            p = lease.partition
            commands.append(("XRANGE", self._keys.events(p), b"(" + lease.position, "+", "COUNT", want.entries))
            commands.append(("EXISTS", self._keys.ledger_old(p)))
            if want.pairs:
                commands.append(("HSCAN", self._keys.pending(p), lease.pending_cursor, "COUNT", want.pairs))
            if want.marks:
                commands.append(("HSCAN", self._keys.late(p), lease.late_cursor, "COUNT", want.marks))
        replies = iter(_answered(round_trip(self._client, commands)))
        return [self._read_on(lease, want, replies) for lease, want in zip(leases, asked, strict=True)]

    def _read_on(self, lease: Lease, want: ReadRequest, replies: Iterator[Any]) -> ReadResult:
        raw, older = next(replies) or [], bool(next(replies))
        pending: dict[bytes, bytes] = {}
        marks: dict[bytes, bytes] = {}
        if want.pairs:
            key = self._keys.pending(lease.partition)
            pending, lease.pending_cursor = self._scan_on(key, lease.pending_cursor, next(replies), want.pairs, _any)
        if want.marks:

            def due(value: bytes) -> bool:
                return decode_mark(value).until_ms <= want.now_ms

            key = self._keys.late(lease.partition)
            marks, lease.late_cursor = self._scan_on(key, lease.late_cursor, next(replies), want.marks, due)
        return ReadResult(raw, older, pending, marks)

    def _scan_on(
        self, key: str, begun: int, reply: Any, want: int, wanted: Callable[[bytes], bool]
    ) -> tuple[dict[bytes, bytes], int]:
        """Fields of a hash until enough are found or all were looked at; and the cursor to go on from.

        One HSCAN looks at a number of places, not of fields: where many fields have gone it may find none at all.
        """
        found: dict[bytes, bytes] = {}
        whole = begun == 0
        while True:
            cursor, fields = int(reply[0]), iter(reply[1])  # field and value in turn
            found |= {field: value for field, value in zip(fields, fields, strict=True) if wanted(value)}
            if len(found) >= want or (cursor == 0 and whole):
                return found, cursor
            whole = whole or cursor == 0
            reply = _answered(round_trip(self._client, [("HSCAN", key, cursor, "COUNT", want)]))[0]

    def recall(
        self, leases: Sequence[Lease], logs: Sequence[LogPrefix], reads: Sequence[ReadResult]
    ) -> list[PartitionSlice]:
        """Each partition's stretch with what is kept of its pairs: states that wait, ledger, marks, dead letters."""
        commands: list[tuple[Any, ...]] = []
        wanted: list[tuple[PartitionSlice, str, list[bytes]]] = []
        slices = []
        for lease, log, read in zip(leases, logs, reads, strict=True):
            part = PartitionSlice(lease.partition, log, late_until_ms=lease.late_until_ms, late_to_ms=lease.late_to_ms)
            part.pending = {pair: decode_state(value) for pair, value in read.pending.items()}
            part.marks = {pair: (value, decode_mark(value)) for pair, value in read.marks.items()}
            slices.append(part)
            for kind, key, pairs in self._recalled(lease, log, part, older=read.older):
                if pairs:
                    commands.append(("HMGET", key, *pairs))
                    wanted.append((part, kind, pairs))
        for (part, kind, pairs), values in zip(wanted, _answered(round_trip(self._client, commands)), strict=True):
            if values.count(None) == len(values):
                continue  # nearly always, where most pairs are new
            _remember(part, kind, zip(pairs, values, strict=True))
        return slices

    def _recalled(
        self, lease: Lease, log: LogPrefix, part: PartitionSlice, *, older: bool
    ) -> Iterable[tuple[str, str, list[bytes]]]:
        p, k = lease.partition, self._keys
        every = [*log.plain, *{**log.states, **part.pending, **part.marks}]
        # The older ledger goes first, so that the newer one has the last word.
        if older:
            yield "ledger", k.ledger_old(p), every
        yield "ledger", k.ledger_new(p), every
        if lease.pending:
            yield "pending", k.pending(p), [pair for pair in every if pair not in part.pending]
        if lease.late:
            yield "marks", k.late(p), [pair for pair in every if pair not in part.marks]
        if lease.dead_pairs:
            yield "dead_pairs", k.dead_pairs(p), every

    def mark_late(self, marks: Sequence[tuple[int, Sequence[bytes | int]]]) -> None:
        """Notes pairs on which a request may still act: partition, then pair and both times in turn. No lease needed.

        Raises:
            redis.RedisError: it is not certain that they are noted.
        """
        calls = [
            scripts.Call(scripts.MARK_LATE, [self._keys.late(p), self._keys.partition(p), self._keys.events(p)], flat)
            for p, flat in marks
            if flat
        ]
        for reply in scripts.run(self._client, calls) if calls else ():
            if isinstance(reply, Exception):
                raise reply

    def settle(self, leases: Sequence[Lease], settlements: Sequence[Settlement], keep: Sequence[bool]) -> list[Settled]:
        """Moves each partition forward, all of its writes or none; the leases are renewed or released with it.

        Args:
            leases: the partitions' leases; what they know is brought up to date.
            settlements: their writes.
            keep: for each lease whether it is renewed; else it is released.

        Raises:
            redis.RedisError: it is not certain what happened; the leases must be left to expire.
        """
        until = self._monotonic() + self._lease_seconds
        calls = [
            self._settle_call(lease, each, keep=renew)
            for lease, each, renew in zip(leases, settlements, keep, strict=True)
        ]
        try:
            replies = scripts.run(self._client, calls)
        except (RedisConnectionError, RedisTimeoutError):
            # The reply was lost, not necessarily the settle: asked once more, its seq tells whether it happened.
            replies = scripts.run(self._client, calls)
        return [
            _settled(lease, each, reply, until) for lease, each, reply in zip(leases, settlements, replies, strict=True)
        ]

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


def _answered(replies: list[Any]) -> list[Any]:
    """The replies, if no error is among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _any(_value: bytes) -> bool:
    return True


def _is_wrong_type(reply: object) -> bool:
    """A key of another type stands in the place of one of ours; `status` and `check` say so."""
    return isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply)


def _remember(part: PartitionSlice, kind: str, found: Iterable[tuple[bytes, bytes | None]]) -> None:
    for pair, value in found:
        if value is None:
            continue
        if kind == "ledger":
            part.ledger[pair] = decode_remembered(value)
        elif kind == "pending":
            part.pending[pair] = decode_state(value)
        elif kind == "marks":
            part.marks[pair] = (value, decode_mark(value))
        else:
            part.dead_pairs[pair] = decode_dead_pair(value)


def _settled(lease: Lease, each: Settlement, reply: Any, until: float) -> Settled:
    if isinstance(reply, Exception):
        raise reply
    what = reply[0]
    if what != b"settled":
        return "full" if what == b"full" else "fenced"
    lease.seq += 1
    lease.until = until
    lease.position = each.position or lease.position
    lease.waiting, lease.pending, lease.late, lease.late_due_ms, lease.dead, lease.dead_pairs = reply[1:]
    return "settled"
