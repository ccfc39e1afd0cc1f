"""``contact-sync status``: shows what is waiting, since when, what was done, and the endpoint's state."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import click
import redis

from worker.admin.obstacles import obstacles
from worker.admin.scaling import with_workers_wanted
from worker.admin.status import acknowledge, read_status
from worker.cli.session import echo_json, painted, printable, redis_failure, session
from worker.config.settings import load_worker_settings
from worker.core.numbers import are, many
from worker.core.times import in_words, iso_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.admin.status import LaneStatus, Status

_EVERY_SECONDS: Final = 1.0

_COLORS: Final = {"ok": "green", "backing_off": "yellow", "held": "red"}

_EPILOG = """\b
Example:
  contact-sync status
  contact-sync status --watch
  contact-sync status --json | jq .oldest_seconds
"""


@click.command(epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one line per second.")
@click.option(
    "--acknowledge",
    "acknowledged",
    is_flag=True,
    help="Confirm that you know what Redis lost: status no longer shows it.",
)
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(*, as_json: bool, acknowledged: bool, watch: bool) -> None:
    """Show what is waiting, since when, what was done, and the endpoint's state."""
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace:

        def read() -> Status:
            return with_workers_wanted(namespace, read_status(namespace), settings)

        if acknowledged:
            acknowledge(namespace)
        if not watch:
            found = read()
            if as_json:
                echo_json(found.as_json())
            else:
                click.echo("\n".join(status_lines(found)))
        elif as_json or not sys.stdout.isatty():
            _watch_in_lines(read, as_json=as_json)
        else:
            _watch_live(read, settings.redis_url)


def _watch_in_lines(read: Callable[[], Status], *, as_json: bool) -> None:
    while True:
        found = read()
        if as_json:
            echo_json(found.as_json(), lines=True)
        else:
            click.echo("\n".join([iso_utc(found.gate.now_ms), *status_lines(found), ""]))
        time.sleep(_EVERY_SECONDS)


def _watch_live(read: Callable[[], Status], url: str) -> None:
    from rich.live import Live  # noqa: PLC0415 - a single status need not wait for rich

    from worker.cli.watch import Watched, screen  # noqa: PLC0415 - the same

    watched, lines = Watched(), [""]
    with Live(auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while True:
            trouble = ""
            try:
                watched.add(read())
            except redis.RedisError as error:
                if watched.last is None:
                    raise
                trouble = redis_failure(url, error)
            if watched.last is not None:
                lines = status_lines(watched.last)
            live.update(screen(watched, lines, trouble), refresh=True)
            time.sleep(_EVERY_SECONDS)


def status_lines(found: Status) -> list[str]:
    """The status in words: the age of the oldest change before all counts."""
    rows = [
        ("oldest", _oldest(found)),
        ("waiting", _waiting(found)),
        ("lanes", "; ".join(f"{lane}: {_lane(found, each)}" for lane, each in found.lanes.items())),
        ("endpoint", _endpoint(found)),
        ("dead", _dead(found)),
        *([("parked", _parked(found))] if found.parked else []),
        ("worker", _workers(found) if found.worker_awake else "none is awake: contact-sync worker"),
        *_done(found.totals),
    ]
    rows.insert(4, ("pace", _pace(found)))
    if found.away_words():
        rows.append(("redis", painted(found.away_words(), "red")))
    if found.lost_words():
        rows.append(("lost", painted(found.lost_words(), "red") + ": contact-sync status --acknowledge"))
    shown = {"paused", "endpoint_held", "endpoint_backing_off", "no_worker"}  # in rows of their own
    rows += [
        ("blocked", f"{painted(each.message, 'red')}: {each.todo}")
        for each in obstacles(found)
        if each.name not in shown
    ]
    return [f"{name:<10}{text}" for name, text in rows]


def _workers(found: Status) -> str:
    seen = len(found.workers)
    wanted = "" if found.workers_wanted is None else f", {found.workers_wanted:,} wanted"
    return f"awake: {many(seen, 'process')} seen in the last minute{wanted}"


def _oldest(found: Status) -> str:
    seconds = found.oldest_seconds
    if seconds is None:
        return f"nothing waits but {many(found.parked, 'parked pair')}" if found.parked else "nothing waits"
    deletes = found.oldest_delete_seconds
    beside = "" if deletes is None else f"; the oldest delete for {in_words(deletes)}"
    return f"has waited for {in_words(seconds)}{beside}"


def _waiting(found: Status) -> str:
    inbox = f"{found.inbox_entries:,} in the inbox, " if found.inbox_entries else ""
    return (
        f"{many(found.waiting_changes + found.inbox_entries, 'change')}: {inbox}"
        f"{many(found.backlog_events, 'entry')} in the log, {many(found.pending_pairs, 'pair')} pending; "
        f"{found.in_flight:,} of {many(found.partitions, 'partition')} worked on"
    )


def _lane(found: Status, lane: LaneStatus) -> str:
    seconds = found.seconds_since(lane.oldest_ms)
    if seconds is None:
        return "nothing waits"
    entries, pairs = many(lane.backlog_events, "entry"), many(lane.pending_pairs, "pair")
    return f"{entries} in the log, {pairs} pending, the oldest for {in_words(seconds)}"


def _dead(found: Status) -> str:
    return many(found.dead_letters, "letter") + (": contact-sync dead-letters list" if found.dead_letters else "")


def _parked(found: Status) -> str:
    pairs = f"{many(found.parked, 'pair')} {are(found.parked)}"
    return f"{pairs} refused by the endpoint: contact-sync parked list"


def _done(totals: Mapping[str, int]) -> list[tuple[str, str]]:
    upserts, deletes = many(totals["upserts_confirmed"], "upsert"), many(totals["deletes_confirmed"], "delete")
    retries, repairs = many(totals["retries"], "retry"), many(totals["repairs"], "repair")
    joined = ", ".join(f"{totals[name]:,} {name}" for name in ("coalesced", "superseded", "stale"))
    return [
        ("confirmed", f"{many(totals['records_confirmed'], 'record')}: {upserts}, {deletes}"),
        ("", f"(the endpoint itself counted {totals['inserted']:,} inserted, {totals['deleted']:,} deleted)"),
        ("spared", f"{joined}, of {many(totals['events'], 'event')}"),
        ("requests", f"{totals['requests']:,}, {retries}, {repairs}"),
    ]


def _pace(found: Status) -> str:
    """The fleet's rate, whether it binds, and the requests under way."""
    gate = found.gate
    rate = "no rate limit" if gate.rate is None else f"at most {gate.rate:.3g} requests a second"
    if gate.rate_bound_ms:
        rate += f", which has bound for {in_words(max(0, gate.now_ms - gate.rate_bound_ms) / 1000)}"
    most = "" if gate.in_flight_limit is None else f" of at most {gate.in_flight_limit:,}"
    under_way = f"{gate.in_flight:,}{most} requests" if most else many(gate.in_flight, "request")
    return f"{rate}; {under_way} under way"


def _endpoint(found: Status) -> str:
    """The gate in words: state, reason, time of the next try, and last error."""
    gate = found.gate
    if found.gate_away:
        return painted("unknown", _COLORS["backing_off"]) + ": the server of Redis that knows it is away"
    if gate.paused_ms:
        since = in_words(max(0, gate.now_ms - gate.paused_ms) / 1000)
        return painted("paused", _COLORS["held"]) + f" by an operator {since} ago; to continue: contact-sync resume"
    parts = [painted(gate.state.replace("_", " "), _COLORS[gate.state])]
    if gate.reason:
        parts[0] += f" ({printable(gate.reason)})"
    if gate.state != "ok":
        parts.append(f"next try in {in_words(gate.wait_ms / 1000)}" if gate.wait_ms else "next try now")
    if gate.attempts:
        parts.append(f"{many(gate.attempts, 'attempt')} failed")
    if gate.error:
        parts.append(f"last error: {printable(gate.error)}")
    return "; ".join(parts)
