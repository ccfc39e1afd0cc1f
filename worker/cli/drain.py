"""``contact-sync drain``: waits until all changes are delivered."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from worker.admin.drain import drain as wait_for_drain
from worker.admin.status import read_status
from worker.cli.number import Number
from worker.cli.session import Failure, printable, session
from worker.config.settings import load_worker_settings
from worker.core.numbers import are, many
from worker.core.times import in_words, iso_utc

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from worker.admin.status import Status

_EPILOG = """\b
Example:
  contact-sync drain --timeout 60 && echo 'all changes are delivered'
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=Number(min=0),
    metavar="SECONDS",
    help="Give up after so many seconds, with exit status 1.  [default: never]",
)
@click.option(
    "--ignore-late",
    is_flag=True,
    help="Do not wait for unanswered requests that may still undo what was confirmed; say for how many pairs.",
)
def drain(*, timeout_seconds: float | None, ignore_late: bool) -> None:
    """Wait until all changes are delivered: none is waiting or in flight, and no late request may undo one.

    An unanswered request may still act until its time is over; then its pairs are repaired if need be. Exit status 0
    when all that is done; 1 at the timeout, or at once if the endpoint is held, with the reason. Dead letters and
    parked pairs do not count as waiting; it says how many pairs are parked.
    """
    settings = load_worker_settings(require_credentials=False)
    with session(settings) as namespace, _progress() as show:
        end, last = wait_for_drain(
            lambda: read_status(namespace),
            show,
            timeout_seconds=timeout_seconds,
            ignore_late=ignore_late,
            monotonic=time.monotonic,
            sleep=time.sleep,
        )
    if end != "drained":
        raise Failure(_why(end, last, timeout_seconds))
    if late := last.late_words():
        click.echo(f"drained; left out: {late}", err=True)
    if last.parked:
        pairs = f"{many(last.parked, 'pair')} {are(last.parked)}"
        click.echo(f"{pairs} parked, refused by the endpoint: contact-sync parked list", err=True)


def _why(end: str, last: Status, timeout_seconds: float | None) -> str:
    gate, endpoint = last.gate, _endpoint(last)
    left = f"{many(last.backlog_events, 'entry')} and {many(last.pending_pairs, 'pair')} are waiting"
    if last.inbox_entries:
        left += f", beside {many(last.inbox_entries, 'entry')} in the inbox"
    if last.oldest_seconds is not None:
        left += f", the oldest for {in_words(last.oldest_seconds)}"
    for more in filter(None, (last.late_words(), last.away_words())):
        left += f"; {more}"
    if gate.paused_ms:
        return f"not drained: deliveries are paused since {iso_utc(gate.paused_ms)} (contact-sync resume); {left}"
    if end == "held":
        return f"not drained: {endpoint}; {left}"
    asleep = "" if last.worker_awake else "; no worker is awake"
    return f"not drained within {timeout_seconds:g} s: {left}; {endpoint}{asleep}"


def _endpoint(last: Status) -> str:
    gate = last.gate
    if last.gate_away:
        return "the endpoint's state is unknown: the server of Redis that knows it is away"
    why = "" if gate.state == "ok" else f" ({printable('; '.join(filter(None, [gate.reason, gate.error])))})"
    return f"the endpoint is {gate.state.replace('_', ' ')}{why}"


def _progress() -> AbstractContextManager[Callable[[Status], Any]]:
    """Shows each status on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _: None)
    return _LiveProgress()


class _LiveProgress:
    """One line on the terminal that shows what is left."""

    def __enter__(self) -> Callable[[Status], None]:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs rich

        self._live = Console(stderr=True).status("reading the status")
        self._live.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _show(self, status: Status) -> None:
        left = f"{many(status.backlog_events, 'entry')}, {many(status.pending_pairs, 'pair')} left"
        if status.late_pairs:
            left += f"; {status.late_words()}"
        state = "unknown" if status.gate_away else status.gate.state
        endpoint = "" if state == "ok" else f"; endpoint {state.replace('_', ' ')}"
        asleep = "" if status.worker_awake else "; no worker is awake"
        self._live.update(left + endpoint + asleep)
