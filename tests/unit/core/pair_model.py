"""A world of one pair: its log, what Redis keeps of it, the endpoint, and requests that may still act.

What decides is the real code, from raw entries to the writes of a settlement. Only what surrounds it is a model:
`settle.lua`, `mark_late.lua` and `claim.lua` as far as one pair sees them, and an endpoint that remembers one op.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from producers.contract.change import partition_of
from tests.support.pair_oracle import Known, Said, Told, confirm, read, record
from worker.core.batch import fill
from worker.core.codec import decode_mark, decode_state
from worker.core.entry import pair_of
from worker.core.settlement import BatchResult, settlement
from worker.core.slice import PartitionSlice, coalesce_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from producers.contract.change import Op
    from worker.core.pair import Readd
    from worker.core.settlement import Settlement

START_MS: Final = 1_795_460_847_757
LATE_MS: Final = 30_000
ACTING_MS: Final = 10_000 + LATE_MS  # an unanswered request is marked until its deadline and that much longer
OWNER, CONTACT = b"1", b"9"
PAIR: Final = pair_of(OWNER, CONTACT)
PARTITIONS: Final = 64
PARTITION: Final = partition_of(OWNER, PARTITIONS)


class Kept(NamedTuple):
    """What Redis keeps of the pair, as it is stored there; empty bytes where there is nothing."""

    log: tuple[Said, ...] = ()
    pending: bytes = b""
    ledger: bytes = b""
    mark: bytes = b""
    late_until_ms: int = 0
    late_to_ms: int = 0
    waits_in: int | None = None


class Flying(NamedTuple):
    """A request that may still act, until then; a ghost's sender lost its lease and may mark the pair when it acts."""

    op: Op
    until_ms: int
    ghost: bool


class World(NamedTuple):
    """One pair's world, and beside it what the contract knows and allows."""

    left: int
    faults: int
    now_ms: int = START_MS
    kept: Kept = Kept()
    flying: tuple[Flying, ...] = ()
    endpoint: Op | None = None
    known: Known = Known()
    told: Told = Told()

    @property
    def quiet(self) -> bool:
        """Whether nothing waits and nothing can still act or be repaired."""
        return not (self.kept.log or self.kept.pending or self.kept.mark or self.flying)


class Round(NamedTuple):
    """One round over a pair: what would be sent, and what is kept by what becomes of it.

    Attributes:
        op: the record, None where nothing is sent.
        repair: whether it says once more what was confirmed.
        confirmed: what is kept once it was confirmed; or settled, where nothing was sent.
        absorbed: what is kept where nothing is confirmed, but what was read waits as pending.
    """

    op: Op | None
    repair: bool
    confirmed: Kept
    absorbed: Kept


@cache
def _raw(change: Said) -> list[Any]:
    flat = [b"owner", OWNER, b"contact", CONTACT, b"op", change.op.encode()]
    if change.at is not None:
        flat += [b"at", b"%d" % change.at]
    return [b"%d-0" % change.entry_ms, flat]


def _marked(kept: Kept, op: Op, until_ms: int) -> Kept:
    """As `mark_late.lua` does it."""
    upsert, delete = decode_mark(kept.mark) if kept.mark else (0, 0)
    upsert, delete = (max(upsert, until_ms), delete) if op == "upsert" else (upsert, max(delete, until_ms))
    return kept._replace(mark=b"%d,%d" % (upsert, delete))


def _settled(kept: Kept, into: Settlement) -> Kept:
    """As `settle.py` and `settle.lua` do it: late marks first, then log, ledger, pending, and marks to clear."""
    for until_ms in into.late[1:2]:
        kept = _marked(_marked(kept, "upsert", int(until_ms)), "delete", int(until_ms))
    if into.position:
        kept = kept._replace(log=())
    if into.ledger:
        kept = kept._replace(ledger=into.ledger[1])
    if into.drops:
        kept = kept._replace(pending=b"", waits_in=None)
    for each, keep in enumerate(into.keep):
        if keep:
            kept = kept._replace(pending=keep[1], waits_in=each)
    if into.clear and kept.mark == into.clear[1]:
        kept = kept._replace(mark=b"")
    return kept


def _check_totals(before: Kept, into: Settlement, after: Kept) -> None:
    """contract.md, section 6: each entry ends in exactly one total, or waits."""
    ended = sum(
        into.totals[name] for name in ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered")
    )
    waited, waits = (decode_state(each.pending).live if each.pending else 0 for each in (before, after))
    assert into.totals["events"] == len(before.log)
    assert waited + len(before.log) == ended + waits, f"totals do not add up: {dict(into.totals)}"
    assert min(into.totals.values(), default=0) >= 0


def _judged(kept: Kept, now_ms: int, readd: Readd) -> PartitionSlice:
    log = coalesce_prefix([_raw(each) for each in kept.log], PARTITION, PARTITIONS, room=500)
    part = PartitionSlice(PARTITION, log, late_until_ms=kept.late_until_ms, late_to_ms=kept.late_to_ms)
    if kept.pending:
        part.pending[PAIR] = decode_state(kept.pending)
        part.classes[PAIR] = 2 if kept.waits_in is None else kept.waits_in
    if kept.ledger:
        part.ledger = {PAIR: kept.ledger}
    if kept.mark:
        part.marks[PAIR] = (kept.mark, decode_mark(kept.mark))
    part.judge(readd, now_ms)
    return part


@cache
def round_of(kept: Kept, now_ms: int, readd: Readd) -> Round:
    """One round at this time, through the real code."""
    part = _judged(kept, now_ms, readd)
    batch, closed = fill([part], 500), fill([part], 0)
    assert batch.records <= 1
    assert closed.records == 0
    confirmed = settlement(part, batch.chosen[0], batch.repairs[0], BatchResult("confirmed", now_ms, now_ms))
    absorbed = settlement(part, closed.chosen[0], closed.repairs[0], BatchResult("kept", now_ms, now_ms))
    after = Round(
        op="upsert" if batch.upserts else "delete" if batch.deletes else None,
        repair=bool(batch.repairs[0]),
        confirmed=_settled(kept, confirmed),
        absorbed=_settled(kept, absorbed),
    )
    _check_totals(kept, confirmed, after.confirmed)
    _check_totals(kept, absorbed, after.absorbed)
    return after


def steps(world: World, alphabet: Sequence[tuple[Op, int | None]], readd: Readd) -> Iterator[tuple[str, World]]:
    """Everything that can happen next, each with a word for it.

    Raises:
        AssertionError: a round says something else than the contract does.
    """
    if world.left:
        for op, at in alphabet:
            said = Said(op, at, world.now_ms)
            kept = world.kept._replace(log=(*world.kept.log, said))
            told = world.told.and_then(op, at)
            yield f"{op} at {at} appended", world._replace(left=world.left - 1, kept=kept, told=told)
    kept = world.kept
    if kept.log or kept.pending or (kept.mark and decode_mark(kept.mark).until_ms <= world.now_ms):
        yield from _rounds(world, readd)
    for i, each in enumerate(world.flying):
        acted = world._replace(flying=world.flying[:i] + world.flying[i + 1 :], endpoint=each.op)
        yield f"late {each.op} acts", acted
        if each.ghost:
            yield f"late {each.op} acts and is marked", acted._replace(kept=_marked(kept, each.op, world.now_ms))
    yield from _time_passes(world)


def _rounds(world: World, readd: Readd) -> Iterator[tuple[str, World]]:
    kept = world.kept
    known = read(world.known, frozenset(kept.log))
    round_ = round_of(kept, world.now_ms, readd)
    expected = record(known)
    assert (None if round_.repair else round_.op) == expected, f"says {round_}, the contract says {expected} of {known}"
    if round_.op is None:
        yield "settled, nothing to send", world._replace(kept=round_.confirmed, known=known)
        return
    op, now_ms, what = round_.op, world.now_ms, f"{'repair' if round_.repair else 'record'} {round_.op}"
    learned = known if round_.repair else confirm(known, readd)
    yield f"{what} confirmed", world._replace(kept=round_.confirmed, endpoint=op, known=learned)
    if kept.log:
        yield "log absorbed, gate closed", world._replace(kept=round_.absorbed, known=known)
    if world.faults:
        flying = (*world.flying, Flying(op, now_ms + ACTING_MS, ghost=False))
        lost = world._replace(faults=world.faults - 1, flying=flying)
        yield f"{what} unanswered", lost._replace(kept=_marked(kept, op, now_ms + ACTING_MS))
        if round_.absorbed != kept:
            absorbed = _marked(round_.absorbed, op, now_ms + ACTING_MS)
            yield f"{what} unanswered, log absorbed", lost._replace(kept=absorbed, known=known)
        taken = kept._replace(late_until_ms=max(kept.late_until_ms, now_ms + LATE_MS), late_to_ms=now_ms)
        ghost = (*world.flying, Flying(op, now_ms + LATE_MS, ghost=True))
        yield (
            f"{what} sent by a holder that loses its lease",
            lost._replace(now_ms=now_ms + 1, kept=taken, flying=ghost),
        )


def _time_passes(world: World) -> Iterator[tuple[str, World]]:
    """Until the next moment at which anything can be judged otherwise than now."""
    times = [world.kept.late_until_ms, *(each.until_ms for each in world.flying)]
    times += [decode_mark(world.kept.mark).until_ms] if world.kept.mark else []
    ahead = [each for each in times if each > world.now_ms]
    if ahead:
        now_ms = min(ahead)
        flying = tuple(each for each in world.flying if each.until_ms > now_ms)
        yield "time passes", world._replace(now_ms=now_ms, flying=flying)
