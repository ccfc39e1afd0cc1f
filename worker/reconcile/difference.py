"""Computes the difference between a source and what the ledger knows to be confirmed (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from producers.contract.change import Op
    from worker.core.pair import Remembered

Found = Literal["upsert", "delete", "unchanged", "newer", "unstamped", "held_back", "dead"]
"""The result for a pair: the change to send, or why nothing is sent.

- `unchanged`: the endpoint already has this state.
- `newer`: a newer change is confirmed.
- `unstamped`: the confirmed change has no time, so it may be newer.
- `held_back`: the source was not read completely, so a missing pair proves nothing.
- `dead`: the pair has dead letters, and an upsert would most likely become another. Deletes are sent all the same.
"""


def difference(  # noqa: PLR0913 - all that is known about a pair
    source: Mapping[bytes, Op],
    known: Mapping[bytes, Remembered],
    waiting: Collection[bytes],
    as_of_ms: int,
    *,
    whole: bool,
    dead: Collection[bytes] = (),
) -> Iterator[tuple[Found, bytes]]:
    """Yields every pair of the source or the ledger, with its result.

    Args:
        source: the op of each pair in the source.
        known: the confirmed state of each pair in the ledger. If it is empty, the whole source is sent.
        waiting: pairs with waiting changes, whose confirmed state may be about to change.
        as_of_ms: when the snapshot began (Unix ms); the `at` of all changes that are sent.
        whole: whether every row of the source was read, so that a missing pair is deleted.
        dead: pairs with dead letters.
    """
    for pair, op in source.items():
        found = _of_said(op, known.get(pair), as_of_ms, waits=pair in waiting)
        yield "dead" if found == "upsert" and pair in dead else found, pair
    for pair, remembered in known.items():
        if remembered.op == "upsert" and pair not in source:
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
    """Whether a newer change is confirmed; at equal times the delete wins, as in `worker.core.pair`."""
    if op == "delete":
        return as_of_ms <= known.delete_at or as_of_ms < known.upsert_at
    return as_of_ms <= max(known.delete_at, known.upsert_at)
