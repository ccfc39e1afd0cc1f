"""Lanes: a relay forwards one at a time, so that several relays keep the order of each owner's changes. Pure."""

from __future__ import annotations

from typing import Final

from producers.contract.change import partition_of

LANES: Final = 16
"""The number of lanes, and so of relays that can work at once. Each row stores its lane, so this must never change."""

NO_LANE: Final = f"lane must be 0 to {LANES - 1}: the CRC-32 of owner, modulo {LANES}"
"""What the column `refused` says of a row in another lane: no relay forwards that one."""


def lane_of(owner: str) -> int:
    """Returns the lane of an owner's changes: CRC-32 of the id's UTF-8 bytes, modulo 16."""
    return partition_of(owner, LANES)
