"""What section 3 of contract.md says of one pair, on plain sets of changes: written from its text alone.

Nothing of `worker` is imported. Where the code joins changes into a few maxima, this keeps the changes themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from producers.contract.change import Op


class Said(NamedTuple):
    """One change as the contract knows it: `at` is None where it carries none; `entry_ms` is its entry's time."""

    op: Op
    at: int | None
    entry_ms: int


class Known(NamedTuple):
    """All that the contract lets anybody know of a pair.

    Attributes:
        waiting: changes that wait together.
        ended: `at` (or a delete's entry time, where it has none) and op of what was confirmed, or ended with it.
        confirmed: the op confirmed last.
    """

    waiting: frozenset[Said] = frozenset()
    ended: frozenset[tuple[int, Op]] = frozenset()
    confirmed: Op | None = None


def is_stale(change: Said, known: Known) -> bool:
    """3.3 and 3.4: it carries `at`, and what was confirmed is newer; a delete wins where both are equal."""
    if change.at is None:
        return False
    return any(
        at > change.at or (at == change.at and (op == "delete" or change.op == "upsert")) for at, op in known.ended
    )


def read(known: Known, changes: frozenset[Said]) -> Known:
    """These changes wait too now; what is stale drops out."""
    return known._replace(waiting=frozenset(each for each in known.waiting | changes if not is_stale(each, known)))


def record(known: Known) -> Op | None:
    """3.1, 3.2: what the next request says. A later upsert waits for the delete, so a delete always goes first."""
    ops = {each.op for each in known.waiting}
    return "delete" if "delete" in ops else "upsert" if ops else None


def _known_later(upsert: Said, deletes: frozenset[Said]) -> bool:
    return upsert.at is not None and all(each.at is not None and upsert.at > each.at for each in deletes)


def confirm(known: Known, readd: str) -> Known:
    """The record was confirmed: with it ends all that it wins over."""
    op = record(known)
    deletes = frozenset(each for each in known.waiting if each.op == "delete")
    remains = frozenset(
        each
        for each in known.waiting
        if deletes and readd == "resend" and each.op == "upsert" and _known_later(each, deletes)
    )
    ended = set(known.ended)
    for each in known.waiting - remains:
        at = each.entry_ms if each.at is None and each.op == "delete" else each.at  # 3.4
        # Unstamped upserts that merely stood beside a remaining one end too, but say nothing of any time.
        if at is not None:
            ended.add((at, each.op))
    return Known(remains, _only_greatest(ended), op)


def _only_greatest(ended: set[tuple[int, Op]]) -> frozenset[tuple[int, Op]]:
    """Of each op the newest outdates whatever an older one does; it keeps the histories few."""
    return frozenset({op: (at, op) for at, op in sorted(ended)}.values())


class Told(NamedTuple):
    """What the changes said so far allow as the end, whatever happened on the way.

    Attributes:
        greatest: `at` and whether it is a delete, of the newest change; None once one carried no `at`.
        ops: every op that was said.
        last: the op said last, and whether it carried `at`.
    """

    greatest: tuple[int, bool] | None = (0, False)
    ops: frozenset[Op] = frozenset()
    last: tuple[Op, bool] | None = None

    def and_then(self, op: Op, at: int | None) -> Told:
        """After one more change."""
        greatest = None if at is None or self.greatest is None else max(self.greatest, (at, op == "delete"))
        return Told(greatest, self.ops | {op}, (op, at is not None))

    def allows(self, readd: str) -> frozenset[Op]:
        """The ends that section 3 of contract.md allows."""
        delete: frozenset[Op] = frozenset({"delete"})
        if len(self.ops) == 1:
            return self.ops
        if self.last == ("delete", False):
            return delete  # it waits with whatever is not confirmed, and counts as new against what is
        if self.greatest is not None and (readd == "resend" or self.greatest[1]):
            return delete if self.greatest[1] else frozenset({"upsert"})
        return frozenset({"upsert", "delete"})
