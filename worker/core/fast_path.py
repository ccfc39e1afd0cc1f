"""Pairs of which a log says one thing only, with a time: carried as they came, and settled in bulk.

Pure. Nearly every pair of a healthy round is such a one, and all that `core.pair` and `core.codec` make of it
follows from its op and its greatest `at`: the state is one side, the verdict is its op, nothing is stale, superseded or
left over, and the ledger's entry is that `at`. So it takes the slow way, object by object, only where anything else is
known of it (`worker.core.slice`). The tests prove that both ways say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.core.entry import entry_time_ms
from worker.core.pair import PairState, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Said = tuple[bytes, bytes]
"""Greatest `at` in 13 digits, and the id of the oldest entry."""


@dataclass(slots=True)
class FastPathPairs:
    """The plain pairs of one stretch; each is in one of both.

    Attributes:
        upserts: pairs that were upserted.
        deletes: pairs that were deleted.
    """

    upserts: dict[bytes, Said] = field(default_factory=dict)
    deletes: dict[bytes, Said] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.upserts) + len(self.deletes)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.upserts
        yield from self.deletes

    def among(self, *known: Iterable[bytes]) -> set[bytes]:
        """Those of its pairs that are in any of these, too."""
        return {pair for each in known if each for side in (self.upserts, self.deletes) for pair in side.keys() & each}

    def take_out(self, pair: bytes) -> PairState:
        """The pair's state, as joining its changes one by one makes it; it is no plain pair any more."""
        upsert, delete = self.upserts.pop(pair, None), self.deletes.pop(pair, None)
        return PairState(_side(delete), _side(upsert))

    def ledger(self) -> list[bytes]:
        """What the ledger remembers once all are confirmed: pair and entry in turn, written as `core.codec` does."""
        upserts = [item for pair, (at, _) in self.upserts.items() for item in (pair, b"u," + at)]
        return upserts + [item for pair, (at, _) in self.deletes.items() for item in (pair, b"d%b," % at)]


def _side(said: Said | None) -> Side | None:
    return None if said is None else Side(entry_time_ms(said[1]), int(said[0]), 0)
