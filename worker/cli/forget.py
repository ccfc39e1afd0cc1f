"""``contact-sync forget``: removes what is kept about an owner, or one of its pairs, with a receipt."""

from __future__ import annotations

import sys
import time

import click

from producers.contract.change import ID_MAX_BYTES, id_fault
from worker.admin.erasure import Erasure, NotForgotten, waiting_words
from worker.cli.session import EXIT_USAGE, Failure, echo_json, printable, session
from worker.config.settings import load_worker_settings
from worker.core.times import iso_utc
from worker.store.partitions import Partitions

_EPILOG = """\b
Example:
  contact-sync forget 1
  contact-sync forget 1 9 --yes --json > receipt.json
"""


def _check_id(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    raw = (given or "").encode("utf-8", "surrogateescape")
    if given is not None and id_fault(raw) is not None:
        raise click.BadParameter(f"must be 1 to {ID_MAX_BYTES} bytes of UTF-8 without control characters")
    return None if given is None else raw.decode()


@click.command(epilog=_EPILOG)
@click.argument("owner", callback=_check_id)
@click.argument("contact", required=False, callback=_check_id)
@click.option("--also-waiting", is_flag=True, help="Also what waits to be delivered, which then never is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def forget(*, owner: str, contact: str | None, also_waiting: bool, yes: bool, as_json: bool) -> None:
    """Remove what is kept about OWNER, or about its CONTACT alone; asks first, and gives a receipt.

    That is: dead letters, what is remembered of confirmed outcomes, and with --also-waiting all that waits. Without it
    nothing is removed while anything waits. The endpoint is told nothing: to delete a contact there, say so with emit.
    """
    if not yes and not sys.stdin.isatty():
        raise Failure("forget asks first, and nobody can answer here: say --yes", EXIT_USAGE)
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as (client, keys, partitions):
        every = Partitions(
            client,
            keys,
            partitions,
            time.monotonic,
            lease_seconds=settings.lease_seconds,
            late_seconds=settings.late_seconds,
            ledger_seconds=settings.ledger_seconds,
        )
        erasure = Erasure(client, keys, every, owner, contact, time.monotonic, time.sleep)
        kept = erasure.look()
        if kept.waits and not also_waiting:
            raise Failure(waiting_words(kept))
        found = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in kept.counts().items())
        if not yes and not click.confirm(f"Remove for good: {found}?", err=True):
            raise Failure("nothing was removed")
        try:
            removed = erasure.forget(also_waiting=also_waiting, patience_seconds=2 * settings.lease_seconds)
        except NotForgotten as error:
            raise Failure(str(error)) from None
        at = iso_utc(every.now_ms())
    if as_json:
        echo_json({"forgotten_at": at, "owner": owner, "contact": contact, "removed": removed.counts()})
        return
    who = f"owner {printable(owner)}" + ("" if contact is None else f", contact {printable(contact)}")
    click.echo(f"forgotten at {at}: {who}")
    for name, number in removed.counts().items():
        click.echo(f"{name.replace('_', ' '):<18}{number:>8,}")
