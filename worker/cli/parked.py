"""``contact-sync parked``: lists pairs that the endpoint refuses with an unknown code, retries or buries them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from worker.admin.parked import NotMoved, ParkedPairs
from worker.cli.selection import echo_array, selected, selecting
from worker.cli.session import Failure, echo_json, printable
from worker.core.numbers import are
from worker.core.times import iso_utc
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.admin.parked import ParkedPair
    from worker.config.settings import WorkerSettings
    from worker.store.namespace import Namespace


@click.group(
    epilog="""\b
Example:
  contact-sync parked list
  contact-sync parked retry --reason 40401
  contact-sync parked bury --owner 1
"""
)
def parked() -> None:
    """List, retry or bury pairs whose record the endpoint refuses with an unknown code.

    Such a pair is tried again after 1 minute, 10 minutes, 1 hour, 6 hours, then every 24 hours, and at once if a newer
    change of it arrives. Nothing else waits for it.

    Select pairs by their ids, by --owner, --contact, --reason and --older-than, or by both. Without any of them, a
    command takes all parked pairs.
    """


_selecting = selecting("pairs", "Only pairs refused with this code, such as 40401.")


def _opened(namespace: Namespace, settings: WorkerSettings) -> ParkedPairs:
    every = Partitions.of(namespace, settings)
    return ParkedPairs(every, 2 * settings.lease_seconds, time.monotonic, time.sleep)


@contextmanager
def _finding(selection: dict[str, Any]) -> Iterator[tuple[ParkedPairs, Iterator[ParkedPair]]]:
    with selected(selection, "parked pair", _opened) as found:
        try:
            yield found
        except NotMoved as error:
            raise Failure(str(error)) from None


@parked.command("list", epilog="\b\nExample:\n  contact-sync parked list --reason 40401\n")
@_selecting
def list_pairs(*, as_json: bool, **selection: Any) -> None:
    """List parked pairs, one line each: since when, why, and when each is tried next."""
    with _finding(selection) as (_, found):
        if as_json:
            echo_array(found)
            return
        for each in found:
            said = "/".join(filter(None, [each.code, each.field]))
            words = [f"{each.id:<18}", iso_utc(each.since_ms), f"{each.op:<6}", f"{said:<9}"]
            words += [
                "refused once" if each.tries == 1 else f"refused {each.tries:,} times",
                f"next {iso_utc(each.next_ms)}",
            ]
            words += [f"owner {each.owner}", f"contact {each.contact}"]
            click.echo(printable("  ".join(words)))


@parked.command(epilog="\b\nExample:\n  contact-sync parked retry --reason 40401\n")
@_selecting
def retry(*, as_json: bool, **selection: Any) -> None:
    """Let workers try parked pairs now, one after the other."""
    with _finding(selection) as (pairs, found):
        number = pairs.retry(list(found))
        if as_json:
            echo_json({"retried": number})
        else:
            click.echo(f"{number:,} {are(number)} tried now")


@parked.command(epilog="\b\nExample:\n  contact-sync parked bury --owner 1 --contact 9\n")
@_selecting
def bury(*, as_json: bool, **selection: Any) -> None:
    """Make dead letters of parked pairs; `contact-sync dead-letters redrive` takes that back."""
    with _finding(selection) as (pairs, found):
        number = pairs.bury(list(found))
        if as_json:
            echo_json({"buried": number})
        else:
            click.echo(f"{number:,} buried: contact-sync dead-letters list --reason buried")
