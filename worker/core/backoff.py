"""How long to wait before the next try at a failing endpoint (pure: the caller passes the time and the draw)."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import chain, repeat
from typing import Final

_DELAY_SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]{1,6})?")
_DELAY_SECONDS_MAX = 9_999_999_999.0  # longer than any setting allows; many digits would be no finite number
# More doublings than any sensible base and maximum need, and few enough that no float overflows.
_MOST_DOUBLINGS = 64
# The shortest wait is a tenth of the base: a draw near 0 would try again at once. A tenth is too short to gather the
# fleet in one moment, which the jitter prevents.
_FLOOR_OF_BASE = 0.1

PARK_SECONDS: Final = (60, 600, 3_600, 21_600, 86_400)
"""Waits between two tries of a record that is refused with an unknown code; the last one repeats."""


def full_jitter(attempt: int, base_seconds: float, max_seconds: float, draw: float) -> float:
    """Returns the wait before the next try (seconds): exponential backoff with full jitter.

    The wait is spread evenly from a tenth of ``base_seconds`` up to ``base_seconds * 2 ** (attempt - 1)``,
    and neither end is above ``max_seconds``.

    Args:
        attempt: number of failures in a row, from 1.
        base_seconds: longest wait after the first failure (CONTACT_SYNC_BACKOFF_BASE_SECONDS).
        max_seconds: longest wait of all (CONTACT_SYNC_BACKOFF_MAX_SECONDS).
        draw: a random number in [0, 1), drawn by the caller.

    Raises:
        ValueError: ``attempt`` is below 1.
    """
    if attempt < 1:
        raise ValueError(f"attempt: counted from 1, got {attempt}")
    ceiling = min(max_seconds, math.ldexp(base_seconds, min(attempt - 1, _MOST_DOUBLINGS)))
    floor = min(base_seconds * _FLOOR_OF_BASE, ceiling)
    return floor + draw * (ceiling - floor)


def retry_after_seconds(header: str | None, now_epoch_seconds: float) -> float | None:
    """Returns the wait that a ``Retry-After`` header asks for (seconds from now).

    It reads both forms of RFC 9110 section 10.2.3: a number of seconds (with a fraction, which some servers send) and
    an HTTP-date. It does not cap the value: the caller does, from the settings.

    Args:
        header: the header's value, with commas between if it came more than once; None if there was none.
        now_epoch_seconds: the present, as Unix time in seconds.

    Returns:
        The longest wait, 0 if the date is in the past; None if there is no header, or it has neither form.
    """
    # A date's own comma parts off its weekday, which says nothing.
    waits = (_wait_seconds(each.strip(), now_epoch_seconds) for each in (header or "").split(","))
    return max((wait for wait in waits if wait is not None), default=None)


def _wait_seconds(text: str, now_epoch_seconds: float) -> float | None:
    if _DELAY_SECONDS.fullmatch(text):
        return min(max(0.0, float(text)), _DELAY_SECONDS_MAX)
    try:
        moment = parsedate_to_datetime(text)
        # HTTP-dates are always GMT; the obsolete asctime form does not say so.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now_epoch_seconds)
    except (ValueError, TypeError, OverflowError):  # not a date, or not one of the calendar
        return None


def next_try_ms(since_ms: int, now_ms: int) -> int:
    """When a parked pair is tried next (Unix ms): the first time of its schedule that is still to come.

    So a try beside the schedule, because a newer change came or an operator asked for it, moves nothing.

    Args:
        since_ms: when it was refused first (Unix ms).
        now_ms: the present (Unix ms).
    """
    due_ms = min(since_ms, now_ms)  # if the clock went back, the schedule begins again
    for seconds in chain(PARK_SECONDS, repeat(PARK_SECONDS[-1])):
        due_ms += seconds * 1000
        if due_ms > now_ms:
            break
    return due_ms
