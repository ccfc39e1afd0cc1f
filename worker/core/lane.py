"""The two lanes of a partition, and the classes in which its pairs wait (pure).

A lane says when a change is sent, never how its pair ends: joining is a maximum, whatever came through which lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from producers.contract.change import Op

CLASSES: Final = 4
"""Waiting pairs by what is sent next: live deletes, live upserts, bulk deletes, bulk upserts."""

LIVE: Final = range(2)
"""The classes of the live lane, in their order."""

BULK: Final = range(2, CLASSES)
"""The classes of the bulk lane, in their order."""


def class_of(op: Op, *, bulk: bool) -> int:
    """The class of a pair whose next record has this op."""
    return 2 * bulk + (op == "upsert")


def bulk_share(limit: int, moment_ms: int) -> int:
    """Records of a request that bulk gets while both lanes wait: a tenth on average, even of small requests.

    Args:
        limit: most records of the request.
        moment_ms: any time; its last digit decides how a fraction is rounded.
    """
    return limit // 10 + (moment_ms % 10 < limit % 10)
