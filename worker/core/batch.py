"""Chooses the records of one request, and writes its body (pure)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

from producers.contract.keys import PAIR_SEPARATOR
from worker.core.lane import BULK, LIVE, class_of, is_heavy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.core.slice import PartitionSlice


_NEWER: Final = 0
_DUE: Final = 1
"""The order in which records that were refused with an unknown code are tried again: newer changes of a pair first."""

Turn = Literal["none", "newer", "any"]
"""Which of them may go although others wait: none, one of a newer change, any."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one request.

    Attributes:
        chosen: for each slice, in their order, the pairs whose verdict's record is in the request.
        repairs: for each slice, the pairs whose confirmed outcome is sent again.
        upserts: pairs to upsert; they come before the deletes.
        deletes: pairs to delete.
        retried: its record was refused alone before, with an unknown code.
    """

    chosen: tuple[frozenset[bytes], ...]
    repairs: tuple[frozenset[bytes], ...]
    upserts: tuple[bytes, ...]
    deletes: tuple[bytes, ...]
    retried: bool = False

    @property
    def records(self) -> int:
        """Number of records in the request."""
        return len(self.upserts) + len(self.deletes)

    def body(self) -> bytes:
        """The request's JSON body (contract, section 1): a pair at most once, upserts before deletes (3.5)."""
        upserts, deletes = _records(self.upserts, b'"}'), _records(self.deletes, b'","isDeleted":true}')
        return b'{"contacts":[%b%b%b]}' % (upserts, b"," if upserts and deletes else b"", deletes)


def _records(pairs: tuple[bytes, ...], end: bytes) -> bytes:
    """The records of these pairs, with commas between them, built in one go; each ends with `end`."""
    joined = b"\n".join(pairs)  # no id holds a control character
    if b'"' in joined or b"\\" in joined:  # nothing else in an id needs escaping
        joined = joined.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    text = joined.replace(PAIR_SEPARATOR, b'","contactXCUserID":"').replace(b"\n", end + b',{"ownerXCUserID":"')
    return b'{"ownerXCUserID":"%b%b' % (text, end) if pairs else b""


def fill(
    slices: Sequence[PartitionSlice], limit: int, *, doubtful: bool = False, bulk_share: int = 0, turn: Turn = "none"
) -> Batch:
    """Chooses the records of the next request, `limit` at most.

    If more could go, live deletes go first, then live upserts, bulk deletes and bulk upserts. The owners of each
    of these take turns, so that one with many pairs does not keep the others waiting.

    If suspects wait (pairs of a batch that was rejected), only they are chosen, in groups that get smaller. So the
    poisonous record ends up alone, and the healthy ones are confirmed on the way.

    A record that was refused with an unknown code before goes alone, and only now and then while others wait.

    Args:
        slices: judged.
        limit: most records.
        doubtful: many suspects in a row were rejected. What was refused least goes first: records that are not
            suspect, then suspects in the largest groups, and last the records that were refused alone, each time
            another one. A confirmation tells poison from an endpoint that rejects everything, and no innocent record
            waits for a poisonous one.
        bulk_share: records that are left to bulk if that many of it wait, however many wait in the live lane.
        turn: which records that were refused with an unknown code may go although others wait.
    """
    suspects, again = _suspects(slices)
    fast_path = sum(len(part.log.fast_path) for part in slices)
    waiting = _waiting(slices)
    fresh = len(waiting) + fast_path
    if doubtful:
        suspects += [(-tries, i, pair) for _, tries, i, pair in again]
    if suspects and not (doubtful and fresh):
        _materialize(slices)
        group = max(suspects)[0] if doubtful else min(suspects, key=lambda each: (max(1, each[0]), -each[0]))[0]
        chosen = [(i, pair) for size, i, pair in suspects if size == group]
        if doubtful:
            chosen.sort(key=itemgetter(1))  # by owner: whoever is refused is refused together
        return _batch(slices, chosen[: min(max(1, group), limit)], [])
    if again and (not fresh or turn == "any" or (turn == "newer" and min(again)[0] == _NEWER)):
        _materialize(slices)
        return _batch(slices, [min(again)[2:]][:limit], [])
    repairs = [(i, pair) for i, part in enumerate(slices) for pair in part.repairs][:limit]
    if repairs:
        # Alone, so that halving finds a repair that is refused, while other records come and go.
        _materialize(slices)
        return _batch(slices, [], repairs)
    if fresh > limit:
        if fast_path:
            _materialize(slices)
            waiting = _waiting(slices)
        waiting = _first(slices, waiting, limit, bulk_share)
    return _batch(slices, waiting, [])


def _suspects(
    slices: Sequence[PartitionSlice],
) -> tuple[list[tuple[int, int, bytes]], list[tuple[int, int, int, bytes]]]:
    """The suspects with their groups; and the records to try again, with their order and how often they failed."""
    suspects, again = [], []
    for i, part in enumerate(slices):
        for pair, reached in part.verdicts.items() if part.pending else ():  # no other pair can be suspect
            if reached.op is None or reached.state is None or pair in part.resting:
                continue
            if reached.state.refused is not None:
                parked = part.parked.get(pair)
                due = parked is not None and parked.state == reached.state
                again.append((_DUE if due else _NEWER, reached.state.refused.tries, i, pair))
            elif reached.state.suspect:
                suspects.append((reached.state.suspect, i, pair))
    return suspects, again


def _waiting(slices: Sequence[PartitionSlice]) -> list[tuple[int, bytes]]:
    return [
        (i, pair)
        for i, part in enumerate(slices)
        for pair, reached in part.verdicts.items()
        if reached.op is not None and reached.state is not None and not (reached.state.suspect or reached.state.refused)
    ]


def _first(
    slices: Sequence[PartitionSlice], waiting: list[tuple[int, bytes]], limit: int, bulk_share: int
) -> list[tuple[int, bytes]]:
    """Those that go first, `limit` at most."""
    classes: dict[int, list[tuple[int, bytes]]] = {each: [] for each in (*LIVE, *BULK) if not is_heavy(each)}
    for i, pair in waiting:
        op = slices[i].verdicts[pair].op
        if op is not None:
            classes[class_of(op, bulk=slices[i].is_bulk(pair))].append((i, pair))
    bulk = sum(len(some) for each, some in classes.items() if each in BULK)
    chosen: list[tuple[int, bytes]] = []
    for each, some in classes.items():
        room = limit - len(chosen) - (min(bulk, bulk_share) if each in LIVE else 0)
        chosen += some if len(some) <= room else _in_turn(slices, some)[: max(0, room)]
    return chosen


def _in_turn(slices: Sequence[PartitionSlice], pairs: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The first pair of each owner, then the second of each, and so on.

    In each turn those come first whose owner has very many: they are few, and none is left out for what keeps coming.
    """
    taken: Counter[bytes] = Counter()
    turns = []
    for i, pair in pairs:
        owner = pair.partition(PAIR_SEPARATOR)[0]
        turns.append((taken[owner], not is_heavy(slices[i].classes.get(pair, 0))))
        taken[owner] += 1
    return [pairs[i] for i in sorted(range(len(pairs)), key=turns.__getitem__)]


def _materialize(slices: Sequence[PartitionSlice]) -> None:
    """Empties the fast path: what is on it when a batch is filled is in the batch."""
    for part in slices:
        part.materialize()


def _batch(
    slices: Sequence[PartitionSlice], chosen: list[tuple[int, bytes]], repairs: list[tuple[int, bytes]]
) -> Batch:
    upserts = [pair for part in slices for pair in part.log.fast_path.upserts]
    deletes = [pair for part in slices for pair in part.log.fast_path.deletes]
    for i, pair in chosen:
        (upserts if slices[i].verdicts[pair].op == "upsert" else deletes).append(pair)
    for i, pair in repairs:
        (upserts if slices[i].repairs[pair] == "upsert" else deletes).append(pair)
    return Batch(
        chosen=_by_slice([part.log.fast_path for part in slices], chosen),
        repairs=_by_slice([()] * len(slices), repairs),
        upserts=tuple(upserts),
        deletes=tuple(deletes),
        retried=bool(chosen) and all(_refused_before(slices[i], pair) for i, pair in chosen),
    )


def _refused_before(part: PartitionSlice, pair: bytes) -> bool:
    state = part.verdicts[pair].state
    return state is not None and state.refused is not None


def _by_slice(always: Sequence[Iterable[bytes]], pairs: list[tuple[int, bytes]]) -> tuple[frozenset[bytes], ...]:
    sets: list[set[bytes]] = [set(each) for each in always]
    for i, pair in pairs:
        sets[i].add(pair)
    return tuple(frozenset(each) for each in sets)
