"""Appends changes from JSON lines to the log: the core of ``contact-sync emit`` (contract, section 6)."""

from __future__ import annotations

import codecs
import json
import os
import select
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from producers.contract.change import ContactChange
from producers.contract.errors import InvalidChange
from producers.send.chunk import CHUNK_SIZE
from producers.send.errors import NotAccepted

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Iterator

    from producers.contract.change import Lane
    from producers.producer import ContactProducer

LINE_MAX_BYTES: Final = 64 * 1024
"""Longest line. A change with the longest ids, every character escaped, takes a twentieth of it."""

_BLOCK_BYTES: Final = 64 * 1024
_JSON_NAMES: Final[dict[type, str]] = {list: "a list", str: "text", type(None): "null", bool: "true or false"}

OnBad = Callable[[int, str], None]
"""Called for each invalid line with its number, counted from 1, and the reason."""
OnSent = Callable[[int], None]
"""Called with how many more changes are in the log."""


class EmitResult(NamedTuple):
    """The result for all lines.

    Attributes:
        sent: how many changes are in the log.
        bad: how many lines were reported and skipped.
        lines: how many lines were read.
        not_accepted: the changes that Redis did not accept, or may not have accepted. They are among the last thousand
            of ``lines``; no line after these was read.
        behind: changes of these lines that were not sent, because a change before them breaks a rule that only sending
            tells. They come after those that were not accepted.
    """

    sent: int
    bad: int
    lines: int
    not_accepted: NotAccepted | None = None
    behind: Sequence[ContactChange] = ()


def read_block(stream: Any, size: int) -> bytes:
    """Reads what a binary stream has, at most `size` bytes; waits while it has nothing yet; returns nothing at its end.

    A process that shares our input may have made it non-blocking. Python then takes a pause for the end.
    """
    block: bytes | None = getattr(stream, "read1", stream.read)(size)  # a pipe returns what is available
    if block == b"" and _never_waits(stream):
        while (block := stream.raw.read(size)) is None:
            select.select([stream.raw], [], [])
    return block or b""


def _never_waits(stream: Any) -> bool:
    try:
        return hasattr(stream, "raw") and not os.get_blocking(stream.fileno())
    except OSError:  # a stream that is not a file
        return False


def read_lines(stream: io.BufferedReader) -> Iterator[bytes | None]:
    """Yields the lines of a file or a pipe, without their ends, and None whenever a pipe has no more for now.

    A line longer than LINE_MAX_BYTES is cut so that memory stays flat; what is left is still too long to be valid.
    """
    rest = b""
    while block := read_block(stream, _BLOCK_BYTES):
        *lines, rest = (rest[: LINE_MAX_BYTES + 1] + block).split(b"\n")
        yield from lines
        if len(block) < _BLOCK_BYTES:
            yield None
    if rest:
        yield rest


def parse_line(line: bytes) -> ContactChange:
    """Returns the change in a line of JSON.

    Raises:
        InvalidChange: the line is invalid; the error names the rule that it breaks.
    """
    if len(line) > LINE_MAX_BYTES:
        raise InvalidChange(f"a line must be at most {LINE_MAX_BYTES} bytes")
    try:
        fields = json.loads(line.removeprefix(codecs.BOM_UTF8).decode(), object_pairs_hook=_without_repeats)
    except InvalidChange:
        raise
    except UnicodeDecodeError:
        raise InvalidChange("a line must be UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidChange(f"a line must be a JSON object: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets thousands deep
        raise InvalidChange("a line must be a JSON object with a change") from None
    if not isinstance(fields, dict):
        raise InvalidChange(f"a line must be a JSON object, not {_JSON_NAMES.get(type(fields), 'a number')}")
    return ContactChange(**fields)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidChange("a field appears twice in one line")
    return fields


def emit_lines(  # noqa: PLR0913 - each has its name
    lines: Iterable[bytes | None],
    producer: ContactProducer,
    on_bad: OnBad,
    on_sent: OnSent,
    *,
    lane: Lane | None = None,
    before_bulk: Callable[[], None] = lambda: None,
) -> EmitResult:
    """Appends every valid line, in order, with one round trip per thousand lines. Memory stays flat.

    Blank lines are skipped. It stops after the first round trip in which Redis did not accept everything.

    Args:
        lines: lines of JSON in UTF-8, with or without their ends. None sends what was gathered so far, so that a pipe
            that pauses delays nothing. ``read_lines`` yields both.
        producer: sends the changes.
        on_bad: called for each invalid line, in order.
        on_sent: called after each round trip.
        lane: the lane of changes whose line names none; None is ``live``.
        before_bulk: called before each round trip that has a change of the bulk lane; it may wait.

    Raises:
        PartitionsMismatch: as for ``ContactProducer.send``.
    """
    sent = bad = count = 0
    for batch in _batches(lines):
        outcome = _emit_batch(batch, count, producer, lane, before_bulk)
        count += len(batch)
        for number, rule in sorted(outcome.bad):
            on_bad(number, rule)
        sent, bad = sent + outcome.sent, bad + len(outcome.bad)
        on_sent(outcome.sent)
        if outcome.not_accepted is not None:
            return EmitResult(sent, bad, count, outcome.not_accepted, outcome.behind)
    return EmitResult(sent, bad, count)


class _BatchOutcome(NamedTuple):
    sent: int
    bad: list[tuple[int, str]]
    not_accepted: NotAccepted | None = None
    behind: Sequence[ContactChange] = ()


def _batches(lines: Iterable[bytes | None]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        if line is not None:
            batch.append(line)
        if batch and (line is None or len(batch) == CHUNK_SIZE):
            yield batch
            batch = []
    if batch:
        yield batch


def _emit_batch(
    batch: list[bytes], before: int, producer: ContactProducer, lane: Lane | None, before_bulk: Callable[[], None]
) -> _BatchOutcome:
    changes: list[tuple[int, ContactChange]] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(batch, start=before + 1):
        try:
            if line and not line.isspace():
                changes.append((number, parse_line(line)))
        except InvalidChange as invalid:
            bad.append((number, invalid.rule))
    if any((change.lane or lane) == "bulk" for _, change in changes):
        before_bulk()
    sent = 0
    while changes:
        try:
            return _BatchOutcome(sent + len(producer.send((change for _, change in changes), lane=lane)), bad)
        except NotAccepted as error:
            behind: list[ContactChange] = []
            if isinstance(error.interrupted, InvalidChange):  # which hid those after it from this call
                index = error.interrupted.index or 0
                bad.append((changes[index][0], error.interrupted.rule))
                behind = [change for _, change in changes[index + 1 :]]
            return _BatchOutcome(sent + error.accepted, bad, error, behind)
        except (
            InvalidChange
        ) as invalid:  # only the clock can tell; the changes before it were sent, those after it were not
            index = invalid.index or 0
            sent += index
            bad.append((changes[index][0], invalid.rule))
            del changes[: index + 1]
    return _BatchOutcome(sent, bad)
