"""``contact-sync relay``: forwards changes from an outbox in a database to the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click
import structlog

from producers.contract.errors import Repartitioning
from producers.producer import ContactProducer
from worker.cli.interrupts import noting_interrupts
from worker.cli.number import Number
from worker.cli.session import EXIT_USAGE, Failure, echo_json, redis_failure
from worker.config.database import NoDatabase, open_database, why
from worker.config.settings import load_worker_settings
from worker.core.numbers import are
from worker.core.times import iso_utc
from worker.process.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Callable

    from producers.outbox import Relay
    from worker.config.settings import WorkerSettings

_LOG = structlog.get_logger("contact_sync")

_BATCHES: Final = 100
"""Number of batches between two checks for a signal."""

_SLOWEST_SECONDS: Final = 10.0
"""Longest time between two tries while Redis or the database is away."""

_EPILOG = """\b
Example:
  contact-sync relay postgresql+psycopg://app@db/app
  contact-sync relay sqlite:///app.db --create-tables --once
"""


@click.command(epilog=_EPILOG)
@click.argument("url")
@click.option("--create-tables", is_flag=True, help="First create the outbox's tables if they are missing.")
@click.option("--once", is_flag=True, help="Stop when everything in the outbox is forwarded.")
@click.option(
    "--poll",
    type=Number(0.01, 60),
    default=0.2,
    show_default=True,
    help="Seconds between two reads of the outbox.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; only with --once.")
def relay(*, url: str, create_tables: bool, once: bool, poll: float, as_json: bool) -> None:
    """Forward changes from the outbox of a database to the log; URL is a database URL for SQLAlchemy.

    Several relays may run at once: each takes other owners. A killed relay loses nothing. If Redis or the database
    is away, it waits and then continues by itself.
    """
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    settings = load_worker_settings(require_credentials=False)
    try:
        engine = open_database(url, "URL")
    except NoDatabase as error:
        raise Failure(str(error), EXIT_USAGE) from None
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - an extra, which is installed by now

    from producers.outbox import NoOutbox, Relay  # noqa: PLC0415 - the same
    from producers.outbox import create_tables as create  # noqa: PLC0415 - the same

    set_up_logging()
    with ContactProducer(settings=settings) as producer, noting_interrupts() as interrupts:
        try:
            if create_tables:
                create(engine)
            if once:
                _tell(Relay(engine, producer), settings, as_json=as_json)
            else:
                forwarding = Forwarding(lambda: Relay(engine, producer), SQLAlchemyError, poll)
                for _ in interrupts.ticks(poll):
                    forwarding.forward()
        except NoOutbox as error:
            raise Failure(str(error), EXIT_USAGE) from None
        except SQLAlchemyError as error:
            raise Failure(f"the database: {why(error)}") from None
        finally:
            engine.dispose()


class Forwarding:
    """The relay's loop: one run per tick, less and less often while Redis or the database is away.

    Args:
        make: makes a relay; called again until its database answers.
        database_errors: what a relay raises if the database is away, or busy for too long.
        poll: seconds between two ticks while all is well.
    """

    def __init__(self, make: Callable[[], Relay], database_errors: type[Exception], poll: float) -> None:
        self._make = make
        self._database_errors = database_errors
        self._relay: Relay | None = None
        self._failures = 0
        self._bulk_waits = False
        self._poll = poll
        self._not_before = 0.0

    def forward(self) -> None:
        """Forwards what is in the outbox, unless it is too early after a failure.

        Raises:
            NoOutbox: the database lacks a table of the outbox.
            PartitionsMismatch, UnknownLogFormat: the log does not match the settings.
        """
        if time.monotonic() < self._not_before:
            return
        began = time.monotonic()
        try:
            if self._relay is None:
                self._relay = self._make()
                _LOG.info("relay_started", waiting=self._relay.waiting().changes)
            done = self._relay.run_once(_BATCHES)
        except self._database_errors as error:
            self._waits("database", why(error))
            return
        except Repartitioning as error:
            self._waits("log", str(error))
            return
        if done.forwarded:
            _LOG.info("relay_forwarded", changes=done.forwarded)
        if done.refused:
            _LOG.warning("relay_refused", rows=done.refused)
        self._log_bulk(done.bulk_waits)
        if done.cause is not None:
            self._waits("redis", str(done.cause), began if done.partly else None)
        elif self._failures:
            self._failures = 0
            _LOG.info("relay_goes_on")

    def _log_bulk(self, waits: str) -> None:
        if waits and not self._bulk_waits:
            _LOG.warning("relay_bulk_waits", why=waits)
        elif self._bulk_waits and not waits:
            _LOG.info("relay_bulk_goes_on")
        self._bulk_waits = bool(waits)

    def _waits(self, away: str, error: str, others_since: float | None = None) -> None:
        """Waits longer with each failure; while others go on, as long as the run took that began then."""
        if not self._failures:
            _LOG.warning("relay_waits", away=away, error=error)
        self._failures += 1
        now = time.monotonic()
        longer = self._poll * 2 ** min(self._failures, 16) if others_since is None else now - others_since
        self._not_before = now + min(_SLOWEST_SECONDS, longer)


def _tell(relay: Relay, settings: WorkerSettings, *, as_json: bool) -> None:
    """Runs until nothing is left, and prints what it did."""
    try:
        done = relay.run_once()
    except Repartitioning as error:
        raise Failure(str(error)) from None
    left = relay.waiting()
    if as_json:
        echo_json(
            {
                "forwarded": done.forwarded,
                "waiting": left.changes,
                "oldest_at": None if left.oldest_at is None else iso_utc(left.oldest_at),
                "refused": left.refused,
            }
        )
    elif done.cause is None:
        why_waiting = done.bulk_waits or "other relays are forwarding them"
        waits = f", {left.changes:,} {are(left.changes)} waiting: {why_waiting}" if left.changes else ""
        refused = f", {left.refused:,} refused: see the column `refused`" if left.refused else ""
        click.echo(f"{done.forwarded:,} forwarded{waits}{refused}")
    if done.cause is not None:
        failure = redis_failure(settings.redis_url, done.cause)
        raise Failure(f"{failure}; {done.forwarded:,} forwarded, {left.changes:,} left in the outbox")
