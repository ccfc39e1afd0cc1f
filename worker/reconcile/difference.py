"""What a snapshot changes: the difference between what the source says and what is known to be confirmed (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from producers.contract.change import Op
    from worker.core.pair import Remembered

Found = Literal["upsert", "delete", "unchanged", "newer", "unstamped", "held_back", "dead"]
"""What follows for a pair: a change to send, or why none is: it is so already; something newer is confirmed; what is
confirmed carries no time, so that it may be newer; the source was not read whole, so that a gap proves nothing; the
pair has dead letters, and an upsert would most likely be one more. A delete is never left out for that."""


def difference(  # noqa: PLR0913 - all that is known of a pair
    said: Mapping[bytes, Op],
    known: Mapping[bytes, Remembered],
    waiting: Collection[bytes],
    as_of_ms: int,
    *,
    whole: bool,
    dead: Collection[bytes] = (),
) -> Iterator[tuple[Found, bytes]]:
    """Every pair that either side speaks of, with what follows for it.

    Args:
        said: what the source says.
        known: what is known to be confirmed; empty where nothing is, and then all that is said is sent.
        waiting: pairs of which something waits, so that what is confirmed of them may not last.
        as_of_ms: when the snapshot began (Unix ms), the `at` of all that is sent.
        whole: whether every row of the source was read, so that a pair that is missing is gone.
        dead: pairs that have dead letters.
    """
    for pair, op in said.items():
        found = _of_said(op, known.get(pair), as_of_ms, waits=pair in waiting)
        yield "dead" if found == "upsert" and pair in dead else found, pair
    for pair, remembered in known.items():
        if remembered.op == "upsert" and pair not in said:
            yield _of_missing(remembered, as_of_ms, whole=whole), pair


def _of_said(op: Op, known: Remembered | None, as_of_ms: int, *, waits: bool) -> Found:
    if known is None:
        return op
    if known.op == op and not waits:
        return "unchanged"
    return "newer" if _outdated(op, known, as_of_ms) else op


def _of_missing(known: Remembered, as_of_ms: int, *, whole: bool) -> Found:
    if not whole:
        return "held_back"
    if _outdated("delete", known, as_of_ms):
        return "newer"
    return "delete" if known.upsert_at else "unstamped"


def _outdated(op: Op, known: Remembered, as_of_ms: int) -> bool:
    """The rule of worker.join: a delete wins where both are equal."""
    if op == "delete":
        return as_of_ms <= known.delete_at or as_of_ms < known.upsert_at
    return as_of_ms <= max(known.delete_at, known.upsert_at)
