"""Lanes: what one relay forwards at a time, so that several of them keep the order of each owner's changes (pure)."""

from __future__ import annotations

from typing import Final

from producers.contract.change import partition_of

LANES: Final = 16
"""How many there are, and so how many relays can work at once. Recorded with each change: it never changes."""


def lane_of(owner: str) -> int:
    """The lane of an owner's changes: CRC-32 of its UTF-8 bytes, modulo 16."""
    return partition_of(owner, LANES)
