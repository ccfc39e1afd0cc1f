"""``contact-sync dead-letters``: what could not be delivered, and back into the log with it."""

from __future__ import annotations

import re
import sys
from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

import click
import orjson

from worker.commands.session import EXIT_FAILED, EXIT_USAGE, Failure, echo_json, printable, session
from worker.dead_letters import DeadLetters, Wanted
from worker.settings import load_worker_settings
from worker.times import iso_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from worker.dead_letters import Redriven
    from worker.letter import Letter

P = ParamSpec("P")

_WHY_NOT: Final[dict[Redriven, str]] = {
    "outdated": "newer knowledge of its pair was confirmed since",
    "forgotten": "it lay longer than its pair is remembered, so that newer knowledge cannot be ruled out",
    "malformed": "the entry breaks a rule of the log, and would again",
    "gone": "it is no dead letter any more",
}

_EPILOG = """\b
Example:
  contact-sync dead-letters list
  contact-sync dead-letters show 17-3
  contact-sync dead-letters redrive --reason refused
  contact-sync dead-letters purge --owner 1 --yes
"""


@click.group(epilog=_EPILOG)
def dead_letters() -> None:
    """What could not be delivered, and back into the log with it.

    Letters are named by their ids, or by --owner, --contact and --reason together; without any, all are meant.
    """


def _check_ids(_ctx: click.Context, _param: click.Parameter, ids: tuple[str, ...]) -> tuple[str, ...]:
    for letter_id in ids:
        if not re.fullmatch(r"[0-9]{1,5}-[0-9]{1,15}", letter_id):
            raise click.BadParameter("an id is a partition and a number, such as 17-3")
    return tuple(dict.fromkeys(ids))


def _about_letters(
    epilog: str,
) -> Callable[[Callable[Concatenate[Wanted, P], None]], Callable[..., None]]:
    """The arguments and options that all four commands take, handed over as one value."""

    def decorate(command: Callable[Concatenate[Wanted, P], None]) -> Callable[..., None]:
        @dead_letters.command(name=command.__name__.removeprefix("_"), epilog=f"\b\nExample:\n  {epilog}\n")
        @click.argument("ids", nargs=-1, metavar="[ID]...", callback=_check_ids)
        @click.option("--owner", help="Only letters of this owner.")
        @click.option("--contact", help="Only letters of this contact.")
        @click.option("--reason", help="Only letters with this reason, such as refused or bad_op.")
        @click.option("--json", "as_json", is_flag=True, help="As JSON.")
        @wraps(command)
        def wrapped(
            ids: tuple[str, ...], owner: str | None, contact: str | None, reason: str | None, **rest: Any
        ) -> None:
            command(Wanted(ids, owner, contact, reason), **rest)  # type: ignore[arg-type] # click hands over the options

        return wrapped

    return decorate
