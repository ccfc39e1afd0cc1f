"""What happened to a pair, in words (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.proof.explanation import PairPast
    from tests.proof.history import Change, Sent

_LINES: Final = 40


def story(past: PairPast, held: bool) -> tuple[str, ...]:  # noqa: FBT001 - what the endpoint holds of the pair
    """What happened to a pair, oldest first; the middle of a long story is left out."""
    told = [
        (each.order[0], 0, f"accepted {each.op} {at_in_words(each.at)} as {each.entry_id}{_lane(each)}")
        for each in past.changes
    ]
    for change in past.perhaps:
        since_ms = change.perhaps_since_ms or 0
        told.append((since_ms, 0, f"perhaps accepted {change.op} {at_in_words(change.at)}, from {since_ms} on"))
    for sent, op, settled, *_ in past.deliveries:
        told.append((sent.begun_ms, 1, f"{sent.begun_ms} request {sent.number} says {op}: {_fate(sent, settled)}"))
    for letter in past.letters:
        gone = "" if letter.gone_ms is None else f", gone at {letter.gone_ms}"
        told.append(
            (
                letter.since_ms,
                2,
                f"{letter.since_ms} dead letter {letter.id} of {letter.op} {at_in_words(letter.at)}{gone}",
            )
        )
    lines = [line for _, _, line in sorted(told)]
    if len(lines) > _LINES:
        half = _LINES // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} more …", *lines[-half:]]
    return (*lines, f"the endpoint ends with {'upsert' if held else 'delete or nothing'}")


def _lane(change: Change) -> str:
    return " in bulk" if change.lane == "bulk" else ""


def at_in_words(at: int | None) -> str:
    """A change's `at`, or that it has none."""
    return "without at" if at is None else f"at {at}"


def _fate(sent: Sent, settled: bool | None) -> str:  # noqa: FBT001 - three-valued, as Delivery has it
    acted = "never took effect" if sent.applied is None else f"took effect as number {sent.applied}"
    moved = {None: "settled or not", True: "settled", False: "not settled"}[settled]
    return f"{sent.outcome or 'no known outcome'}, {acted}, {moved}{', beyond the promise' if sent.beyond else ''}"
