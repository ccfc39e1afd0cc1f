"""``contact-sync forget``: removes what is stored about an owner, or about one pair, and prints a receipt."""

from __future__ import annotations

import sys
import time

import click

from worker.admin.erasure import Erasure, NotErased, waiting_words
from worker.cli.session import EXIT_USAGE, Failure, echo_json, printable, session
from worker.cli.user_id import USER_ID
from worker.config.settings import load_worker_settings
from worker.core.times import iso_utc
from worker.store.inbox import move_messages
from worker.store.partitions import Partitions

_EPILOG = """\b
Example:
  contact-sync forget 1
  contact-sync forget 1 9 --yes --json > receipt.json
"""


@click.command(epilog=_EPILOG)
@click.argument("owner", type=USER_ID)
@click.argument("contact", required=False, type=USER_ID)
@click.option("--also-waiting", is_flag=True, help="Also remove what is waiting to be delivered: it never will be.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def forget(*, owner: str, contact: str | None, also_waiting: bool, yes: bool, as_json: bool) -> None:
    """Remove what is stored about OWNER, or about the pair OWNER and CONTACT; asks first, and prints a receipt.

    It removes dead letters, remembered outcomes, and with --also-waiting everything that is waiting. Without
    --also-waiting it removes nothing while anything is waiting. It tells the endpoint nothing: to delete a contact
    there, send a delete with `contact-sync emit`.
    """
    if not yes and not sys.stdin.isatty():
        raise Failure("forget asks first, but standard input is not a terminal: add --yes", EXIT_USAGE)
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace:
        every = Partitions.of(namespace, settings)
        move_messages(namespace, settings.inbox_map, settings.wait_replicas)
        erasure = Erasure(
            every, owner, contact, monotonic=time.monotonic, sleep=time.sleep, wait=settings.wait_replicas
        )
        stored = erasure.find()
        if stored.waiting and not also_waiting:
            raise Failure(waiting_words(stored))
        found = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in stored.counts().items())
        if not yes and not click.confirm(f"Remove permanently: {found}?", err=True):
            raise Failure("nothing was removed")
        try:
            removed = erasure.erase(also_waiting=also_waiting, patience_seconds=2 * settings.lease_seconds)
        except NotErased as error:
            raise Failure(str(error)) from None
        at = iso_utc(every.now_ms())
    if as_json:
        echo_json({"forgotten_at": at, "owner": owner, "contact": contact, "removed": removed.counts()})
        return
    who = f"owner {printable(owner)}" + ("" if contact is None else f", contact {printable(contact)}")
    click.echo(f"forgotten at {at}: {who}")
    for name, number in removed.counts().items():
        click.echo(f"{name.replace('_', ' '):<18}{number:>8,}")
