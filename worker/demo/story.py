"""The demo's traffic, and the oracle that computes which contacts must exist (pure; randomness is passed in).

The oracle shares no code with the worker's joining: it implements the contract, section 3, anew in four lines.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from producers.contract.change import ContactChange

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from producers.contract.change import Op

Pair: TypeAlias = tuple[str, str]
"""Owner and contact."""

SOURCE: Final = "demo"

CONTACTS_PER_OWNER: Final = 4

TAIL: Final = 1 / 6
"""By which part of the whole duration a change may arrive late. No flurry begins in the last part of that length."""


class Step(NamedTuple):
    """One change of the traffic, with times since the start.

    Attributes:
        due_seconds: when it is emitted.
        pair: owner and contact.
        op: upsert or delete.
        at_ms: when it happened at its source; earlier than `due_seconds` if it arrives late; may be negative.
    """

    due_seconds: float
    pair: Pair
    op: Op
    at_ms: int

    def change(self, start_ms: int) -> ContactChange:
        """Returns the change to emit, if the traffic began at this Unix time in milliseconds."""
        owner, contact = self.pair
        return ContactChange(owner=owner, contact=contact, op=self.op, at=start_ms + self.at_ms, source=SOURCE)


class Story(NamedTuple):
    """The traffic.

    Attributes:
        steps: every change, in the order of emission.
        kinds: how often each kind of flurry occurs.
    """

    steps: list[Step]
    kinds: Counter[str]


class _Move(NamedTuple):
    """One change within a flurry; times in seconds since the flurry began."""

    op: Op
    happens: float
    arrives: float


def _flicker(rng: random.Random, _late_by: float) -> list[_Move]:
    """A user changes their mind several times: the last change counts."""
    moves: list[_Move] = []
    at = 0.0
    for _ in range(rng.randint(1, 8)):
        moves.append(_Move(_any_op(rng), at, at))
        at += rng.uniform(0.005, 0.04)
    return moves


def _readd(rng: random.Random, _late_by: float) -> list[_Move]:
    """A contact is deleted and added again: a delete and a later upsert."""
    again = rng.uniform(0.002, 0.3)
    return [_Move("delete", 0.0, 0.0), _Move("upsert", again, again)]


def _late(rng: random.Random, late_by: float) -> list[_Move]:
    """Two changes; the older one arrives after the newer one, which may be confirmed by then."""
    delay = rng.uniform(0.1, 1.0) * late_by
    return [_Move(_any_op(rng), 0.0, 0.0), _Move(_any_op(rng), -rng.uniform(0.05, 1.0), delay)]


def _doubled(rng: random.Random, late_by: float) -> list[_Move]:
    """The same change twice, as from a producer that got no answer to the first."""
    op = _any_op(rng)
    return [_Move(op, 0.0, 0.0), _Move(op, 0.0, rng.uniform(0.0, 1.0) * late_by)]


def _tie(rng: random.Random, _late_by: float) -> list[_Move]:
    """An upsert and a delete in the same millisecond, in either order: the delete wins."""
    moves = [_Move("upsert", 0.0, 0.0), _Move("delete", 0.0, 0.0)]
    rng.shuffle(moves)
    return moves


def _any_op(rng: random.Random) -> Op:
    return "upsert" if rng.random() < 0.6 else "delete"


_FLURRIES: Final[dict[str, tuple[int, Callable[[random.Random, float], list[_Move]]]]] = {
    "flickers": (50, _flicker),
    "re-adds": (18, _readd),
    "late changes": (14, _late),
    "doubled changes": (14, _doubled),
    "ties": (4, _tie),
}
"""Every kind of flurry, with its weight. A flurry is a few changes of one pair in a short time."""


def tell(rng: random.Random, *, changes: int, pairs: int, seconds: float) -> Story:
    """Generates the traffic.

    Args:
        rng: source of randomness; the same seed generates the same traffic.
        changes: number of changes, at least as many as pairs.
        pairs: number of pairs; each has at least one change, some have many.
        seconds: time in which the changes are emitted.
    """
    late_by = seconds * TAIL
    steps: list[Step] = []
    kinds: Counter[str] = Counter()
    names, weights = list(_FLURRIES), [weight for weight, _ in _FLURRIES.values()]
    flurries = 0
    while room := changes - len(steps):
        # First each pair in turn, so that every pair has a change; then some pairs far more often than others.
        index = flurries if flurries < pairs else int(pairs * rng.random() ** 2)
        unheard = max(0, pairs - flurries - 1)
        kind = rng.choices(names, weights)[0]
        moves = _FLURRIES[kind][1](rng, late_by)
        if len(moves) > room - unheard:
            kind, moves = "flickers", [_Move(_any_op(rng), 0.0, 0.0)]
        moment = rng.uniform(0.0, seconds - late_by)
        steps += [_step(index, moment, move, seconds) for move in moves]
        kinds[kind] += 1
        flurries += 1
    # A stable sort: changes that arrive at the same moment keep the order within their flurry.
    return Story(sorted(steps, key=lambda step: step.due_seconds), kinds)


def _step(index: int, moment: float, move: _Move, seconds: float) -> Step:
    pair = (f"owner-{index // CONTACTS_PER_OWNER}", f"contact-{index}")
    due_seconds = min(moment + move.arrives, seconds)
    return Step(due_seconds, pair, move.op, int((min(moment + move.happens, due_seconds)) * 1000))


def contacts_after(changes: Iterable[ContactChange]) -> set[Pair]:
    """Returns the contacts that must exist after these changes, which all have `at` (contract, section 3).

    For each pair, the change with the greatest `at` counts, and a delete wins a tie; the order does not matter.
    """
    last: dict[Pair, tuple[int, bool]] = {}
    for change in changes:
        pair, stamp = (change.owner, change.contact), (change.at or 0, change.op == "delete")
        last[pair] = max(last.get(pair, stamp), stamp)
    return {pair for pair, (_, deleted) in last.items() if not deleted}
