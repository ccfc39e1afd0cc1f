"""What a run leaves behind for the oracle: what was accepted, sent, refused, and what remains (pure values).

All times are Unix milliseconds of Redis' clock, or of one that agrees with it. Whoever sees a run only from outside
gives bounds: `built_ms` and `begun_ms` of a request may be too early and too late, and what is None is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producers.contract.change import Lane, Op
    from worker.core.pair import Readd

Pair = tuple[str, str]
"""Owner's and contact's XC user id."""

Record = tuple[str, str, "Op"]
"""One line of a request: owner, contact, op."""

Places = tuple[str, str]
"""Ids of the last entries that were settled of a partition: of its log, and of the bulk lane's."""

Outcome = Literal["confirmed", "refused", "failed"]
"""What the worker learned of its request: all of it was done; its only record was refused for good; neither."""


def order_of(entry_id: str) -> tuple[int, int]:
    """An entry's place in its log."""
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n)


class Change(NamedTuple):
    """One entry that Redis accepted, or perhaps did.

    Attributes:
        entry_id: its id in the log, `<ms>-<n>`; empty where only lost replies speak of it.
        partition: the log that it lies in.
        owner, contact, op: as it says; empty or any text where it is malformed.
        at: its `at`, None where it carries none.
        malformed: the reason that makes it a dead letter (contract.md, section 2), None if it is a change.
        perhaps_since_ms: from when on further copies of it may lie in the log, because a reply was lost; None: none.
        perhaps: how many such copies there may be.
        accepted_ms: when it was accepted, None where its id says so: a clock that went back leaves ids ahead of it.
        lane: the lane whose log it lies in.
        lost: whether a failover lost it: what was built on it before that is adrift, and nothing else knows of it.
    """

    entry_id: str
    partition: int
    owner: str
    contact: str
    op: str
    at: int | None = None
    malformed: str | None = None
    perhaps_since_ms: int | None = None
    perhaps: int = 0
    accepted_ms: int | None = None
    lane: Lane = "live"
    lost: bool = False

    @property
    def time_ms(self) -> int:
        """When it was accepted."""
        return self.order[0] if self.accepted_ms is None else self.accepted_ms

    @property
    def order(self) -> tuple[int, int]:
        """Its place in its log."""
        return order_of(self.entry_id)


class Sent(NamedTuple):
    """One request that left a worker, in whole.

    Attributes:
        number: names it in stories.
        records: in the order of its body.
        built_ms: the earliest time at which the log can have been read for it (begin less lease, if unknown).
        begun_ms: the latest time at which it can have begun.
        ended_ms: the latest time at which its worker can have settled it, None if it died before.
        outcome: what the worker learned, None where that is not known (it may have died, or lost the answer).
        applied: its place among the requests that took effect, None if it never did.
        settled: the partitions that its outcome moved forward; None where that is not known.
        whole: it was a probe, so that all entries older than `built_ms` must have been read for it (contract.md, 3.6).
        beyond: it took effect later than the promise covers (deadline and LATE_SECONDS).
        read_by_ms: the latest time at which the log can have been read for it, None where only its begin bounds it.
        read_from: of each partition the last entries that had been settled when its logs were read, None if not known.
        settled_to: of each partition in `settled` the last entries that are settled since, None where not known.
        suppressed: users who had been erased when the gate let it out: it may upsert no pair with one of them.
        placed_ms: when the gate gave it a place in the fleet's rate, by a clock that never jumps; later if only its
            arrival was seen (`Paced.in_hand`); None where neither is known.
        adrift: whether it may have been built on what a failover lost: then it may say what only that explains.
        perhaps_to: as `settled_to`, by each outcome that may be this one's, where that is not certain: around a
            failover a producer says the same again and again, and equal requests cannot be told apart.
    """

    number: int
    records: tuple[Record, ...]
    built_ms: int
    begun_ms: int
    ended_ms: int | None = None
    outcome: Outcome | None = None
    applied: int | None = None
    settled: frozenset[int] | None = None
    whole: bool = False
    beyond: bool = False
    read_by_ms: int | None = None
    read_from: Mapping[int, Places] | None = None
    settled_to: Mapping[int, Places] | None = None
    placed_ms: int | None = None
    suppressed: frozenset[str] = frozenset()
    adrift: bool = False
    perhaps_to: Mapping[int, Sequence[Places]] | None = None

    @property
    def reads_until_ms(self) -> int:
        """No entry that was accepted later can have been read for it."""
        return self.begun_ms if self.read_by_ms is None else self.read_by_ms


class DeadLetter(NamedTuple):
    """A dead letter that there was at any time.

    Attributes:
        id: as `dead-letters list` shows it.
        partition: where it lies.
        reason: `refused`, or the rule that its entry breaks.
        entry: id of the malformed entry, None where the endpoint refused a record.
        since_ms: when it came to be.
        gone_ms: when it was redriven or purged, None while it lies there.
    """

    id: str
    partition: int
    owner: str | None
    contact: str | None
    op: str | None
    at: int | None
    reason: str
    entry: str | None
    since_ms: int
    gone_ms: int | None = None


class Left(NamedTuple):
    """What waits when the history ends: entries, pending pairs, late marks, leased partitions, parked pairs."""

    entries: int = 0
    pending: int = 0
    marks: int = 0
    in_flight: int = 0
    parked: int = 0


class Paced(NamedTuple):
    """A span in which one limit of the fleet's rate held, by the clock of `Sent.placed_ms`.

    Attributes:
        from_ms, until_ms: the span.
        rate: most requests a second.
        in_hand: how many requests may have got their places before a second in which they were seen: as many as there
            are threads to hold them up.
    """

    from_ms: int
    until_ms: int
    rate: float
    in_hand: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """A run, from first change to last word.

    Attributes:
        changes: all that was accepted, or perhaps was, in any order; a redriven one is an entry of its own.
        sent: all requests, in any order.
        letters: every dead letter there was.
        contacts: what the endpoint holds at the end.
        left: what waits at the end.
        totals: the counters (contract.md, section 6), `events` as `status` shows it.
        readd: CONTACT_SYNC_READD.
        ledger_seconds: CONTACT_SYNC_LEDGER_SECONDS.
        batch_size: CONTACT_SYNC_BATCH_SIZE.
        healed: everything was fixed and drained before the end, so that nothing may be left over.
        unsent: how many requests never left, which workers count all the same.
        peak_pending: most pending pairs seen at one time, by partition.
        paced: the spans in which a limit of the rate held.
        erased: users who were erased.
        mentions: keys in which one of them still stands.
    """

    changes: Sequence[Change]
    sent: Sequence[Sent]
    letters: Sequence[DeadLetter]
    contacts: frozenset[Pair]
    left: Left
    totals: Mapping[str, int]
    readd: Readd = "resend"
    ledger_seconds: float = 3600.0
    batch_size: int = 500
    healed: bool = True
    unsent: int = 0
    peak_pending: Mapping[int, int] = field(default_factory=dict)
    paced: Sequence[Paced] = ()
    erased: frozenset[str] = frozenset()
    mentions: Sequence[str] = ()


Kind = Literal[
    "lost",
    "wrong_end",
    "resurrected",
    "order",
    "illegal_request",
    "rate",
    "dead_letters",
    "totals",
    "erased",
    "left_over",
    "crash",
]
"""What an invariant is called where runs are counted."""


class Violation(NamedTuple):
    """A broken invariant.

    Attributes:
        kind: which.
        pair: of which pair, None where it is of no single one.
        says: what is wrong, in one line.
        story: what happened to the pair, oldest first.
    """

    kind: Kind
    pair: Pair | None
    says: str
    story: tuple[str, ...] = ()

    def __str__(self) -> str:
        of = f" of {self.pair[0]} -> {self.pair[1]}" if self.pair else ""
        return "\n    ".join([f"{self.kind}{of}: {self.says}", *self.story])
