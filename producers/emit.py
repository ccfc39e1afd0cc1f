"""Changes from JSON lines into the log: the core of ``contact-sync emit`` (CONTRACT section 6)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from producers.contract.change import ContactChange
from producers.contract.errors import InvalidChange, NotAccepted
from producers.send.chunk import CHUNK_SIZE

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Iterator

    from producers.producer import ContactProducer

LINE_MAX_BYTES: Final = 64 * 1024
"""Longest line; a change of the longest ids, all of it escaped, takes a twentieth."""

_BLOCK_BYTES: Final = 64 * 1024
_JSON_NAMES: Final[dict[type, str]] = {list: "a list", str: "text", type(None): "null", bool: "true or false"}

OnBad = Callable[[int, str], None]
"""Told of each bad line: its number, counted from 1, and why it is none."""
OnSent = Callable[[int], None]
"""Told how many more changes are in the log."""


class EmitResult(NamedTuple):
    """What became of the lines.

    Attributes:
        sent: changes that are in the log.
        bad: lines that were reported and skipped.
        lines: lines that were read.
        not_accepted: what Redis did not accept, or perhaps did not; it lies among the last thousand of ``lines``, and
            nothing after them was read.
    """

    sent: int
    bad: int
    lines: int
    not_accepted: NotAccepted | None = None


def read_lines(stream: io.BufferedReader) -> Iterator[bytes | None]:
    """Lines of a file or a pipe, without their ends, and None wherever a pipe has no more for now.

    A line longer than LINE_MAX_BYTES is cut, and still too long to pass, so that memory stays flat.
    """
    rest = b""
    while block := stream.read1(_BLOCK_BYTES):
        *lines, rest = (rest[: LINE_MAX_BYTES + 1] + block).split(b"\n")
        yield from lines
        if len(block) < _BLOCK_BYTES:
            yield None
    if rest:
        yield rest


def parse_line(line: bytes) -> ContactChange:
    """The change that a line of JSON says.

    Raises:
        InvalidChange: it says none; the rule that it breaks.
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
        raise InvalidChange("a line must be a JSON object that says a change") from None
    if not isinstance(fields, dict):
        raise InvalidChange(f"a line must be a JSON object, not {_JSON_NAMES.get(type(fields), 'a number')}")
    return ContactChange(**fields)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidChange("a field stands twice in one line")
    return fields


def emit_lines(lines: Iterable[bytes | None], producer: ContactProducer, on_bad: OnBad, on_sent: OnSent) -> EmitResult:
    """Append every line that is a change, in order, one round trip per thousand lines; memory stays flat.

    Blank lines are skipped. It stops at the first round trip that Redis did not accept whole.

    Args:
        lines: lines of JSON in UTF-8, with or without their ends; None among them sends what was gathered so far, so
            that a pipe that pauses holds nothing back. ``read_lines`` gives both.
        producer: where the changes go.
        on_bad: called for each bad line, in order.
        on_sent: called after each round trip.

    Raises:
        PartitionsMismatch: as ``ContactProducer.send``.
    """
    sent = bad = count = 0
    for batch in _batches(lines):
        outcome = _emit_batch(batch, count, producer)
        count += len(batch)
        for number, rule in sorted(outcome.bad):
            on_bad(number, rule)
        sent, bad = sent + outcome.sent, bad + len(outcome.bad)
        on_sent(outcome.sent)
        if outcome.not_accepted is not None:
            return EmitResult(sent, bad, count, outcome.not_accepted)
    return EmitResult(sent, bad, count)


class _BatchOutcome(NamedTuple):
    sent: int
    bad: list[tuple[int, str]]
    not_accepted: NotAccepted | None = None


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


def _emit_batch(batch: list[bytes], before: int, producer: ContactProducer) -> _BatchOutcome:
    changes: list[tuple[int, ContactChange]] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(batch, start=before + 1):
        try:
            if line and not line.isspace():
                changes.append((number, parse_line(line)))
        except InvalidChange as invalid:
            bad.append((number, invalid.rule))
    sent = 0
    while changes:
        try:
            return _BatchOutcome(sent + len(producer.send(change for _, change in changes)), bad)
        except NotAccepted as error:
            return _BatchOutcome(sent + error.accepted, bad, error)
        except InvalidChange as invalid:  # only the clock could tell; those before it were sent, those after were not
            index = invalid.index or 0
            sent += index
            bad.append((changes[index][0], invalid.rule))
            del changes[: index + 1]
    return _BatchOutcome(sent, bad)
