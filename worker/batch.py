"""Which records go into one request, and its body (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from worker.entry import split_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.stretch import Stretch


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one request.

    Attributes:
        chosen: for each stretch, in their order, the pairs whose verdict's record is in it.
        repairs: for each stretch the pairs whose confirmed outcome is sent once more.
        upserts: pairs to be upserted; they stand before the deletes.
        deletes: pairs to be deleted.
    """

    chosen: tuple[frozenset[bytes], ...]
    repairs: tuple[frozenset[bytes], ...]
    upserts: tuple[bytes, ...]
    deletes: tuple[bytes, ...]

    @property
    def records(self) -> int:
        """How many records the request has."""
        return len(self.upserts) + len(self.deletes)

    def body(self) -> bytes:
        """The request's JSON body (CONTRACT section 1): a pair at most once, upserts before deletes (3.5)."""
        contacts: list[dict[str, str | bool]] = []
        for pair in self.upserts:
            owner, contact = split_pair(pair)
            contacts.append({"ownerXCUserID": owner.decode(), "contactXCUserID": contact.decode()})
        for pair in self.deletes:
            owner, contact = split_pair(pair)
            deleted: dict[str, str | bool] = {"ownerXCUserID": owner.decode(), "contactXCUserID": contact.decode()}
            deleted["isDeleted"] = True
            contacts.append(deleted)
        return orjson.dumps({"contacts": contacts})


def fill(stretches: Sequence[Stretch], limit: int, *, doubtful: bool = False) -> Batch:
    """Chooses the records of the next request, `limit` at most.

    Where suspects wait (pairs of a batch that was rejected) only they are chosen, in groups as small as was found
    necessary, so that the poisonous record ends up alone and the healthy ones are confirmed on the way.

    Args:
        stretches: judged.
        limit: most records.
        doubtful: many suspects in a row were rejected, so that others go first where there are any: their
            confirmation tells poison from an endpoint that rejects everything, and they are not kept waiting by it.
    """
    suspects = [
        (reached.state.suspect, i, pair)
        for i, stretch in enumerate(stretches)
        if stretch.pending  # only what waits already can be suspect
        for pair, reached in stretch.verdicts.items()
        if reached.op is not None and reached.state is not None and reached.state.suspect
    ]
    fresh = doubtful and len(suspects) < sum(
        reached.op is not None for stretch in stretches for reached in stretch.verdicts.values()
    )
    if suspects and not fresh:
        size = min(suspects)[0]
        return _batch(stretches, [(i, pair) for group, i, pair in suspects if group == size][: min(size, limit)], [])
    repairs = [(i, pair) for i, stretch in enumerate(stretches) for pair in stretch.repairs][:limit]
    if repairs:
        # Alone, so that one that is refused can be found by halving while other records come and go.
        return _batch(stretches, [], repairs)
    waiting = [
        (i, pair)
        for i, stretch in enumerate(stretches)
        for pair, reached in stretch.verdicts.items()
        if reached.op is not None and reached.state is not None and not reached.state.suspect
    ]
    return _batch(stretches, waiting[:limit], [])


def _batch(stretches: Sequence[Stretch], chosen: list[tuple[int, bytes]], repairs: list[tuple[int, bytes]]) -> Batch:
    upserts: list[bytes] = []
    deletes: list[bytes] = []
    for i, pair in chosen:
        (upserts if stretches[i].verdicts[pair].op == "upsert" else deletes).append(pair)
    for i, pair in repairs:
        (upserts if stretches[i].repairs[pair] == "upsert" else deletes).append(pair)
    return Batch(
        chosen=_by_stretch(len(stretches), chosen),
        repairs=_by_stretch(len(stretches), repairs),
        upserts=tuple(upserts),
        deletes=tuple(deletes),
    )


def _by_stretch(count: int, pairs: list[tuple[int, bytes]]) -> tuple[frozenset[bytes], ...]:
    sets: list[set[bytes]] = [set() for _ in range(count)]
    for i, pair in pairs:
        sets[i].add(pair)
    return tuple(frozenset(each) for each in sets)
