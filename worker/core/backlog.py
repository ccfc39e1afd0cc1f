"""What waits in the partitions, and when each of them is due (pure)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from worker.core.lane import BULK, CLASSES, LIVE, LIVE_DELETES, is_heavy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from worker.core.gate import GateSnapshot
    from worker.core.linger import Linger

ABSORB_ENTRIES: Final = 1_000
"""While the endpoint is away, a log of this length is read and joined, so that memory grows by pairs, not by events."""

ABSORB_SECONDS: Final = 5.0
"""And so is a log whose oldest entry is this old, so that malformed entries do not wait for the endpoint."""

ABSORB_READ: Final = 5_000
"""Entries read at once from each log while the endpoint is away, or while more pairs wait than a batch holds."""


CLOCKS_AGREE_MS: Final = 50
"""Two clocks that differ by no more than a round trip may take are taken for one."""

LONG_BATCHES: Final = 4
"""A log is long, or all logs together are, if the entries would fill more than this many requests."""


@dataclass(slots=True)
class PartitionBacklog:
    """What waits in one partition.

    Attributes:
        partition: its number.
        leased: whether a worker holds it.
        oldest_ms: time of the oldest entry in its log (Unix ms), 0 if the log is empty; 1 if the clock went back
            behind it.
        delete_ms: time of the oldest delete in its log (Unix ms), 0 if none was found: only lingering logs are
            searched.
        entries: number of entries in its log.
        bulk_ms: time of the oldest entry in the bulk lane's log (Unix ms); 0 and 1 as above.
        bulk_entries: number of entries in that log.
        classes: number of pairs that were read and are not confirmed, by class.
        dead: number of its dead letters; counted only if a log has entries.
        late_due_ms: when its next late mark can be judged (Unix ms), 0 if there is none.
        parked_due_ms: when its next parked pair is tried again (Unix ms), 0 if there is none.
        full_until_ms: until when its logs are left alone (Unix ms), because they go on with malformed entries that its
            dead letters have no room for; 0 if there is room.
        shifted_ms: by how much its times were shifted from the clock of its node.
    """

    partition: int
    leased: bool = False
    oldest_ms: int = 0
    delete_ms: int = 0
    entries: int = 0
    bulk_ms: int = 0
    bulk_entries: int = 0
    classes: list[int] = field(default_factory=lambda: [0] * CLASSES)
    dead: int = 0
    late_due_ms: int = 0
    parked_due_ms: int = 0
    full_until_ms: int = 0
    shifted_ms: int = 0

    @property
    def pending(self) -> int:
        """How many pairs were read and are not confirmed."""
        return sum(self.classes)

    @property
    def records(self) -> int:
        """Most records that it has for a request."""
        return self.entries + self.bulk_entries + self.pending

    @property
    def has_bulk(self) -> bool:
        """Whether anything of the bulk lane waits."""
        return bool(self.bulk_ms or any(self.classes[each] for each in BULK))

    @property
    def heavy(self) -> int:
        """How many of these pairs are of owners that have very many."""
        return sum(self.classes[each] for each in range(CLASSES) if is_heavy(each))

    @property
    def waits(self) -> bool:
        """Whether anything waits in it, even if it is not due yet."""
        return bool(self.oldest_ms or self.has_bulk or self.pending or self.late_due_ms or self.parked_due_ms)

    def hurries(self, batch_size: int) -> bool:
        """Whether a delete was found in its log, which may not fit into one request."""
        return bool(self.delete_ms) and self.entries > batch_size

    def shift(self, by_ms: int) -> None:
        """Converts its times to another clock; 0 is not a time, and stays."""
        if abs(by_ms) <= CLOCKS_AGREE_MS:
            return
        self.shifted_ms = by_ms
        self.oldest_ms = self.oldest_ms and max(1, self.oldest_ms + by_ms)
        self.bulk_ms = self.bulk_ms and max(1, self.bulk_ms + by_ms)
        self.delete_ms = self.delete_ms and max(1, self.delete_ms + by_ms)
        self.late_due_ms = self.late_due_ms and max(1, self.late_due_ms + by_ms)
        self.parked_due_ms = self.parked_due_ms and max(1, self.parked_due_ms + by_ms)
        self.full_until_ms = self.full_until_ms and max(1, self.full_until_ms + by_ms)

    def note_clock(self, now_ms: int) -> None:
        """Notes that how long an entry of the future has waited is not known: the clock went back."""
        self.oldest_ms = 1 if self.oldest_ms > now_ms else self.oldest_ms
        self.bulk_ms = 1 if self.bulk_ms > now_ms else self.bulk_ms

    def due_ms(self, gate: GateSnapshot, linger: Linger, batch_size: int) -> int | None:
        """When the partition is due by itself (Unix ms, in the past if it is due now), None if nothing makes it due.

        It is due if its oldest entry has lingered, if its oldest delete has, if a full batch waits, or if something is
        pending, to be repaired, or parked and to be tried again. While the gate is closed, it is due only if its log
        must be absorbed.
        """
        if gate.closed:
            return min(self._logs_due(ABSORB_ENTRIES, max(linger.change_ms, int(ABSORB_SECONDS * 1000))), default=None)
        times = [due_ms for due_ms in (self.late_due_ms, self.parked_due_ms) if due_ms]
        times += self._logs_due(batch_size, linger.change_ms)
        if self.delete_ms:
            times.append(max(self.delete_ms + linger.delete_ms, self.full_until_ms))
        if self.pending:
            times.append(0)
        return min(times, default=None)

    def _logs_due(self, many: int, wait_ms: int) -> list[int]:
        """When each log that holds anything is due: at once if it holds many entries, else after this time."""
        logs = ((self.oldest_ms, self.entries), (self.bulk_ms, self.bulk_entries))
        due = (0 if entries >= many else oldest_ms + wait_ms for oldest_ms, entries in logs if oldest_ms)
        return [max(each, self.full_until_ms) for each in due]


@dataclass(slots=True)
class Survey:
    """One scan over all partitions.

    Attributes:
        now_ms: when it was taken, by Redis' clock (Unix ms); 0 if nothing waits.
        waiting: the partitions in which something waits.
        wrong_type: partitions whose log's key has the wrong type.
        inbox: whether the inbox has an entry; only a scan that may block looks for it.
    """

    now_ms: int
    waiting: list[PartitionBacklog]
    wrong_type: list[int] = field(default_factory=list)
    inbox: bool = False

    def is_long(self, batch_size: int) -> bool:
        """Whether the live logs together hold so much that what is new in them would wait for several requests."""
        return sum(each.entries for each in self.waiting) > LONG_BATCHES * batch_size


class _Tier:
    """Partitions that have records of one kind, in the order in which these go.

    Args:
        some: the partitions.
        unread: how many entries of a partition are to be read for them.
        known: how many of these records wait in it, and are known.
    """

    def __init__(
        self,
        some: Iterable[PartitionBacklog],
        unread: Callable[[PartitionBacklog], int] = lambda _: 0,
        known: Callable[[PartitionBacklog], int] = lambda _: 0,
    ) -> None:
        self._left = deque(each for each in some if unread(each) or known(each))
        self._unread, self._known = unread, known

    def next(self, gone: set[int]) -> PartitionBacklog | None:
        """The first that is not gone."""
        while self._left and self._left[0].partition in gone:
            self._left.popleft()
        return self._left[0] if self._left else None

    def has(self, each: PartitionBacklog) -> bool:
        """Whether a partition has any."""
        return bool(self._unread(each) or self._known(each))

    def room_for(self, some: Iterable[PartitionBacklog], entries_a_record: float) -> float:
        """How many records of a request partitions take."""
        return sum(self._known(each) + self._unread(each) / entries_a_record for each in some)


class Ranked:
    """Partitions to choose from, in order; each is chosen once. What one choice costs does not grow with their number.

    If more waits than a request takes, partitions go in the order of what they have: live deletes, live upserts, bulk
    deletes, bulk upserts, of each those of most owners before those of owners with very many. But half of the room that
    live deletes leave goes to those whose live logs are unread, so that a delete in them is found, and so does all that
    live upserts leave. If none of those chosen has anything in bulk, or of an owner with very many, one that has goes
    along, so that nobody is kept waiting by what comes elsewhere. Where nothing is in bulk or of such owners, upserts
    are all alike: fewer partitions, with more in each, fill a request then.

    Args:
        ranked: the partitions, the first first.
    """

    def __init__(self, ranked: Sequence[PartitionBacklog]) -> None:
        # What was read goes out at once; then the log whose delete has waited longest.
        deletes = sorted(
            (each for each in ranked if _unread_deletes(each) or each.classes[LIVE_DELETES[0]]),
            key=lambda each: each.delete_ms,
        )
        waiting = [each for each in ranked if any(each.classes)]
        self._deletes = _Tier(deletes, _unread_deletes, _of_class(LIVE_DELETES[0]))
        self._unread = _Tier(ranked, lambda each: each.entries)
        self._classes = [_Tier(waiting, known=_of_class(which)) for which in range(CLASSES)]
        self._left = _Tier(ranked, _unread, lambda each: each.pending or int(not _unread(each)))
        self._along = (_Tier(ranked, known=lambda each: each.has_bulk), _Tier(waiting, known=lambda each: each.heavy))
        self._mixed = any(each.has_bulk or each.heavy for each in ranked)
        self._entries = sum(map(_unread, ranked))
        self._pending = sum(each.pending for each in ranked)
        self._gone: set[int] = set()

    def __bool__(self) -> bool:
        return self._left.next(self._gone) is not None

    @property
    def has_live(self) -> bool:
        """Whether anything of the live lane waits in those that are left."""
        tiers = (self._unread, *(self._classes[each] for each in LIVE))
        return any(tier.next(self._gone) is not None for tier in tiers)

    def take(self, room: float, entries_a_record: float = 1.0) -> list[int]:
        """Chooses partitions until they fill a request.

        Args:
            room: how many records the request has room for.
            entries_a_record: how many entries are read for each of them.
        """
        chosen: list[PartitionBacklog] = []

        def choose(each: PartitionBacklog) -> None:
            chosen.append(each)
            self._gone.add(each.partition)

        def take(tier: _Tier, left: float, until: float = 0, counted: int = 0) -> float:
            """Chooses those of a tier; returns how much room is left after its records of all that are chosen.

            Those that were chosen first, so many, are counted already.
            """
            left -= tier.room_for(chosen[counted:], entries_a_record)
            while left > until and (each := tier.next(self._gone)) is not None:
                choose(each)
                left -= tier.room_for([each], entries_a_record)
            return left

        if self._pending + self._entries / entries_a_record > room > 0:
            first, *others = self._classes[LIVE_DELETES[-1] :]
            left = take(first, take(self._deletes, room))
            left = take(self._unread, left, left / 2)
            if self._mixed:
                counted = len(chosen)
                for tier in others[: BULK[0] - len(LIVE_DELETES)]:
                    left = take(tier, left)
                left = take(self._unread, left, counted=counted)
                for tier in others[BULK[0] - len(LIVE_DELETES) :]:
                    left = take(tier, left)
        take(self._left, room)
        for tier in self._along:
            if chosen and not any(map(tier.has, chosen)) and (each := tier.next(self._gone)) is not None:
                choose(each)
        self._entries -= sum(map(_unread, chosen))
        self._pending -= sum(each.pending for each in chosen)
        return [each.partition for each in chosen]


def _unread(each: PartitionBacklog) -> int:
    return each.entries + each.bulk_entries


def _unread_deletes(each: PartitionBacklog) -> int:
    """A log that has one is read for it."""
    return each.entries if each.delete_ms else 0


def _of_class(which: int) -> Callable[[PartitionBacklog], int]:
    return lambda each: each.classes[which]
