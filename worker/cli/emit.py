"""``contact-sync emit``: appends changes from JSON lines to the log."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import contextmanager
from itertools import chain
from typing import IO, TYPE_CHECKING, BinaryIO, Final, cast

import click

from producers import ContactProducer, InvalidChange, ProducerSettings, load_settings
from producers.contract.change import LANES
from producers.emit import emit_lines, parse_line, read_lines
from producers.send.pressure import BulkPacer
from producers.send.stamp import Stamper
from worker.cli.path import PathName
from worker.cli.session import EXIT_FAILED, EXIT_USAGE, Failure, redis_failure, say

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

    from producers import ContactChange, Lane, NotAccepted
    from producers.emit import EmitResult

_EPILOG = """\b
Example:
  echo '{"owner": "1", "contact": "2", "op": "upsert"}' | contact-sync emit
  contact-sync emit changes.jsonl --unsent unsent.jsonl
"""

_REDRAW_LINES: Final = 1_000


@click.command(epilog=_EPILOG)
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE]")
@click.option(
    "--unsent",
    type=PathName(dir_okay=False),
    help="File to append the changes to that Redis did not accept.  [default: standard output]",
)
@click.option(
    "--lane",
    type=click.Choice(LANES),
    help="Lane of lines that name none: bulk for an import, which is sent after live changes.  [default: live]",
)
def emit(*, file: BinaryIO, unsent: Path | None, lane: Lane | None) -> None:
    """Append changes to the log from JSON lines, from FILE or standard input.

    A line is {"owner": "1", "contact": "2", "op": "upsert"}, or "delete"; "at" (Unix milliseconds), "source" and
    "lane" are optional. Bad lines are reported by number and skipped; exit status 1 if there were any.

    If Redis does not accept a change, that change and all after it are written out with their time stamps. Emit those
    again later, not the whole input: its lines would get new time stamps.
    """
    settings = load_settings(ProducerSettings)
    read = _readable(read_lines(cast("io.BufferedReader", file)))
    with (
        _opened(unsent, file) as rest_file,
        ContactProducer(settings=settings) as producer,
        _progress(read, file) as lines,
    ):
        wait = BulkPacer(producer.load, _tell).wait
        result = emit_lines(lines, producer, _report_bad, lambda _: None, lane=lane, before_bulk=wait)
        if result.not_accepted is None:
            say(f"contact-sync: changes accepted: {result.sent:,}; bad lines: {result.bad:,}")
        else:
            failure = redis_failure(settings.redis_url, result.not_accepted.cause)
            say(f"contact-sync: {failure}; changes accepted: {result.sent:,}")
            where = "standard output" if unsent is None else str(unsent)
            left = _write_rest(rest_file, result, result.not_accepted, lines, lane)
            raise Failure(
                f"changes not accepted, or perhaps not: {left:,}; they are written to {where}: emit them again"
            )
    if result.bad:
        raise click.exceptions.Exit(EXIT_FAILED)


def _readable(lines: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """The same lines; an error of reading them is one line."""
    try:
        yield from lines
    except OSError as error:
        raise Failure(f"the input cannot be read: {error.strerror or error}") from None


def _tell(line: str) -> None:
    say(f"contact-sync: {line}")


def _report_bad(number: int, rule: str) -> None:
    say(f"line {number}: {rule}")


@contextmanager
def _opened(unsent: Path | None, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file for changes that are not accepted, opened before any is sent, so that opening cannot fail later."""
    if unsent is None:
        if sys.stdout.name == os.devnull:  # it was closed before the start
            raise Failure("standard output is closed: name a file for what is not accepted with --unsent", EXIT_USAGE)
        if _same_file(sys.stdout.buffer, file):
            raise Failure("standard output is FILE itself: name another file with --unsent", EXIT_USAGE)
        yield sys.stdout.buffer
        return
    try:
        opened = unsent.open("ab")  # appended: what an earlier run wrote there is not in the log yet
    except OSError as error:
        raise Failure(f"{unsent} cannot be written: {error.strerror}", EXIT_USAGE) from None
    try:
        with opened:
            if _same_file(opened, file):
                raise click.BadParameter("must not be FILE itself", param_hint="--unsent")
            yield opened
    except OSError as error:
        lost = f"{unsent} cannot be written: {error.strerror}"
        raise Failure(f"{lost}; not all that was not accepted is there: emit all of it again") from None


def _same_file(one: IO[bytes], other: IO[bytes]) -> bool:
    """Tells if both are one regular file, where what is written would be read again; a terminal may be both."""
    try:
        found = os.fstat(one.fileno())
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(other.fileno()))
    except OSError:  # a stream that is not a file
        return False


def _write_rest(
    out: IO[bytes], result: EmitResult, lost: NotAccepted, lines: Iterator[bytes | None], lane: Lane | None
) -> int:
    """Writes the changes that were not accepted and all after them, with `at` and lane; returns the number."""
    count = 0
    for change in chain(lost.changes, _stamped_rest(result, lost, lines, lane)):
        if change is None:
            out.flush()  # the pipe pauses: what was read is saved before it waits for more
        else:
            out.write(change.model_dump_json(exclude_none=True).encode() + b"\n")
            count += 1
    out.flush()
    return count


def _stamped_rest(
    result: EmitResult, lost: NotAccepted, lines: Iterator[bytes | None], lane: Lane | None
) -> Iterator[ContactChange | None]:
    """The changes after those that are lost, and None when a pipe pauses; reports bad lines."""
    # Later than every stamp so far, so that two changes of one pair keep their order.
    after = (max((change.at or 0 for change in lost.changes), default=0) + 1.5) / 1000
    stamper = Stamper(lambda: max(time.time(), after))

    def stamped(change: ContactChange) -> ContactChange:
        at = stamper.stamp(change.owner, change.contact) if change.at is None else change.at
        return change.model_copy(update={"at": at, "lane": change.lane or lane})

    yield from map(stamped, result.behind)
    number = result.lines
    for line in lines:
        if line is None:
            yield None
            continue
        number += 1
        try:
            if line and not line.isspace():
                yield stamped(parse_line(line))
        except InvalidChange as invalid:
            _report_bad(number, invalid.rule)


@contextmanager
def _progress(lines: Iterator[bytes | None], file: IO[bytes]) -> Iterator[Iterator[bytes | None]]:
    """The same lines; shows their number on standard error, if that is a terminal and the lines are not typed there."""
    if not sys.stderr.isatty() or file.isatty():
        yield lines
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs rich
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.fields[count]:,} lines"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("emit", total=_size(file), count=0)

        def counted() -> Iterator[bytes | None]:
            count = size = 0
            for line in lines:
                if line is not None:
                    count, size = count + 1, size + len(line) + 1
                if line is None or count % _REDRAW_LINES == 0:
                    progress.update(task, completed=size, count=count)
                yield line
            progress.update(task, completed=size, count=count)

        yield counted()


def _size(file: IO[bytes]) -> int | None:
    """Size of a regular file in bytes; None for a pipe."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None
