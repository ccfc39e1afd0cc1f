"""What a log joins into, each entry read by all of the rules: the fast path must say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.core.dead_letter import DEAD_CAP
from worker.core.entry import Malformed, read_entry
from worker.core.pair import PairState, join, state_of

if TYPE_CHECKING:
    from producers.contract.change import Lane
    from worker.core.read import RawEntries


def by_the_rules(
    raw: RawEntries, room: int, partitions: int, lane: Lane = "live", letters: int = DEAD_CAP
) -> tuple[dict[bytes, PairState], list[Malformed], int]:
    """The pairs, the malformed entries, and how many entries these are; of partition 0.

    Args:
        raw: the entries.
        room: most pairs.
        partitions: number of partitions.
        lane: the lane of the log.
        letters: most malformed entries.
    """
    states: dict[bytes, PairState] = {}
    malformed: list[Malformed] = []
    for taken, (entry_id, flat) in enumerate(raw):
        change = read_entry(entry_id, flat, 0, partitions, lane)
        if isinstance(change, Malformed):
            if len(malformed) >= letters:
                return states, malformed, taken
            malformed.append(change)
            continue
        pair, op, at, entry_ms, source = change
        state = state_of(op, at, entry_ms, source)
        if pair not in states and len(states) >= room:
            return states, malformed, taken
        states[pair] = join(states[pair], state) if pair in states else state
    return states, malformed, len(raw)
