"""How long to leave a failing endpoint alone (pure: the clock and the draw are the caller's)."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

_DELAY_SECONDS = re.compile(r"[+-]?[0-9]{1,10}(\.[0-9]{1,6})?")
# Doubling more often than this reaches any sane maximum from any sane base, and keeps clear of float overflow.
_MOST_DOUBLINGS = 64
# A tenth of the base is the least wait: a draw near 0 would knock again at once on a door that has just been shut,
# and one tenth is too little to gather the fleet in one moment, which is what the jitter is against.
_FLOOR_OF_BASE = 0.1


def full_jitter(attempt: int, base_seconds: float, max_seconds: float, draw: float) -> float:
    """Return the wait before the next try, in seconds: exponential backoff with full jitter.

    The wait is spread evenly from a tenth of ``base_seconds`` up to ``base_seconds * 2 ** (attempt - 1)``,
    and neither end is above ``max_seconds``.

    Args:
        attempt: which failure in a row this is, from 1; any size.
        base_seconds: upper end after the first failure (CONTACT_SYNC_BACKOFF_BASE_SECONDS).
        max_seconds: largest wait there is (CONTACT_SYNC_BACKOFF_MAX_SECONDS).
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
    """Return the wait that a ``Retry-After`` header asks for, in seconds from now.

    Both forms of RFC 9110 section 10.2.3 are read: a number of seconds (fractions too, which some send) and an
    HTTP-date. The value is not capped here: that is the gate's to do, from configuration.

    Args:
        header: the header's value; None if there was none.
        now_epoch_seconds: the present, as Unix time in seconds.

    Returns:
        The wait, 0 if it lies in the past; None if there is no header or it is neither form.
    """
    text = (header or "").strip()
    if _DELAY_SECONDS.fullmatch(text):
        return max(0.0, float(text))
    try:
        moment = parsedate_to_datetime(text)
        # HTTP-dates are always GMT; the obsolete asctime form just does not say so.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now_epoch_seconds)
    except (ValueError, TypeError, OverflowError):  # not a date, or one that no calendar holds
        return None
