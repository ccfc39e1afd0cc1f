"""Fast path: pairs of which a log says one op only, settled in bulk without building objects.

Pure. In a healthy round nearly every pair is of this kind. Its state is one side, its verdict is its op, and nothing is
superseded or left over. If the ledger knows only older times of it, nothing is stale either. If anything else is known
of a pair, it takes the slow path, object by object (`worker.core.slice`). The tests prove that both paths agree.

Times are kept as their 13 digits: they compare as the numbers do, and an empty one is before all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from worker.core.entry import entry_time_ms
from worker.core.pair import PairState, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Said = tuple[bytes, bytes, bytes, bytes]
"""What the changes of one op of one pair say together: the greatest `at`, or nothing; the id of the oldest entry; the
time of the newest entry without `at`, or nothing; and the source of the newest change, or nothing."""

_DIGITS: Final = (0, 13)
"""Lengths of a time that can be compared as bytes; an empty one means none."""


@dataclass(slots=True)
class FastPathPairs:
    """The fast-path pairs of one log prefix; each is in one of the two.

    Attributes:
        upserts: pairs that were upserted.
        deletes: pairs that were deleted.
        remembered: what the ledger stores of a pair once its record is confirmed, if the ledger knew the pair before.
    """

    upserts: dict[bytes, Said] = field(default_factory=dict)
    deletes: dict[bytes, Said] = field(default_factory=dict)
    remembered: dict[bytes, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.upserts) + len(self.deletes)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.upserts
        yield from self.deletes

    def among(self, *known: Iterable[bytes]) -> list[bytes]:
        """Those of its pairs that are also in any of these, in an order that does not depend on the process."""
        found = {pair for each in known if each for side in (self.upserts, self.deletes) for pair in side.keys() & each}
        return sorted(found)

    def take_out(self, pair: bytes) -> PairState:
        """Takes a pair off the fast path; returns its state, as joining its changes one by one would."""
        upsert, delete = self.upserts.pop(pair, None), self.deletes.pop(pair, None)
        self.remembered.pop(pair, None)
        return PairState(_side(delete), _side(upsert))

    def recall(self, ledger: Mapping[bytes, bytes]) -> list[bytes]:
        """Notes what the ledger knows of its pairs; returns those that the ledger outdates, wholly or in part.

        Args:
            ledger: what is stored of pairs, as `core.codec` encodes it.
        """
        outdated = []
        upserts, deletes, remembered = self.upserts, self.deletes, self.remembered
        for pair, value in ledger.items():
            delete_at, _, upsert_at = value[1:].partition(b",")
            comparable = len(delete_at) in _DIGITS and len(upsert_at) in _DIGITS
            said = upserts.get(pair)
            if said is not None:
                at = said[0]
                if comparable and (not at or (at > delete_at and at > upsert_at)):
                    remembered[pair] = b"u%b,%b" % (delete_at, at or upsert_at)
                else:
                    outdated.append(pair)
                continue
            said = deletes.get(pair)
            if said is not None:
                at = said[0]
                if comparable and (not at or (at > delete_at and at >= upsert_at)):  # a delete wins if both are equal
                    remembered[pair] = b"d%b,%b" % (max(delete_at, at, said[2]), upsert_at)
                else:
                    outdated.append(pair)
        return outdated

    def ledger(self) -> list[bytes]:
        """What the ledger stores once all are confirmed: pair and entry in turn, encoded as `core.codec` does.

        A delete without `at` is remembered at the time of its entry, an upsert without `at` without a time.
        """
        entries = {pair: b"u," + said[0] for pair, said in self.upserts.items()}
        entries |= {pair: b"d%b," % max(said[0], said[2]) for pair, said in self.deletes.items()}
        entries |= self.remembered
        return list(chain.from_iterable(entries.items()))


def join_said(a: Said, b: Said) -> Said:
    """Both as one; `a` is the one with the older entry."""
    at, oldest, unstamped, source = a
    # The source goes with the newest of the changes, as in `core.pair`.
    newest = max((max(at, unstamped), source), (max(b[0], b[2]), b[3]))
    return max(at, b[0]), oldest, max(unstamped, b[2]), newest[1]


def _side(said: Said | None) -> Side | None:
    return None if said is None else Side(entry_time_ms(said[1]), int(said[0] or 0), int(said[2] or 0), said[3])
