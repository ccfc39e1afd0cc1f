"""Whether what a process holds grows: the trend of samples over time (pure)."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP: Final = 0.25
"""Share of the run that is left out: caches fill, and pools grow to what the load asks for."""

GROWTH_SHARE: Final = 0.05
"""So much of its mean may a value grow in the rest of the run: what it moves by chance is less."""


class Trend(NamedTuple):
    """How a value moved after the warm-up.

    Attributes:
        begin: its median in the first quarter of that time.
        end: its median in the last one.
        least: the least value.
        most: the greatest value.
    """

    begin: float
    end: float
    least: float
    most: float

    def is_flat(self, slack: float) -> bool:
        """Whether it has not grown, but for a share of it and a slack in its own unit."""
        return self.end <= self.begin * (1 + GROWTH_SHARE) + slack


def trend(values: Sequence[float]) -> Trend:
    """The trend of samples that were taken at the same distance.

    Raises:
        ValueError: there are fewer than eight.
    """
    if len(values) < 8:
        raise ValueError(f"a trend needs 8 samples, and there are {len(values)}")
    settled = values[int(len(values) * WARM_UP) :]
    quarter = max(1, len(settled) // 4)
    return Trend(
        statistics.median(settled[:quarter]), statistics.median(settled[-quarter:]), min(settled), max(settled)
    )
