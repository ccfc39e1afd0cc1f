"""Formats times and durations for people and other programs (pure)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999, the last that ISO 8601 can write without agreement


def iso_utc(unix_ms: int) -> str:
    """The moment in ISO 8601, UTC, to the millisecond: ``2026-11-23T22:07:27.757Z``."""
    moment = _EPOCH + timedelta(milliseconds=min(max(unix_ms, 0), _LAST_MS))  # exact; a float may lose a millisecond
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_words(seconds: float) -> str:
    """A duration in its two largest units: ``3 h 20 min``, ``42 s``, ``0.3 s``."""
    if seconds < 10:  # tenths matter here
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for i, (size, name) in enumerate(_UNITS):
        if rest >= size:
            lower_size, lower_name = _UNITS[i + 1] if i + 1 < len(_UNITS) else (1, "s")
            return f"{rest // size} {name} {rest % size // lower_size} {lower_name}"
    return f"{rest} s"
