"""What one round knows of one partition: its coalesced log, what waits, what is remembered, the verdicts (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING
from zlib import crc32

from producers.contract.change import AT_AHEAD_MS, ID_MAX_BYTES
from producers.contract.keys import PAIR_SEPARATOR
from worker.core.backlog import ABSORB_READ, LONG_BATCHES
from worker.core.codec import decode_dead_pair, decode_mark, decode_parked, decode_remembered, decode_state
from worker.core.dead_letter import DEAD_CAP
from worker.core.entry import Malformed, fields_of, is_id, read_entry
from worker.core.fast_path import FastPathPairs, Said, join_said
from worker.core.lane import BULK, LIVE, heavy_owners, is_crowded, is_heavy
from worker.core.pair import (
    PairState,
    Readd,
    Remembered,
    Verdict,
    join,
    join_remembered,
    state_of,
    suppressed_verdict,
    verdict,
)
from worker.core.suppression import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from producers.contract.change import Lane, Op
    from worker.core.codec import DeadPair, Mark, Parked
    from worker.core.lease import Lease
    from worker.core.read import RawEntries, ReadResult, Recalled
    from worker.core.round import Round
    from worker.core.suppression import Suppression


@dataclass(slots=True)
class LogPrefix:
    """The first entries of one log, coalesced.

    Attributes:
        position: id of the last entry in it, empty if there is none.
        entries: number of its entries, malformed ones included.
        states: the joined changes of each pair that is not on the fast path.
        malformed: the entries that break a rule.
        more: whether more entries were read than fit.
        fast_path: the pairs with a single op.
        bulk_position: id of the last entry of the bulk lane's log, empty if there is none.
        bulk_entries: how many entries of that log it has, malformed ones included.
        bulk: the pairs of which only that log says something.
        blocked: whether it ends before a malformed entry that the dead letters have no room for.
    """

    position: bytes
    entries: int
    states: dict[bytes, PairState]
    malformed: list[Malformed]
    more: bool
    fast_path: FastPathPairs = field(default_factory=FastPathPairs)
    bulk_position: bytes = b""
    bulk_entries: int = 0
    bulk: set[bytes] = field(default_factory=set)
    blocked: bool = False

    @property
    def pairs(self) -> int:
        """Number of pairs in it."""
        return len(self.states) + len(self.fast_path)

    def each_pair(self) -> Iterator[bytes]:
        """Its pairs."""
        yield from self.states
        yield from self.fast_path

    @property
    def read(self) -> int:
        """How many entries it has of both logs."""
        return self.entries + self.bulk_entries

    def take(self, bulk: LogPrefix) -> None:
        """Takes a prefix of the bulk lane's log in: joining is a maximum, so the lanes' order cannot matter."""
        ours = [*self.states, *self.fast_path]
        theirs = {*bulk.states, *bulk.fast_path}
        for pair in filter(theirs.__contains__, ours):  # in the same order in every process
            state = self.states.get(pair) or self.fast_path.take_out(pair)
            other = bulk.states.pop(pair, None) or bulk.fast_path.take_out(pair)
            self.states[pair] = join(state, other)
        self.states.update(bulk.states)
        self.fast_path.upserts.update(bulk.fast_path.upserts)
        self.fast_path.deletes.update(bulk.fast_path.deletes)
        self.malformed += bulk.malformed
        self.more |= bulk.more
        self.blocked |= bulk.blocked
        self.bulk_position, self.bulk_entries = bulk.position, bulk.entries
        self.bulk = theirs.difference(ours)


def coalesce_prefix(  # noqa: C901, PLR0912, PLR0913, PLR0915 - one loop: a call for each entry costs more than it does
    raw: RawEntries,
    partition: int,
    partitions: int,
    room: int,
    *,
    fast: bool = False,
    lane: Lane = "live",
    id_max: int = ID_MAX_BYTES,
    letters: int = DEAD_CAP,
) -> LogPrefix:
    """Coalesces entries from the first on, up to `room` distinct pairs: only a whole prefix can be settled.

    Producers write owner, contact, op, at in this order, and most ids are letters and digits. Entries that keep the
    rules are joined as bytes, with or without `at`, in any order of their fields. All others are read by `read_entry`.

    Args:
        raw: the entries.
        partition: the partition whose log holds them.
        partitions: number of partitions.
        room: most distinct pairs.
        fast: put pairs with a single op on the fast path; otherwise every pair gets a state.
        lane: the lane of the log; in the bulk lane an entry without `at` is malformed.
        id_max: most characters of an id; an entry with a longer one is malformed.
        letters: most malformed entries, because the partition has room for no more dead letters.
    """
    states: dict[bytes, PairState] = {}
    fast_path = FastPathPairs()
    upserts, deletes = fast_path.upserts, fast_path.deletes
    malformed: list[Malformed] = []
    position, entries = b"", 0
    blocked = False
    other = deletes
    entry_id: bytes
    flat: list[bytes]
    for entry_id, flat in raw:
        said: dict[bytes, Said] | None = None
        source = unstamped = b""
        words = len(flat)
        if ((words == 8 and flat[6] == b"at") or words == 6) and (
            flat[0] == b"owner" and flat[2] == b"contact" and flat[4] == b"op"
        ):
            owner, contact, op = flat[1], flat[3], flat[5]
            stamp = flat[7] if words == 8 else None
        else:
            owner, contact, op, stamp, source = fields_of(flat)
        # Times of 13 digits compare as their digits do; an entry's id begins with 13, too, and then a hyphen.
        if entry_id[13:14] == b"-":
            if stamp is None:
                at, unstamped, timed = b"", entry_id[:13], lane == "live"
            else:
                at = stamp
                timed = (len(at) == 13 and at.isdigit() and at >= b"1") and (
                    at < entry_id or int(at) <= int(entry_id[:13]) + AT_AHEAD_MS
                )
            if (
                timed
                and ((owner.isalnum() and len(owner) <= id_max) or is_id(owner, id_max))
                and ((contact.isalnum() and len(contact) <= id_max) or is_id(contact, id_max))
                and crc32(owner) % partitions == partition
            ):
                if op == b"upsert":
                    said, other = upserts, deletes
                elif op == b"delete":
                    said, other = deletes, upserts
        if said is not None:
            pair = owner + PAIR_SEPARATOR + contact
            known = said.get(pair)
            if known is not None:
                if source or known[3]:
                    said[pair] = join_said(known, (at, entry_id, unstamped, source))
                elif at > known[0]:
                    said[pair] = (at, known[1], known[2], b"")
                elif unstamped > known[2]:
                    said[pair] = (known[0], known[1], unstamped, b"")
            elif pair in other or pair in states:
                said[pair] = (at, entry_id, unstamped, source)
            elif room > 0:
                room -= 1
                said[pair] = (at, entry_id, unstamped, source)
            else:
                break
        else:
            change = read_entry(entry_id, flat, partition, partitions, lane, id_max)
            if isinstance(change, Malformed):
                if len(malformed) >= letters:
                    blocked = True
                    break
                malformed.append(change)
            else:
                pair = change.pair
                state = state_of(change.op, change.at, change.entry_ms, change.source)
                if pair in states:
                    states[pair] = join(states[pair], state)
                elif pair in upserts or pair in deletes:
                    states[pair] = state
                elif room > 0:
                    room -= 1
                    states[pair] = state
                else:
                    break
        position = entry_id
        entries += 1
    mixed = upserts.keys() & deletes.keys()
    for pair in sorted({*fast_path.among(states), *mixed}) if fast else [*fast_path]:
        state = fast_path.take_out(pair)
        states[pair] = join(states[pair], state) if pair in states else state
    return LogPrefix(position, entries, states, malformed, entries < len(raw), fast_path, blocked=blocked)


@dataclass(slots=True)
class PartitionSlice:
    """One partition in one round.

    Attributes:
        partition: its number.
        log: the prefix of its log that was read.
        pending: states that waited before: candidates for this batch, and those of pairs in the prefix.
        classes: the class in which each of these pairs waits.
        ledger: what was confirmed of its pairs, as stored: few of them are ever decoded.
        dead_pairs: those of its pairs that have dead letters.
        marks: late marks of its pairs, as stored and as decoded.
        late_until_ms: until when a worker whose lease expired may still change pairs (Unix ms).
        late_to_ms: the newest entry time that this worker can have known (Unix ms).
        parked: those of `pending` that are parked; they wait in no class.
        letters: how many dead letters there is room for, beside those of the log's malformed entries.
        verdicts: what follows for each pair, once judged.
        resting: parked pairs that are not to be tried again yet, and of which nothing newer is known.
        repairs: confirmed outcomes to send again, because a late request may have undone them.
        past: pairs whose late marks cannot matter any more.
        suppressed: pairs with somebody who was erased: their upserts are refused, and nothing of them is remembered.
        refused: number of malformed entries that name somebody who was erased, other than deletes; they do not become
            dead letters.
    """

    partition: int
    log: LogPrefix
    pending: dict[bytes, PairState] = field(default_factory=dict)
    classes: dict[bytes, int] = field(default_factory=dict)
    ledger: dict[bytes, bytes] = field(default_factory=dict)
    dead_pairs: dict[bytes, DeadPair] = field(default_factory=dict)
    marks: dict[bytes, tuple[bytes, Mark]] = field(default_factory=dict)
    late_until_ms: int = 0
    late_to_ms: int = 0
    parked: dict[bytes, Parked] = field(default_factory=dict)
    letters: int = DEAD_CAP
    verdicts: dict[bytes, Verdict] = field(default_factory=dict)
    resting: set[bytes] = field(default_factory=set)
    repairs: dict[bytes, Op] = field(default_factory=dict)
    past: list[bytes] = field(default_factory=list)
    suppressed: set[bytes] = field(default_factory=set)
    refused: int = 0
    _heavy: frozenset[bytes] | None = None

    @property
    def pairs(self) -> Iterable[bytes]:
        """All pairs that have a state; those on the fast path have none."""
        states = self.log.states
        return [*states, *(pair for pair in self.pending if pair not in states)] if self.pending else list(states)

    def remembered(self, pair: bytes) -> Remembered | None:
        """What was confirmed of a pair: by the ledger and, if it has dead letters, by what is kept beside them."""
        dead, stored = self.dead_pairs.get(pair), self.ledger.get(pair)
        known = None if stored is None else decode_remembered(stored)
        return known if dead is None else join_remembered(known, dead.confirmed)

    def is_bulk(self, pair: bytes) -> bool:
        """Whether nothing of a pair came live; a live change takes along what waits of its pair in bulk."""
        if self.classes.get(pair, BULK[0]) in LIVE or (pair in self.parked and not self.parked[pair].bulk):
            return False
        return pair in self.log.bulk or pair not in self.log.states

    def is_heavy(self, pair: bytes) -> bool:
        """Whether the owner of a pair has very many that wait."""
        if self._heavy is None:
            known = {pair.partition(PAIR_SEPARATOR)[0] for pair, each in self.classes.items() if is_heavy(each)}
            self._heavy = heavy_owners(self.verdicts) | known
        return pair.partition(PAIR_SEPARATOR)[0] in self._heavy

    def judge(self, readd: Readd, now_ms: int, suppression: Suppression = NOBODY) -> None:
        """Decides the verdicts, and finds the repairs that are due at this time (Unix ms, Redis' clock)."""
        if suppression.until_ms:
            self._suppress(suppression, now_ms)
        if self.late_until_ms > now_ms:
            self.materialize()
        elif self.log.fast_path:
            self.materialize(self.log.fast_path.among(self.pending, self.dead_pairs, self.marks))
            if self.ledger:
                self.materialize(self.log.fast_path.recall(self.ledger))
        states, pending = self.log.states, self.pending
        for pair in self.pairs:
            state, waiting = states.get(pair), pending.get(pair)
            if waiting is not None:
                state = waiting if state is None else join(waiting, state)
            if state is not None:
                if pair in self.suppressed:
                    reached = suppressed_verdict(state)
                else:
                    reached = verdict(state, self.remembered(pair), readd)
                self.verdicts[pair] = reached
                if pair in self.parked and _rests(self.parked[pair], reached, now_ms):
                    self.resting.add(pair)
        self._judge_marks(now_ms)

    def _suppress(self, suppression: Suppression, now_ms: int) -> None:
        """Finds the pairs that are suppressed, and takes them off the fast path."""
        log = self.log
        self.suppressed = suppression.among(chain(log.each_pair(), self.pending, self.marks), now_ms)
        for pair in log.fast_path.among(self.suppressed):
            log.states[pair] = log.fast_path.take_out(pair)

        def refused(entry: Malformed) -> bool:
            users = (entry.fields.get(name) for name in (b"owner", b"contact"))
            return entry.fields.get(b"op") != b"delete" and any(
                user is not None and suppression.holds(user, now_ms) for user in users
            )

        kept = [entry for entry in log.malformed if not refused(entry)]
        self.refused += len(log.malformed) - len(kept)
        log.malformed[:] = kept

    def _judge_marks(self, now_ms: int) -> None:
        for pair, (_, mark) in self.marks.items():
            if mark.until_ms > now_ms:
                continue
            found, known = self.verdicts.get(pair), self.remembered(pair)
            newer = found.op if found is not None else None
            if pair in self.resting:
                if known is None or known.op != newer:
                    self.past.append(pair)  # if it undid what was confirmed, it did what the parked record asks for
                    continue
            elif newer is not None:
                continue  # the record that is sent now makes a repair needless
            if pair in self.suppressed:
                self.repairs[pair] = "delete"  # whatever was confirmed: the late request may have brought somebody back
            elif known is not None and mark.differs_from(known.op):
                self.repairs[pair] = known.op
            else:
                self.past.append(pair)

    def materialize(self, pairs: Iterable[bytes] | None = None) -> None:
        """Gives pairs on the fast path their state and verdict, and takes them off it; None for all of them."""
        for pair in [*self.log.fast_path] if pairs is None else pairs:
            state = self.log.states[pair] = self.log.fast_path.take_out(pair)
            self.verdicts[pair] = verdict(state, None, "resend")  # with one op alone nothing can remain


def _rests(parked: Parked, reached: Verdict, now_ms: int) -> bool:
    """Whether a parked pair waits for its next try: no newer change, and no other op than the refused one, came."""
    if parked.due_ms <= now_ms or reached.op is None or reached.state is None:
        return False
    refused = "upsert" if parked.state.delete is None else "delete"
    return reached.op == refused and reached.state.newest_ms <= parked.state.newest_ms


def coalesce(this: Round, reads: Sequence[ReadResult], partitions: int, id_max: int = ID_MAX_BYTES) -> list[LogPrefix]:
    """Coalesces the logs of a round until its pairs fill a request; a log to be absorbed is coalesced whole.

    Args:
        this: the round.
        reads: what was read of each of its partitions.
        partitions: how many there are in the namespace.
        id_max: most characters of an id.

    Returns:
        The prefix of each log.
    """
    live = sum(each in LIVE for read in reads for each in read.classes.values())
    bulk = sum(len(read.pending) for read in reads) - live
    room = this.limit - live - sum(len(read.marks) + len(read.parked) for read in reads)
    share = this.bulk_share if any(lease.has_bulk for lease in this.leases) else 0
    prefixes = []
    for lease, read in zip(this.leases, reads, strict=True):
        absorbs = this.absorbs(lease)
        most = ABSORB_READ if absorbs else max(0, room - share)
        prefixes.append(
            coalesce_prefix(
                read.entries,
                lease.partition,
                partitions,
                most,
                fast=True,
                id_max=id_max,
                letters=lease.letters_room,
            )
        )
        lease.crowded |= lease.waiting > LONG_BATCHES * this.limit and is_crowded(prefixes[-1].each_pair())
        room -= 0 if absorbs else prefixes[-1].pairs
    room -= bulk
    for lease, read, prefix in zip(this.leases, reads, prefixes, strict=True):
        if read.bulk:
            absorbs = this.absorbs(lease)
            most = ABSORB_READ if absorbs else max(0, room)
            letters = lease.letters_room - len(prefix.malformed)
            beside = coalesce_prefix(
                read.bulk, lease.partition, partitions, most, fast=True, lane="bulk", id_max=id_max, letters=letters
            )
            room -= 0 if absorbs else beside.pairs
            lease.crowded |= lease.bulk_waiting > LONG_BATCHES * this.limit and is_crowded(beside.each_pair())
            prefix.take(beside)
    return prefixes


def pairs_of(prefix: LogPrefix, read: ReadResult) -> list[bytes]:
    """The pairs of which something was read."""
    return [*prefix.fast_path, *{**prefix.states, **read.pending, **read.marks, **read.parked}]


def assemble(lease: Lease, prefix: LogPrefix, read: ReadResult, recalled: Recalled) -> PartitionSlice:
    """All that is known of one partition's pairs, decoded."""
    pending = {**read.pending, **recalled.pending}
    classes = {**read.classes, **recalled.classes}
    parked = {pair: decode_parked(value) for pair, value in {**read.parked, **recalled.parked}.items()}
    marks = {pair: (value, decode_mark(value)) for pair, value in recalled.marks.items()}
    return PartitionSlice(
        lease.partition,
        prefix,
        pending={pair: each.state for pair, each in parked.items()}
        | {pair: decode_state(value) for pair, value in pending.items()},
        classes=classes,
        ledger={**recalled.ledger},
        dead_pairs={pair: decode_dead_pair(value) for pair, value in recalled.dead_pairs.items()},
        marks={**read.marks, **marks},
        late_until_ms=lease.late_until_ms,
        late_to_ms=lease.late_to_ms,
        parked=parked,
        letters=lease.letters_room - len(prefix.malformed),
    )
