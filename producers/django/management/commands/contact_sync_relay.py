"""``manage.py contact_sync_relay``: forwards committed changes that are not in the log yet."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import Error as DatabaseFailure

from producers.contract.errors import ContactSyncError, Repartitioning
from producers.django.forwarding import relay, waiting
from producers.django.settings import read_settings
from producers.producer import ContactProducer
from producers.send.pressure import BulkPermit

_BATCHES: Final = 100  # between two checks for a request to stop
_SLOWEST_SECONDS: Final = 10.0


class Command(BaseCommand):
    """The relay. Several may run at once."""

    help = "Forwards changes from the outbox to contact-sync's log, until it is stopped."

    def add_arguments(self, parser: Any) -> None:
        """Adds the options."""
        parser.add_argument("--once", action="store_true", help="Stop when everything is forwarded.")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="The database with the outbox.")
        parser.add_argument("--poll", type=float, default=0.2, help="Seconds between queries.")

    def handle(self, *_args: Any, once: bool, database: str, poll: float, **_: Any) -> None:
        """Forwards.

        Raises:
            CommandError: it cannot forward; the reason in one line.
        """
        with ContactProducer(settings=read_settings()) as producer:
            try:
                if once:
                    self._once(producer, database)
                else:
                    self._keep_on(producer, database, poll)
            except ContactSyncError as error:
                raise CommandError(str(error)) from None

    def _once(self, producer: ContactProducer, database: str) -> None:
        try:
            done = relay(producer, database)
            left = waiting(database)
        except DatabaseFailure as error:
            raise CommandError(f"the database: {error}") from None
        if done.cause is not None:
            raise CommandError(f"Redis: {done.cause}; {done.forwarded} forwarded, {left.changes} left in the outbox")
        refused = f", {left.refused} refused: see the column `refused`" if left.refused else ""
        why_waiting = done.bulk_waits or "other relays are forwarding them"
        waits = f", {left.changes} are waiting: {why_waiting}" if left.changes else ""
        self.stdout.write(f"{done.forwarded} forwarded{waits}{refused}")

    def _keep_on(self, producer: ContactProducer, database: str, poll: float) -> None:
        asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())
        failures, bulk_waited, bulk = 0, "", BulkPermit(producer.load)
        while not asked.is_set():
            began = time.monotonic()
            try:
                done = relay(producer, database, _BATCHES, bulk)
                cause, refused, bulk_waits, partly = done.cause, done.refused, done.bulk_waits, done.partly
            except (DatabaseFailure, Repartitioning) as error:
                cause, refused, bulk_waits, partly = error, 0, bulk_waited, False
                connections[database].close()  # so that a broken one is replaced
            if refused:
                self.stderr.write(
                    f"{refused} rows of the outbox break a rule and are skipped: see the column `refused`"
                )
            if bulk_waits and not bulk_waited:
                self.stderr.write(f"bulk changes wait: {bulk_waits}")
            elif bulk_waited and not bulk_waits:
                self.stderr.write("bulk changes go on")
            bulk_waited = bulk_waits
            if cause is not None and not failures:
                self.stderr.write(f"waits: {cause}")
            elif cause is None and failures:
                self.stderr.write("goes on")
            failures = 0 if cause is None else failures + 1
            # While other partitions go on it waits as long as a run takes, to look through what stays.
            longer = max(poll, time.monotonic() - began) if partly else poll * 2 ** min(failures, 16)
            asked.wait(min(_SLOWEST_SECONDS, longer))
