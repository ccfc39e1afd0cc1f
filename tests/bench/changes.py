"""The changes that every system is given: the same ones, in the same order."""

from __future__ import annotations

import random
import time
import uuid
from typing import Final, Literal, NamedTuple

Kind = Literal["distinct", "hot"]

HOT_PAIRS: Final = 1_000
DELETES: Final = 0.2
"""Share of deletes."""


class Change(NamedTuple):
    owner: str
    contact: str
    op: str
    at: int


def named_by_uuids(given: list[Change]) -> list[Change]:
    """The same changes of owners and contacts that are called by UUIDs, 36 characters each."""
    return [each._replace(owner=_uuid(each.owner), contact=_uuid(each.contact)) for each in given]


def _uuid(number: str) -> str:
    return str(uuid.UUID(int=int(number) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))  # spread, and always the same


def changes(count: int, kind: Kind, seed: int = 1) -> list[Change]:
    """``distinct``: 95 % of them are of a pair that comes but once; ``hot``: all are of 1,000 pairs."""
    chance = random.Random(seed)
    at = int(time.time() * 1000) - 60_000
    made: list[Change] = []
    for i in range(count):
        op = "delete" if chance.random() < DELETES else "upsert"
        if kind == "hot":
            number = chance.randrange(HOT_PAIRS)
            owner, contact = str(100_000 + number % 250), str(200_000 + number)
        elif i > 100 and chance.random() < 0.05:
            owner, contact = made[chance.randrange(max(0, i - 400), i)][:2]  # soon again, so that batches can join it
        else:
            owner, contact = str(100_000 + chance.randrange(50_000)), str(10_000_000 + i)
        made.append(Change(owner, contact, op, at + i // 100))
    return made
