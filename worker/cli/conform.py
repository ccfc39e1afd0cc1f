"""``contact-sync conform``: checks what a producer wrote against each rule of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from worker.admin.conform import ADVICE, RULES, faults
from worker.cli.session import Failure, echo_json, painted, printable, session
from worker.config.settings import load_worker_settings
from worker.core.numbers import many
from worker.store.client import round_trip

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from producers.contract.change import Lane
    from worker.store.namespace import Namespace

_EPILOG = """\b
Example:
  contact-sync conform
  contact-sync conform --partition 7 --last 20 --json
"""

_SHOWN = 3  # entries shown for each rule


@click.command(epilog=_EPILOG)
@click.option("--partition", type=click.IntRange(0), metavar="N", help="Check only this partition.  [default: all]")
@click.option(
    "--last",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="Check the newest N entries of each partition.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def conform(*, partition: int | None, last: int, as_json: bool) -> None:
    """Check what a producer wrote against each rule of the log.

    Workers remove entries from the log, so test a producer while no worker runs. Exit status 0 if all entries conform;
    1 if one does not, or if there are none.
    """
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as opened:
        if partition is not None and partition >= opened.partitions:
            raise click.BadParameter(
                f"must be less than {opened.partitions}, the number of partitions", param_hint="--partition"
            )
        asked = range(opened.partitions) if partition is None else [partition]
        found = _check_entries(opened, asked, last, settings.id_max)
    wrong = [each for each in found if any(rule in RULES for rule in each["faults"])]
    if as_json:
        echo_json({"entries": len(found), "conform": len(found) - len(wrong), "rules": _by_rule(found)})
    elif found:
        _echo(found)
    if not found:
        raise Failure("the log has no entries: no producer wrote any, or a worker has settled them all")
    if wrong:
        raise Failure(f"{len(wrong):,} of {many(len(found), 'entry')} {_do(wrong)} not conform")


def _check_entries(opened: Namespace, partitions: Any, last: int, id_max: int) -> list[dict[str, Any]]:
    keys = opened.keys
    lanes: tuple[tuple[Lane, Callable[[int], str]], ...] = (("live", keys.events), ("bulk", keys.bulk))
    every = [(p, lane, key_of(p)) for p in partitions for lane, key_of in lanes]
    kinds = round_trip(opened.client, [("TYPE", key) for *_, key in every])
    logs = [log for log, kind in zip(every, kinds, strict=True) if kind == b"stream"]
    asked = [("XREVRANGE", key, "+", "-", "COUNT", last) for *_, key in logs]
    return [
        {"id": entry_id.decode(), "partition": p, "faults": faults(entry_id, flat, p, opened.partitions, lane, id_max)}
        for (p, lane, _), entries in zip(logs, round_trip(opened.client, asked) if asked else (), strict=True)
        for entry_id, flat in entries
    ]


def _by_rule(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        rule: {
            "text": text,
            "required": rule in RULES,
            "wrong": [
                {"entry": each["id"], "partition": each["partition"], "fault": each["faults"][rule]}
                for each in found
                if rule in each["faults"]
            ],
        }
        for rule, text in {**RULES, **ADVICE}.items()
    }


def _echo(found: list[dict[str, Any]]) -> None:
    for each in _by_rule(found).values():
        wrong = each["wrong"]
        word, color = ("ok", "green") if not wrong else ("wrong", "red") if each["required"] else ("advice", "yellow")
        count = f" ({len(wrong):,} of {many(len(found), 'entry')} {_do(wrong)} not)" if wrong else ""
        click.echo(f"{painted(f'{word:7}', color)} {each['text']}{count}")
        for one in wrong[:_SHOWN]:
            click.echo(f"          entry {one['entry']} of partition {one['partition']}: {printable(one['fault'])}")


def _do(wrong: Sized) -> str:
    return "does" if len(wrong) == 1 else "do"
