"""What one round knows of one partition: its log joined, what waits, what is remembered, and the verdicts (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from worker.entry import Malformed, read_entry
from worker.join import PairState, Readd, Remembered, Verdict, join, join_remembered, state_of, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from producers.change import Op
    from worker.stored import DeadPair, Mark

RawEntry = Sequence[tuple[bytes, list[bytes]]]
"""XRANGE's raw reply: id, then fields and values in turn."""


class Log(NamedTuple):
    """A stretch of one log, joined.

    Attributes:
        position: id of the last entry in it, empty where it has none.
        entries: how many entries it has, malformed ones included.
        states: the joined changes of each of its pairs.
        malformed: the entries that break a rule.
        more: whether entries were read that did not fit.
    """

    position: bytes
    entries: int
    states: dict[bytes, PairState]
    malformed: list[Malformed]
    more: bool


def join_log(raw: RawEntry, partition: int, partitions: int, room: int) -> Log:
    """Joins entries from the first on, up to `room` distinct pairs: settling needs an unbroken stretch."""
    states: dict[bytes, PairState] = {}
    malformed: list[Malformed] = []
    position, entries = b"", 0
    for entry_id, flat in raw:
        change = read_entry(entry_id, flat, partition, partitions)
        if isinstance(change, Malformed):
            malformed.append(change)
        else:
            pair, op, at, entry_ms, source = change
            known = states.get(pair)
            if known is not None:
                states[pair] = join(known, state_of(op, at, entry_ms, source))
            elif len(states) < room:
                states[pair] = state_of(op, at, entry_ms, source)
            else:
                break
        position = entry_id
        entries += 1
    return Log(position, entries, states, malformed, entries < len(raw))


@dataclass(slots=True)
class Stretch:
    """One partition in one round.

    Attributes:
        partition: its number.
        log: the stretch of its log that was read.
        pending: states that waited already: candidates for this batch, and those of pairs that the log speaks of.
        ledger: what is remembered of its pairs.
        dead_pairs: which of its pairs have dead letters.
        marks: late marks of its pairs, as stored and as read.
        late_until_ms: until when a holder whose lease expired may still act on what is not newer than late_to_ms.
        verdicts: what follows for each pair, once judged.
        repairs: the outcome to send once more, where a late request may have undone it.
        past: late marks that cannot matter any more.
    """

    partition: int
    log: Log
    pending: dict[bytes, PairState] = field(default_factory=dict)
    ledger: dict[bytes, Remembered] = field(default_factory=dict)
    dead_pairs: dict[bytes, DeadPair] = field(default_factory=dict)
    marks: dict[bytes, tuple[bytes, Mark]] = field(default_factory=dict)
    late_until_ms: int = 0
    late_to_ms: int = 0
    verdicts: dict[bytes, Verdict] = field(default_factory=dict)
    repairs: dict[bytes, Op] = field(default_factory=dict)
    past: list[bytes] = field(default_factory=list)

    @property
    def pairs(self) -> Iterable[bytes]:
        """All pairs that it has a state of."""
        states = self.log.states
        return [*states, *(pair for pair in self.pending if pair not in states)] if self.pending else list(states)

    def remembered(self, pair: bytes) -> Remembered | None:
        """What is known to be confirmed of a pair, from the ledger and, where it has dead letters, beyond it."""
        dead = self.dead_pairs.get(pair)
        return self.ledger.get(pair) if dead is None else join_remembered(self.ledger.get(pair), dead.confirmed)

    def judge(self, readd: Readd, now_ms: int) -> None:
        """Reaches the verdicts, and finds the repairs that are due at this time (Unix ms, Redis' clock)."""
        states, pending = self.log.states, self.pending
        for pair in self.pairs:
            state, waiting = states.get(pair), pending.get(pair)
            if waiting is not None:
                state = waiting if state is None else join(waiting, state)
            if state is not None:
                self.verdicts[pair] = verdict(state, self.remembered(pair), readd)
        for pair, (_, mark) in self.marks.items():
            reached = self.verdicts.get(pair)
            if mark.until_ms > now_ms or (reached is not None and reached.op is not None):
                continue  # not due; or the record that goes out now will say the last word itself
            known = self.remembered(pair)
            if known is not None and mark.differs_from(known.op):
                self.repairs[pair] = known.op
            else:
                self.past.append(pair)
