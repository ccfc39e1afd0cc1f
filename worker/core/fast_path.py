"""Fast path: pairs with a single timestamped op, settled in bulk without building objects.

Pure. In a healthy round nearly every pair is of this kind. Its state is one side, its verdict is its op, nothing is
stale, superseded or left over, and its ledger entry is its greatest `at`. If anything else is known of a pair, it takes
the slow path, object by object (`worker.core.slice`). The tests prove that both paths agree.
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
    """The fast-path pairs of one log prefix; each is in one of both.

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
        """Those of its pairs that are also in any of these."""
        return {pair for each in known if each for side in (self.upserts, self.deletes) for pair in side.keys() & each}

    def take_out(self, pair: bytes) -> PairState:
        """Takes a pair off the fast path; returns its state, as joining its changes one by one would."""
        upsert, delete = self.upserts.pop(pair, None), self.deletes.pop(pair, None)
        return PairState(_side(delete), _side(upsert))

    def ledger(self) -> list[bytes]:
        """What the ledger stores once all are confirmed: pair and entry in turn, encoded as `core.codec` does."""
        upserts = [item for pair, (at, _) in self.upserts.items() for item in (pair, b"u," + at)]
        return upserts + [item for pair, (at, _) in self.deletes.items() for item in (pair, b"d%b," % at)]


def _side(said: Said | None) -> Side | None:
    return None if said is None else Side(entry_time_ms(said[1]), int(said[0]), 0)
