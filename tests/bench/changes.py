"""The changes that every system is given: the same ones, in the same order."""

from __future__ import annotations

import random
import time
import uuid
from itertools import accumulate
from typing import Final, Literal, NamedTuple

Kind = Literal["daily", "distinct", "hot"]

DAILY_PAIRS: Final = 50_000
"""Pairs that a day's traffic chooses from, all of them known: the second most busy one comes half as often as the
first, the third a third as often (Zipf)."""

HOT_PAIRS: Final = 1_000
DELETES: Final = 0.2
"""Share of deletes."""


class Change(NamedTuple):
    owner: str
    contact: str
    op: str
    at: int | None


def named_by_uuids(given: list[Change]) -> list[Change]:
    """The same changes of owners and contacts that are called by UUIDs, 36 characters each."""
    return [each._replace(owner=_uuid(each.owner), contact=_uuid(each.contact)) for each in given]


def _uuid(number: str) -> str:
    return str(uuid.UUID(int=int(number) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))  # spread, and always the same


def changes(count: int, kind: Kind, seed: int = 1, stamped: float = 1.0) -> list[Change]:
    """Changes to deliver.

    Args:
        count: how many.
        kind: ``distinct``: 95 % of them are of a pair that comes but once; ``hot``: all are of 1,000 pairs; ``daily``:
            a Zipf choice of pairs that are known already (`known_pairs`).
        seed: of the chance that makes them.
        stamped: share of those that carry an ``at``.
    """
    made = _made(count, kind, random.Random(seed))
    chance = random.Random(seed + 1)
    return [each if chance.random() < stamped else each._replace(at=None) for each in made]


def known_pairs() -> list[Change]:
    """One change of each pair that ``daily`` chooses from, older than all of these."""
    at = int(time.time() * 1000) - 3_600_000
    return [Change(*_daily(i), "upsert", at) for i in range(DAILY_PAIRS)]


def _daily(rank: int) -> tuple[str, str]:
    return str(100_000 + rank * 7919 % 5_000), str(10_000_000 + rank)


def _made(count: int, kind: Kind, chance: random.Random) -> list[Change]:
    at = int(time.time() * 1000) - 60_000
    made: list[Change] = []
    weights = list(accumulate(1 / (rank + 1) for rank in range(DAILY_PAIRS)))
    ranks = chance.choices(range(DAILY_PAIRS), cum_weights=weights, k=count) if kind == "daily" else []
    for i in range(count):
        op = "delete" if chance.random() < DELETES else "upsert"
        if kind == "daily":
            owner, contact = _daily(ranks[i])
        elif kind == "hot":
            number = chance.randrange(HOT_PAIRS)
            owner, contact = str(100_000 + number % 250), str(200_000 + number)
        elif i > 100 and chance.random() < 0.05:
            owner, contact = made[chance.randrange(max(0, i - 400), i)][:2]  # soon again, so that batches can join it
        else:
            owner, contact = str(100_000 + chance.randrange(50_000)), str(10_000_000 + i)
        made.append(Change(owner, contact, op, at + i // 100))
    return made
