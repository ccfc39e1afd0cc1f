"""Finds parked pairs, lets them be tried at once, or makes dead letters of them, while holding their partition."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from producers.contract.errors import ContactSyncError
from worker.admin.leasing import take_lease
from worker.core.codec import decode_parked, encode_parked
from worker.core.dead_letter import DEAD_CAP
from worker.core.entry import split_pair
from worker.core.numbers import many, were
from worker.core.read import ReadResult
from worker.core.settlement import BatchResult, Settlement, settlement
from worker.core.slice import LogPrefix, assemble
from worker.core.times import iso_utc
from worker.store.replies import checked, is_wrong_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from producers.contract.change import Lane, Op
    from worker.core.codec import Parked
    from worker.core.lease import Lease
    from worker.core.slice import PartitionSlice
    from worker.store.dead_letters import Wanted
    from worker.store.namespace import Namespace
    from worker.store.partitions import Partitions

_PAGE: Final = 500  # pairs read or moved in one round trip


class NotMoved(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """Not all parked pairs were moved. The message says why; the command can be run again."""


@dataclass(frozen=True, slots=True)
class ParkedPair:
    """A pair whose record was refused with an unknown code.

    Attributes:
        id: `<partition>-<number>`; the number is made from the pair, so it is always the same.
        partition: the partition that stores it.
        pair: the hash field of the pair.
        owner, contact: its ids.
        op: the op that was refused, and is tried next.
        at: the newest `at` of its changes with that op, None if they have none.
        source: the source of the newest of them, None if unknown.
        lane: `bulk` if nothing of it came live.
        code, field: what the endpoint answered, None if it is empty.
        tries: how often it was refused.
        since_ms: when it was refused first (Unix ms).
        next_ms: when it is tried next (Unix ms).
    """

    id: str
    partition: int
    pair: bytes
    owner: str
    contact: str
    op: Op
    at: int | None
    source: str | None
    lane: Lane
    code: str | None
    field: str | None
    tries: int
    since_ms: int
    next_ms: int

    @property
    def reason(self) -> str | None:
        """By what it is selected: the endpoint's code."""
        return self.code

    def as_json(self) -> dict[str, Any]:
        """Its fields."""
        return {
            "id": self.id,
            "partition": self.partition,
            "owner": self.owner,
            "contact": self.contact,
            "op": self.op,
            "at": self.at,
            "source": self.source,
            "lane": self.lane,
            "code": self.code,
            "field": self.field,
            "tries": self.tries,
            "since": iso_utc(self.since_ms),
            "next": iso_utc(self.next_ms),
        }


def find_parked(namespace: Namespace, wanted: Wanted) -> Iterator[ParkedPair]:
    """Finds the wanted pairs, by partition, those that were refused first before the others.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    client, keys, partitions = namespace
    homes = {int(each.partition("-")[0]) for each in wanted.ids} if wanted.ids else range(partitions)
    several = sorted(p for p in homes if p < partitions)
    pipe = client.pipeline(transaction=False)
    for p in several:
        pipe.hlen(keys.parked(p))
    for p, count in zip(several, pipe.execute(raise_on_error=False), strict=True):
        # A key of the wrong type hides the pairs of one partition; `status` and `check` report it.
        if is_wrong_type(count) or not checked(count):
            continue
        found = client.hscan_iter(keys.parked(p), count=_PAGE)
        pairs = [_parked_pair(p, pair, decode_parked(value)) for pair, value in found]
        for each in sorted(pairs, key=lambda each: (each.since_ms, each.id)):
            if wanted.fits(each) and (not wanted.ids or each.id in wanted.ids):
                yield each


class ParkedPairs:
    """The parked pairs of one namespace.

    Args:
        partitions: all of them; it takes their leases as a worker does.
        patience_seconds: how long to try to get a lease.
        monotonic: a clock, in seconds.
        sleep: how to wait.
    """

    def __init__(
        self,
        partitions: Partitions,
        patience_seconds: float,
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._partitions = partitions
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self._sleep = sleep

    def find(self, wanted: Wanted) -> Iterator[ParkedPair]:
        """Finds the wanted pairs, as `find_parked` does."""
        return find_parked(self._partitions.namespace, wanted)

    def retry(self, pairs: Iterable[ParkedPair]) -> int:
        """Lets workers try pairs now, one after the other; returns how many of them are still parked.

        Raises:
            NotMoved: a lease could not be taken, or was lost.
            redis.RedisError: Redis does not answer, or refuses.
        """

        def due_now(part: PartitionSlice, now_ms: int) -> tuple[Settlement, int]:
            into = Settlement()
            for pair, parked in part.parked.items():
                into.park += (pair, encode_parked(parked._replace(due_ms=now_ms)))
            return into, len(part.parked)

        return self._move(pairs, due_now)

    def bury(self, pairs: Iterable[ParkedPair]) -> int:
        """Makes dead letters of pairs; returns how many that were.

        Raises:
            NotMoved: a lease could not be taken, or was lost, or a partition has no room for the letters.
            redis.RedisError: Redis does not answer, or refuses.
        """

        def buried(part: PartitionSlice, now_ms: int) -> tuple[Settlement, int]:
            part.judge("resend", now_ms)
            part.past.clear()  # without the parked records a late request may have undone what was confirmed
            chosen = frozenset(pair for pair in part.parked if part.verdicts[pair].op is not None)
            return settlement(part, chosen, frozenset(), BatchResult("buried", now_ms, now_ms)), len(chosen)

        return self._move(pairs, buried)

    def _move(
        self, pairs: Iterable[ParkedPair], change: Callable[[PartitionSlice, int], tuple[Settlement, int]]
    ) -> int:
        moved = 0
        for p, several in groupby(pairs, key=lambda each: each.partition):
            every = [each.pair for each in several]
            lease = take_lease(self._partitions, p, self._patience_seconds, self._monotonic, self._sleep)
            if lease is None:
                raise NotMoved(f"partition {p} stays leased to a worker: {_moved(moved)}; try again")
            for first in range(0, len(every), _PAGE):
                into, count = change(self._read(lease, every[first : first + _PAGE]), self._partitions.clock_of(p))
                [end] = self._partitions.settle([lease], [into], [first + _PAGE < len(every)])
                if end == "full":
                    self._partitions.release([lease])
                    raise NotMoved(
                        f"partition {p} has no room for more than {DEAD_CAP:,} dead letters: {_moved(moved)}; "
                        "contact-sync dead-letters redrive or purge"
                    )
                if end != "settled":
                    raise NotMoved(f"the lease of partition {p} was lost: {_moved(moved)}; run it again")
                moved += count
        return moved

    def _read(self, lease: Lease, pairs: Sequence[bytes]) -> PartitionSlice:
        """What is known of these pairs now."""
        nothing = ReadResult((), True, {}, {}, (), {}, {}, now_ms=0)
        [recalled] = self._partitions.recall([lease], [nothing], [pairs])
        return assemble(lease, LogPrefix(b"", 0, {}, [], more=False), nothing, recalled)


def _parked_pair(partition: int, pair: bytes, parked: Parked) -> ParkedPair:
    owner, contact = split_pair(pair)
    delete, upsert, _, refused = parked.state
    side = delete or upsert
    number = int.from_bytes(blake2b(pair, digest_size=6).digest())
    return ParkedPair(
        id=f"{partition}-{number}",
        partition=partition,
        pair=pair,
        owner=owner.decode(),
        contact=contact.decode(),
        op="upsert" if delete is None else "delete",
        at=(side.at or None) if side else None,
        source=(side.source.decode("utf-8", "replace") or None) if side else None,
        lane="bulk" if parked.bulk else "live",
        code=(refused.code or None) if refused else None,
        field=(refused.field or None) if refused else None,
        tries=refused.tries if refused else 0,
        since_ms=refused.since_ms if refused else 0,
        next_ms=parked.due_ms,
    )


def _moved(number: int) -> str:
    return f"{many(number, 'pair')} {were(number)} moved"
