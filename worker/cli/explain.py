"""``contact-sync explain``: all that is known of a pair, and why."""

from __future__ import annotations

import re
from typing import Final

import click

from producers.contract.change import AT_MIN_MS, OPS, ContactChange, Op
from producers.receipt import DeliveryStatus, Receipt, ReceiptLookup, lookups, status_from
from worker.admin.explain import explain as explain_pair
from worker.admin.narrate import explanation_json, explanation_lines
from worker.cli.session import echo_json, printable, session
from worker.cli.user_id import USER_ID
from worker.config.settings import load_worker_settings
from worker.core.entry import entry_time_ms
from worker.store.client import command
from worker.store.inbox import load_map

_EPILOG = """\b
Example:
  contact-sync explain 1 9
  contact-sync explain 1 9 --json
  contact-sync explain 1 9 --entry 1795460847757-0 --op delete
"""


def _check_entry(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    if given is not None and not re.fullmatch(r"\d{1,19}-\d{1,19}", given, re.ASCII):
        raise click.BadParameter("must be the id of an entry: two numbers and a dash, such as 1795460847757-0")
    return given


_STATUS_WORDS: Final[dict[DeliveryStatus, str]] = {
    "waiting": "it is waiting",
    "confirmed": "the endpoint confirmed it, or a newer change with the same op",
    "superseded": "a confirmed change wins over it",
    "dead": "it is a dead letter",
    "settled": "it ended; the outcome is no longer remembered",
}


@click.command(epilog=_EPILOG)
@click.argument("owner", type=USER_ID)
@click.argument("contact", type=USER_ID)
@click.option(
    "--entry",
    callback=_check_entry,
    metavar="ID",
    help="A change's entry id, from its receipt: also say what became of it.",
)
@click.option("--op", type=click.Choice(OPS), help="The op of that change.  [required with --entry]")
@click.option(
    "--at",
    type=click.IntRange(AT_MIN_MS),
    metavar="MS",
    help="Its time, in Unix milliseconds.  [default: that of its entry]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(  # noqa: PLR0913 - click passes each option by its name
    *, owner: str, contact: str, entry: str | None, op: Op | None, at: int | None, as_json: bool
) -> None:
    """Show all that is known of the pair OWNER and CONTACT: waiting, confirmed, late, dead, and why.

    With --entry, the id that a producer returned, it also says what became of that change.
    """
    if entry is None and (op is not None or at is not None):
        raise click.UsageError("--op and --at need --entry: they describe that change.")
    if entry is not None and op is None:
        raise click.UsageError("--entry needs --op: the op of that change.")
    settings = load_worker_settings(require_credentials=False)
    inbox_map = load_map(settings.inbox_map)
    with session(settings) as namespace:
        status = None
        if entry is not None and op is not None:
            said_at = at or max(AT_MIN_MS, entry_time_ms(entry.encode()))
            receipt = Receipt.of(entry, ContactChange(owner=owner, contact=contact, op=op, at=said_at))
            replies = [
                command(namespace.client, *words)
                for words in lookups(receipt, namespace.keys, namespace.partitions).commands
            ]
            status = status_from(receipt, ReceiptLookup.of(replies))
        found = explain_pair(
            namespace, owner, contact, readd=settings.readd, id_max=settings.id_max, inbox_map=inbox_map
        )
    if as_json:
        echo_json({"owner": owner, "contact": contact, "delivery_status": status, **explanation_json(found)})
        return
    click.echo(f"owner {printable(owner)}, contact {printable(contact)}: partition {found.partition}")
    if status is not None:
        # The status does not look into the log: any entry counts as waiting until a worker has read as far.
        absent = status == "waiting" and found.unknown and not found.cut
        click.echo(f"the {op} of entry {entry}: {'it is not in the log' if absent else _STATUS_WORDS[status]}")
    for line in explanation_lines(found):
        click.echo(printable(line))
