"""What happened to a pair, in words (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.proof.explanation import PairPast
    from tests.proof.history import Change, Sent

_LINES: Final = 40
_AFTER: Final = 5


def story(past: PairPast, *, held: bool, until: int | None = None) -> tuple[str, ...]:
    """What happened to a pair, oldest first; of a long story the part that matters.

    Args:
        past: the pair's.
        held: whether the endpoint holds it in the end.
        until: the request that is to be explained, None for the end.
    """
    ends: tuple[int, int, str] | None = None
    told = [
        (each.order[0], 0, f"accepted {each.op} {at_in_words(each.at)} as {each.entry_id}{_lane(each)}")
        for each in past.changes
    ]
    told += [(each.order[0], 0, f"lost {each.op} {at_in_words(each.at)} as {each.entry_id}") for each in past.lost]
    for change in past.perhaps:
        since_ms = change.perhaps_since_ms or 0
        told.append((since_ms, 0, f"perhaps accepted {change.op} {at_in_words(change.at)}, from {since_ms} on"))
    for sent, op, settled, *_ in past.deliveries:
        told.append((sent.begun_ms, 1, f"{sent.begun_ms} request {sent.number} says {op}: {_fate(sent, settled)}"))
        if sent.number == until:
            ends = told[-1]
    for letter in past.letters:
        gone = "" if letter.gone_ms is None else f", gone at {letter.gone_ms}"
        told.append(
            (
                letter.since_ms,
                2,
                f"{letter.since_ms} dead letter {letter.id} of {letter.op} {at_in_words(letter.at)}{gone}",
            )
        )
    told.sort()
    lines = [line for _, _, line in told]
    if len(lines) > _LINES:
        last = min(len(lines), len(lines) if ends is None else told.index(ends) + 1 + _AFTER)
        first = max(0, last - _LINES)
        lines = [f"… {first} before …", *lines[first:last], f"… {len(lines) - last} after …"]
    return (*lines, f"the endpoint ends with {'upsert' if held else 'delete or nothing'}")


def _lane(change: Change) -> str:
    return " in bulk" if change.lane == "bulk" else ""


def at_in_words(at: int | None) -> str:
    """A change's `at`, or that it has none."""
    return "without at" if at is None else f"at {at}"


def _fate(sent: Sent, settled: bool | None) -> str:  # noqa: FBT001 - three-valued, as Delivery has it
    acted = "never took effect" if sent.applied is None else f"took effect as number {sent.applied}"
    moved = {None: "settled or not", True: "settled", False: "not settled"}[settled]
    told = [sent.outcome or "no known outcome", acted, moved]
    told += [word for word, true in (("beyond the promise", sent.beyond), ("adrift", sent.adrift)) if true]
    return ", ".join(told)
