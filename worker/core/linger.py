"""How long changes in the log wait, so that more of them share a request (pure)."""

from __future__ import annotations

from typing import NamedTuple


class Linger(NamedTuple):
    """How long the oldest change, and the oldest delete, wait at most (milliseconds)."""

    change_ms: int
    delete_ms: int

    @staticmethod
    def of(linger_seconds: float, delete_linger_seconds: float) -> Linger:
        """From the two settings; a delete never lingers longer than any other change."""
        change_ms = int(linger_seconds * 1000)
        return Linger(change_ms, min(change_ms, int(delete_linger_seconds * 1000)))
