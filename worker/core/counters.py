"""Detailed counters for metrics, in the hash of the totals and moved by the same scripts (pure).

`requests:OUTCOME` and `dead:REASON` divide the totals `requests` and `dead_lettered`. `took:OP:N` counts the confirmed
changes of an op that took at most the N-th of `BOUNDS_SECONDS` and longer than the one before it; the last N has no
bound. `took:OP:ms` is the sum of their times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from producers.contract.change import Op
    from worker.core.reasons import Reason

BOUNDS_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
"""From a batch that does not wait to an outage of half a day. Never change one: what was counted stays counted."""

OUTCOMES: Final = ("confirmed", "retry", "rejected", "hold", "too_large")
"""The outcomes of a request, by the names of the classes in `worker.core.outcome`."""

_BOUNDS_MS: Final = tuple(int(1000 * bound) for bound in BOUNDS_SECONDS)


def request_counter(outcome: str) -> str:
    """The counter of requests with this outcome."""
    return f"requests:{outcome}"


def dead_counter(reason: Reason) -> str:
    """The counter of dead letters with this reason."""
    return f"dead:{reason}"


def count_time(totals: Counter[str], op: Op, first_ms: int, now_ms: int) -> None:
    """Counts how long one confirmed change took.

    Args:
        totals: the counters to move.
        op: the change's op.
        first_ms: when Redis accepted it (Unix ms); if the clock went back since then, it counts as no time.
        now_ms: when it was confirmed.
    """
    took_ms = max(0, now_ms - first_ms)
    totals[f"took:{op}:{bisect_left(_BOUNDS_MS, took_ms)}"] += 1
    totals[f"took:{op}:ms"] += took_ms


def count_times(totals: Counter[str], op: Op, entries: Iterable[bytes], now_ms: int) -> None:
    """Counts many changes by the ids of their entries, whose times have 13 digits; each millisecond is counted once."""
    under, ms = [0] * (len(_BOUNDS_MS) + 1), 0
    for moment, number in Counter([entry_id[:13] for entry_id in entries]).items():
        took_ms = max(0, now_ms - int(moment))
        under[bisect_left(_BOUNDS_MS, took_ms)] += number
        ms += number * took_ms
    counted = {f"took:{op}:{i}": number for i, number in enumerate(under) if number}
    if counted:
        totals.update(counted)
        totals[f"took:{op}:ms"] += ms


def times(counted: Mapping[str, int], op: Op) -> tuple[list[int], int]:
    """How many changes fall under each bound and beyond the last, and how long all took together (ms)."""
    found = [counted.get(f"took:{op}:{i}", 0) for i in range(len(BOUNDS_SECONDS) + 1)]
    return found, counted.get(f"took:{op}:ms", 0)
