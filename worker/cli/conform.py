"""``contact-sync conform``: checks entries of the log against each of its rules, or messages against a mapping."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from worker.admin.conform import ADVICE, RULES, Tried, faults, try_message
from worker.cli.path import PathName
from worker.cli.session import Failure, echo_json, painted, printable, session
from worker.config.settings import load_worker_settings
from worker.core.numbers import many
from worker.core.times import iso_utc
from worker.store.client import round_trip
from worker.store.inbox import load_map
from worker.store.replies import all_checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sized
    from pathlib import Path
    from typing import IO

    from producers.contract.change import Lane
    from worker.store.namespace import Namespace

_EPILOG = """\b
Example:
  contact-sync conform
  contact-sync conform --partition 7 --last 20 --json
  contact-sync conform --map debezium.toml messages.jsonl
"""

_COLORS = {"ok": "green", "none": "yellow", "wrong": "red"}
_LAST_MAX = 1_000_000  # Redis refuses a number beyond 64 bits
_SHOWN = 3  # entries shown for each rule


@click.command(epilog=_EPILOG)
@click.argument("messages", type=click.File("rb"), required=False)
@click.option(
    "--map",
    "map_path",
    type=PathName(),
    help="Try this mapping of the inbox (CONTACT_SYNC_INBOX_MAP) with MESSAGES instead.",
)
@click.option("--partition", type=click.IntRange(0), metavar="N", help="Check only this partition.  [default: all]")
@click.option(
    "--last",
    type=click.IntRange(1, _LAST_MAX),
    metavar="N",
    help="Check the newest N entries of each partition.  [default: 100]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def conform(
    *, messages: IO[bytes] | None, map_path: Path | None, partition: int | None, last: int | None, as_json: bool
) -> None:
    """Check what a producer wrote against each rule of the log.

    Workers remove entries from the log, so test a producer while no worker runs. Exit status 0 if all entries conform;
    1 if one does not, or if there are none.

    With --map it shows which changes each of MESSAGES becomes, one on a line, or why it does not fit. MESSAGES is a
    file; - or nothing is standard input. It needs no Redis.
    """
    settings = load_worker_settings(require_credentials=False)
    if map_path is not None:
        if partition is not None or last is not None:
            raise click.UsageError("--partition and --last are for the log, not for --map")
        _try_messages(messages or sys.stdin.buffer, map_path, settings.id_max, as_json=as_json)
        return
    if messages is not None:
        raise click.UsageError("MESSAGES need --map: a mapping to try")
    with session(settings) as opened:
        if partition is not None and partition >= opened.partitions:
            raise click.BadParameter(
                f"must be less than {opened.partitions}, the number of partitions", param_hint="--partition"
            )
        asked = range(opened.partitions) if partition is None else [partition]
        found = _check_entries(opened, asked, last or 100, settings.id_max)
    wrong = [each for each in found if any(rule in RULES for rule in each["faults"])]
    if as_json:
        echo_json({"entries": len(found), "conform": len(found) - len(wrong), "rules": _by_rule(found)})
    elif found:
        _echo(found)
    if not found:
        raise Failure("the log has no entries: no producer wrote any, or a worker has settled them all")
    if wrong:
        raise Failure(f"{len(wrong):,} of {many(len(found), 'entry')} {_do(wrong)} not conform")


def _try_messages(file: IO[bytes], map_path: Path, id_max: int, *, as_json: bool) -> None:
    by = load_map(map_path, "--map")
    tried = wrong = 0
    lines = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        found = try_message(line, int(time.time() * 1000), by, id_max)
        tried, wrong = tried + 1, wrong + (found.field is not None)
        if as_json:
            lines.append({"line": number, **found.as_json()})
        else:
            word = "wrong" if found.field is not None else "ok" if found.changes else "none"
            click.echo(f"{painted(f'{word:7}', _COLORS[word])} line {number}: {printable(_said(found))}")
    if as_json:
        echo_json({"messages": tried, "fit": tried - wrong, "lines": lines})
    if not tried:
        raise Failure("there are no messages: give a file with one on each line")
    if wrong:
        verb = "does" if wrong == 1 else "do"
        raise Failure(f"{wrong:,} of {many(tried, 'message')} {verb} not fit the mapping")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from file
    except OSError as error:
        raise Failure(f"the messages cannot be read: {error.strerror or error}") from None


def _said(found: Tried) -> str:
    if found.field is not None:
        return f"{found.field}: {found.rule}"
    told = [f"{each.op} owner {each.owner}, contact {each.contact} at {iso_utc(each.at)}" for each in found.changes]
    return ", then ".join(told) or found.why_none


def _check_entries(opened: Namespace, partitions: Any, last: int, id_max: int) -> list[dict[str, Any]]:
    keys = opened.keys
    lanes: tuple[tuple[Lane, Callable[[int], str]], ...] = (("live", keys.events), ("bulk", keys.bulk))
    every = [(p, lane, key_of(p)) for p in partitions for lane, key_of in lanes]
    # An error is raised: entries that cannot be read must not count as conforming.
    kinds = all_checked(round_trip(opened.client, [("TYPE", key) for *_, key in every]))
    logs = [log for log, kind in zip(every, kinds, strict=True) if kind == b"stream"]
    asked = [("XREVRANGE", key, "+", "-", "COUNT", last) for *_, key in logs]
    return [
        {"id": entry_id.decode(), "partition": p, "faults": faults(entry_id, flat, p, opened.partitions, lane, id_max)}
        for (p, lane, _), entries in zip(logs, all_checked(round_trip(opened.client, asked)), strict=True)
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
