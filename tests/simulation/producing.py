"""Producers of a world: what they say, with what stamp, and what of it Redis accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import partition_of
from tests.proof.history import Change
from tests.simulation.fleet import KEYS, PARTITIONS

if TYPE_CHECKING:
    from producers.contract.change import Lane
    from tests.simulation.world import World

OWNERS: Final = ("1", "4", "2")  # two partitions
CONTACTS: Final = ("7", "8")
_OPS: Final = ("upsert", "delete")
_SKEWS_MS: Final = (0, -700, 900)  # of three producers' clocks
_BACK_MS: Final = (1, 40, 1_000, 8_000, 60_000)
_MALFORMED: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("bad_op", {"op": "remove"}),
    ("missing_contact", {"contact": None}),
    ("bad_owner", {"owner": ""}),
    ("bad_at", {"at": "soon"}),
    ("at_out_of_range", {"at": 17}),
)


class Producers:
    """Several of them, each with a clock of its own.

    Args:
        world: where they live.
        unstamped: whether some of what they say carries no `at`.
        odd: whether some of it is malformed, doubled, or lies in a wrong partition.
    """

    def __init__(self, world: World, *, unstamped: bool, odd: bool) -> None:
        self._world = world
        self._unstamped = unstamped
        self._odd = odd
        self._trouble = 5 + world.chance.below(2) * 5
        # Many changes of few pairs, few of many: both collide in their own way.
        every = [(owner, contact) for owner in OWNERS for contact in CONTACTS]
        self._pairs = (every, every[:3], every[:1])[world.chance.below(3)]
        self._last: tuple[str, str, str, int | None] | None = None
        # Nothing in bulk, some of it, or half.
        self._bulk = (0, 6, 2)[world.chance.below(3)]

    def say(self) -> None:
        """One of them says something."""
        chance = self._world.chance
        again = self._last is not None and chance.one_in(12)
        if again and self._last is not None and self._last[3] is not None:
            owner, contact, op, at = self._last  # its reply was lost, so that it is sent again, as stamped
        else:
            owner, contact = chance.one_of(self._pairs)
            op, at = chance.one_of(_OPS), self._stamp()
        lane: Lane = "bulk" if self._bulk and chance.one_in(self._bulk) else "live"
        if lane == "bulk" and at is None and not (self._odd and chance.one_in(4)):
            at = self._world.now_us // 1000
        self._last = owner, contact, op, at
        fields = {"owner": owner, "contact": contact, "op": op, "at": at}
        partition = partition_of(owner, PARTITIONS)
        malformed = "missing_at" if lane == "bulk" and at is None else None
        if self._odd and malformed is None and chance.one_in(10):
            if chance.one_in(2):
                partition, malformed = (partition + 1) % PARTITIONS, "wrong_partition"
            else:
                malformed, wrong = chance.one_of(_MALFORMED)
                fields |= wrong
        self._accept(partition, fields, malformed, lane)

    def _stamp(self) -> int | None:
        """The producer's clock, at times with little resolution, or when it happened long ago, or nothing."""
        world, chance = self._world, self._world.chance
        if self._unstamped and chance.one_in(3):
            return None
        now_ms = world.now_us // 1000 + chance.one_of(_SKEWS_MS)
        kind = chance.below(self._trouble)
        if kind == 1:
            return now_ms // 1_000 * 1_000
        if kind in {2, 3}:
            return now_ms - chance.one_of(_BACK_MS)
        return now_ms + 200_000 if kind == 4 and chance.one_in(6) else now_ms

    def _accept(self, partition: int, fields: dict[str, Any], malformed: str | None, lane: Lane) -> None:
        flat = [each for name, value in fields.items() if value is not None for each in (name, value)]
        log = KEYS.bulk(partition) if lane == "bulk" else KEYS.events(partition)
        if not self._world.takes(log):
            return
        entry_id = self._world.append(partition, log, flat)
        at = fields["at"] if isinstance(fields["at"], int) and malformed is None else None
        self._world.chronicle.changes.append(
            Change(
                entry_id.decode(),
                partition,
                str(fields["owner"]),
                str(fields["contact"]),
                str(fields["op"]),
                at,
                malformed,
                accepted_ms=self._world.history_ms(),
                lane=lane,
            )
        )
