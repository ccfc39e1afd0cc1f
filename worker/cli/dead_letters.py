"""``contact-sync dead-letters``: lists, redrives and purges changes that could not be delivered."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli.selection import echo_array, selected, selecting
from worker.cli.session import EXIT_FAILED, EXIT_USAGE, Failure, echo_json, printable
from worker.core.numbers import many
from worker.core.times import iso_utc
from worker.store.dead_letters import DeadLetters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.core.dead_letter import DeadLetter
    from worker.store.dead_letters import Redriven

_WHY_NOT: Final[dict[Redriven, str]] = {
    "outdated": "a newer change of its pair was confirmed since",
    "forgotten": "it is older than the memory of its pair, so a newer change may have been confirmed: send it again",
    "malformed": "the entry breaks a rule of the log, and would break it again",
    "gone": "it is no longer a dead letter",
}


@click.group(
    epilog="""\b
Example:
  contact-sync dead-letters list
  contact-sync dead-letters show 17-3
  contact-sync dead-letters redrive --reason refused
  contact-sync dead-letters purge --owner 1 --yes
"""
)
def dead_letters() -> None:
    """List, show, redrive or purge changes that could not be delivered.

    Select letters by their ids, by --owner, --contact, --reason and --older-than, or by both. Without any of them, a
    command takes all letters.
    """


_selecting = selecting("letters", "Only letters with this reason, such as refused or bad_op.")


@contextmanager
def _finding(selection: dict[str, Any]) -> Iterator[tuple[DeadLetters, Iterator[DeadLetter]]]:
    with selected(selection, "dead letter", lambda each, settings: DeadLetters(each, settings.wait_replicas)) as found:
        yield found


@dead_letters.command("list", epilog="\b\nExample:\n  contact-sync dead-letters list --reason refused\n")
@_selecting
def list_letters(*, as_json: bool, **selection: Any) -> None:
    """List dead letters, one line each."""
    with _finding(selection) as (_, found):
        if as_json:
            echo_array(found)
            return
        for letter in found:
            said = "/".join(filter(None, [letter.reason, letter.code, letter.field]))
            outdated = "outdated" if letter.outdated else ""
            words = [f"{letter.id:<9}", iso_utc(letter.since_ms), f"{letter.op or '?':<6}", f"{said:<18}"]
            words += [f"{outdated:<8}", f"owner {letter.owner or '?'}", f"contact {letter.contact or '?'}"]
            click.echo(printable("  ".join(words)))


@dead_letters.command(epilog="\b\nExample:\n  contact-sync dead-letters show 17-3\n")
@_selecting
def show(*, as_json: bool, **selection: Any) -> None:
    """Show every field of dead letters.

    With --json it prints the same list as `list`.
    """
    with _finding(selection) as (_, found):
        if as_json:
            echo_array(found)
            return
        for letter in found:
            fields = letter.as_json()
            for name in ("at", "entry_ms"):
                if fields[name] is not None:
                    fields[name] = f"{fields[name]} ({iso_utc(fields[name])})"
            for name, value in fields.items():
                click.echo(printable(f"{name:<10} {_shown(value)}"))
            click.echo()


def _shown(value: object) -> str:
    return "-" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)


@dead_letters.command(epilog="\b\nExample:\n  contact-sync dead-letters redrive 17-3 17-4\n")
@_selecting
def redrive(*, as_json: bool, **selection: Any) -> None:
    """Put dead letters back into the log.

    A change keeps its `at`; if it has none, it gets the time of its entry. A letter stays a dead letter if a newer
    change was confirmed, or if it breaks a rule of the log. Exit status 1 if any letter was not put back.
    """
    with _finding(selection) as (letters, found):
        wanted = list(found)
        ends = letters.redrive(wanted)
        kept = [(letter.id, end) for letter, end in zip(wanted, ends, strict=True) if end != "redriven"]
        done = len(wanted) - len(kept)
        if as_json:
            echo_json({"redriven": done, "refused": [{"id": each, "why": end} for each, end in kept]})
        else:
            click.echo(f"{done:,} redriven")
        for letter_id, end in kept:
            click.echo(f"contact-sync: {letter_id} not redriven: {_WHY_NOT[end]}", err=True)
    if kept:
        raise click.exceptions.Exit(EXIT_FAILED)


@dead_letters.command(epilog="\b\nExample:\n  contact-sync dead-letters purge --reason bad_op --older-than 30d --yes\n")
@_selecting
@click.option("--yes", is_flag=True, help="Do not ask first.")
def purge(*, as_json: bool, yes: bool, **selection: Any) -> None:
    """Remove dead letters permanently; asks first."""
    if not yes and not sys.stdin.isatty():
        raise Failure("purge asks first, but standard input is not a terminal: add --yes", EXIT_USAGE)
    with _finding(selection) as (letters, found):
        wanted = list(found)
        question = f"Remove {many(len(wanted), 'dead letter')} permanently?"
        if wanted and not yes and not click.confirm(question, err=True):
            raise Failure("nothing was removed")
        removed = letters.purge(wanted)
        if as_json:
            echo_json({"purged": removed})
        else:
            click.echo(f"{removed:,} purged")
