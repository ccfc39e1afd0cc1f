"""The two lanes of a partition, and the classes in which its pairs wait (pure).

A lane says when a change is sent, never how its pair ends: joining is a maximum, whatever came through which lane.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from producers.contract.keys import PAIR_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from producers.contract.change import Op

CLASSES: Final = 8
"""Waiting pairs by what is sent next: live deletes, live upserts, bulk deletes, bulk upserts. Of each of these first
those of most owners, then those of the few that have very many, so that one is found without looking through theirs."""

LIVE: Final = range(CLASSES // 2)
"""The classes of the live lane, in their order."""

BULK: Final = range(CLASSES // 2, CLASSES)
"""The classes of the bulk lane, in their order."""

LIVE_DELETES: Final = range(2)
"""The classes of live deletes."""

HEAVY_SHARE: Final = 4
"""An owner has very many pairs if more than one in this many of those that were read together are its own,"""

HEAVY_PAIRS: Final = 50
"""and at least this many."""

SAMPLED_PAIRS: Final = 64
"""Pairs of a long log that are looked at to see whether an owner crowds it."""


def class_of(op: Op, *, bulk: bool, heavy: bool = False) -> int:
    """The class of a pair whose next record has this op."""
    return 4 * bulk + 2 * (op == "upsert") + heavy


def is_heavy(each: int) -> bool:
    """Whether a class is one of owners with very many pairs."""
    return each % 2 == 1


def heavy_owners(pairs: Iterable[bytes], least: int = HEAVY_PAIRS) -> frozenset[bytes]:
    """The owners that have very many of these pairs."""
    counted = Counter(pair.partition(PAIR_SEPARATOR)[0] for pair in pairs)
    most = max(least - 1, counted.total() // HEAVY_SHARE)
    return frozenset(owner for owner, number in counted.items() if number > most)


def is_crowded(pairs: Iterable[bytes]) -> bool:
    """Whether an owner crowds a log, as far as its first pairs tell."""
    return bool(heavy_owners(islice(pairs, SAMPLED_PAIRS), least=SAMPLED_PAIRS // HEAVY_SHARE))


def bulk_share(limit: int, moment_ms: int) -> int:
    """Records of a request that bulk gets while both lanes wait: a tenth on average, even of small requests.

    Args:
        limit: most records of the request.
        moment_ms: any time; its last digit decides how a fraction is rounded.
    """
    return limit // 10 + (moment_ms % 10 < limit % 10)
