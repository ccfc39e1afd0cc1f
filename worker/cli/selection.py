"""What `dead-letters` and `parked` share: the options that select some of what is stored, and finding those."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
import orjson

from worker.cli.duration import Duration
from worker.cli.session import Failure, session
from worker.cli.user_id import USER_ID
from worker.config.settings import load_worker_settings
from worker.store.dead_letters import Wanted
from worker.store.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from worker.config.settings import WorkerSettings
    from worker.store.namespace import Namespace

_Command = TypeVar("_Command", bound="Callable[..., None]")


class Stored(Protocol):
    """One of what is stored."""

    @property
    def id(self) -> str:
        """`<partition>-<number>`."""

    def as_json(self) -> dict[str, Any]:
        """Its fields, for people and machines."""


class Finder(Protocol):
    """Finds what is selected."""

    def find(self, wanted: Wanted, /) -> Iterator[Stored]:
        """Finds the wanted ones."""


_Finder = TypeVar("_Finder", bound=Finder)


def _check_ids(_ctx: click.Context, _param: click.Parameter, ids: tuple[str, ...]) -> tuple[str, ...]:
    for each in ids:
        if not re.fullmatch(r"[0-9]{1,5}-[0-9]{1,15}", each):
            raise click.BadParameter("must be a partition and a number, such as 17-3")
    return tuple(dict.fromkeys(ids))


def selecting(what: str, reason_help: str) -> Callable[[_Command], _Command]:
    """Adds the arguments and options that select some.

    Args:
        what: what they are, in the plural.
        reason_help: what `--reason` selects.
    """

    def add_all(command: _Command) -> _Command:
        for add in (
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
            click.option(
                "--older-than",
                type=Duration(),
                help=f"Only {what} older than this, such as 90s, 15m, 6h or 30d.  [default: any age]",
            ),
            click.option("--reason", help=f"{reason_help}  [default: any]"),
            click.option(
                "--contact", type=USER_ID, metavar="TEXT", help=f"Only {what} of this contact.  [default: any]"
            ),
            click.option("--owner", type=USER_ID, metavar="TEXT", help=f"Only {what} of this owner.  [default: any]"),
            click.argument("ids", nargs=-1, metavar="[ID]...", callback=_check_ids),
        ):
            command = add(command)
        return command

    return add_all


@contextmanager
def selected(
    selection: dict[str, Any], what: str, opened: Callable[[Namespace, WorkerSettings], _Finder]
) -> Iterator[tuple[_Finder, Iterator[Any]]]:
    """Finds the selected ones. If an id is unknown, the command does the rest first, and then fails.

    Args:
        selection: the values of the options that `selecting` adds.
        what: what they are, in the singular.
        opened: opens the place where they are stored.
    """
    older_than = selection.pop("older_than")
    wanted = Wanted(**selection)
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace:
        if older_than is not None:
            wanted = replace(wanted, before_ms=Gate(namespace).snapshot().now_ms - int(older_than * 1000))
        finder = opened(namespace, settings)
        seen: set[str] = set()

        def noted() -> Iterator[Any]:
            for each in finder.find(wanted):
                seen.add(each.id)
                yield each

        yield finder, noted()
    if missing := [each for each in wanted.ids if each not in seen]:
        raise Failure(f"no such {what}: {', '.join(missing)}")


def echo_array(items: Iterable[Stored]) -> None:
    """Writes a JSON list, one line for each item, while it reads them: there may be many."""
    opening = "["
    for each in items:
        click.echo(opening + "\n  " + orjson.dumps(each.as_json()).decode(), nl=False)
        opening = ","
    click.echo("[]" if opening == "[" else "\n]")
