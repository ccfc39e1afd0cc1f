"""Wakes the fleet: one ticker at a time finds out what is due, and leaves as many hints in the queue as it needs.

Hints carry nothing. They may be lost, doubled or flushed: the next tick leaves new ones. If the broker takes none, or
gives none to any worker, the ticker flushes by itself.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import redis

from producers.nodes.trip import NodeAwayError
from worker.core.linger import Linger
from worker.core.timing import (
    FLUSH_BUDGET_SECONDS,
    TICKER_IDLE_SECONDS,
    TICKER_LEASE_SECONDS,
    TICKER_STANDBY_SECONDS,
)
from worker.store import scripts
from worker.store.delete_scan import DeleteScan
from worker.store.refusal import away_words, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.config.settings import WorkerSettings
    from worker.core.backlog import Survey
    from worker.core.events import Log
    from worker.core.gate import GateSnapshot
    from worker.store.backlog import BacklogScanner
    from worker.store.gate import Gate
    from worker.store.inbox import Inbox
    from worker.store.namespace import Namespace

PACE_SECONDS: Final = 0.05
"""Shortest time between two ticks while something is due, or is being worked on, in a few partitions."""

SCANNED_AT_PACE: Final = 256
"""Up to this many partitions in which something waits are scanned every `PACE_SECONDS`. A scan of more of them costs
more, so it comes less often in proportion."""

SOON_SECONDS: Final = 0.01
"""Shortest wait for what becomes due next."""

HINTS_MAX: Final = 16  # left in one tick; the next one, 50 ms later, leaves more if these were taken

_TAKEN: Final = 2  # the reply of ticker.lua if the lease was free


UNTAKEN_SECONDS: Final = 5.0
"""If hints lie in the queue for this long, and nobody works on anything, no worker can take them from this broker."""


class Broker(Protocol):
    """The queue that hints are left in. Both methods raise whatever the broker's client does if the broker fails."""

    def hints(self) -> int:
        """Returns how many hints are in the queue."""

    def leave(self, hints: int) -> None:
        """Adds this many hints."""


class Ticker:
    """Finds what is due, leaves hints, waits. Has a thread and a client of its own."""

    def __init__(  # noqa: PLR0913 - what it touches is handed in, by name
        self,
        settings: WorkerSettings,
        *,
        namespace: Namespace,
        scanner: BacklogScanner,
        gate: Gate,
        broker: Broker,
        inbox: Inbox,
        flush: Callable[[float], int],
        token: str,
        monotonic: Callable[[], float],
        log: Log,
        watches: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._settings = settings
        self._client, self._key = namespace.client, namespace.keys.ticker
        self._scanner = scanner
        self._gate = gate
        self._broker = broker
        self._flush = flush
        self._token = token.encode()
        self._monotonic = monotonic
        self._linger = Linger.of(settings.linger_seconds, settings.delete_linger_seconds)
        self._deletes = DeleteScan(namespace)
        self._renewed = -math.inf
        self._alone = settings.broker_is_memory
        self._untaken = math.inf
        self._log = log
        self._watches = watches
        self._inbox = inbox
        self._inbox_waits = False
        self._leads = False
        self._stop = threading.Event()
        self._away: dict[str, str] = {}

    def run(self) -> None:
        """Ticks until it is told to stop. If Redis or the broker is away, logs that once and waits."""
        while not self._stop.is_set():
            try:
                for check in self._watches:
                    with suppress(NodeAwayError):  # one node of a cluster, which the others need not wait for
                        check()
                self._leads = self.take_lead()
                wait = self._tick() if self._leads else TICKER_STANDBY_SECONDS
                self._log_reach("redis", away=False)
            except redis.RedisError as error:
                self._log_reach("redis", away=True, error=away_words(error), refuses=refusal(error))
                wait = TICKER_IDLE_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is: without a ticker nothing is delivered any more
                self._log.error("ticker_failed", error=type(error).__name__, waits=TICKER_IDLE_SECONDS)
                wait = TICKER_IDLE_SECONDS
            self._stop.wait(wait)
        self._step_down()

    def stop(self) -> None:
        """Ends `run` soon."""
        self._stop.set()

    def trouble(self) -> str:
        """What keeps the fleet's ticker from its work; empty if nothing does, or if this is not the fleet's ticker.

        `broker_away` or `broker_refuses`: hints cannot be left, or are not taken. `replicas_absent`: entries stay in
        the inbox, because too few replicas have their changes.
        """
        if not self._leads:
            return ""  # what it met when it was is another's to tell now
        if told := self._away.get("broker"):
            return "broker_away" if told == "away" else "broker_refuses"
        return "replicas_absent" if self._inbox_waits else ""

    def take_lead(self) -> bool:
        """Takes the fleet's ticker lease if it is free, or renews it; returns whether this ticker has it."""
        now, lease_ms = self._monotonic(), int(TICKER_LEASE_SECONDS * 1000)
        if now - self._renewed < TICKER_LEASE_SECONDS / 3:
            return True  # it cannot have expired; to ask at each tick would cost more than all else in an idle fleet
        call = scripts.Call(scripts.TICKER, [self._key], [self._token, lease_ms])
        try:
            reply = scripts.run_one(self._client, call)
        except NodeAwayError:
            return True  # nobody can have the lease meanwhile; hints that several leave do no harm
        if reply == _TAKEN:
            self._log.info("ticker_started")
        elif not reply:
            self._renewed = -math.inf
            return self._alone
        self._renewed = now
        return True

    def _step_down(self) -> None:
        try:
            if self._client.get(self._key) == self._token:
                self._client.delete(self._key)
        except redis.RedisError:
            return  # the lease expires by itself

    def _tick(self) -> float:
        """Leaves hints for what is due; returns how long to wait before the next tick (seconds)."""
        survey = self._scanner.scan(block_ms=int(TICKER_IDLE_SECONDS * 1000))
        self._inbox_waits = False
        if survey.inbox:
            # While the lease passes on, two tickers may do this at once. Doubled changes do no harm: they coalesce.
            moved = self._inbox.move()
            self._inbox_waits = self._inbox.waits_for_replicas
            if not moved and not survey.waiting:
                return TICKER_IDLE_SECONDS  # Redis is full, perhaps: the next scan would return at once
            survey = self._scanner.scan()
        if not survey.waiting:
            return 0.0
        gate = self._gate.snapshot()
        batch_size = min(self._settings.batch_size, gate.limit or self._settings.batch_size)
        if not gate.closed:
            self._find_deletes(survey, gate, batch_size)
        wanted, next_ms = self._hints_wanted(survey, gate, batch_size)
        if wanted:
            self._leave_hints(wanted, idle=not any(each.leased for each in survey.waiting))
            return pace_of(survey)
        self._untaken = math.inf
        if gate.closed:
            next_ms = min(next_ms, survey.now_ms + gate.wait_ms)
        return min(TICKER_IDLE_SECONDS, max(SOON_SECONDS, (next_ms - survey.now_ms) / 1000))

    def _find_deletes(self, survey: Survey, gate: GateSnapshot, batch_size: int) -> None:
        """Finds deletes: in a log that lingers one is due sooner, and goes before all others if much waits."""
        logs = {each.partition: each for each in survey.waiting if each.oldest_ms}
        lingering = {
            p for p, each in logs.items() if (each.due_ms(gate, self._linger, batch_size) or 0) > survey.now_ms
        }
        found = self._deletes.find(
            [*logs.values()], lingering, long=survey.is_long(batch_size), in_order=gate.takes_all(batch_size)
        )
        for p, delete_ms in found.items():
            logs[p].delete_ms = delete_ms + logs[p].shifted_ms

    def _hints_wanted(self, survey: Survey, gate: GateSnapshot, batch_size: int) -> tuple[int, float]:
        """Returns how many hints there is work for, and when the next partition is due if none (Unix ms)."""
        due, records, next_ms = 0, 0, math.inf
        pace_ms = 1000 * pace_of(survey)
        for each in survey.waiting:
            due_ms = each.due_ms(gate, self._linger, batch_size)
            if due_ms is None:
                continue
            if each.leased:
                next_ms = min(next_ms, survey.now_ms + pace_ms)
            elif due_ms > survey.now_ms:
                # Checked again before it is due: once it fills a batch, it is due at once.
                next_ms = min(next_ms, due_ms, survey.now_ms + 2 * pace_ms)
            else:
                due += 1
                records += each.records
        return min(due, math.ceil(records / batch_size) or due, HINTS_MAX), next_ms

    def _leave_hints(self, wanted: int, *, idle: bool) -> None:
        """Leaves the hints that are missing; flushes here if that fails, or if nobody takes those that lie there.

        Args:
            wanted: how many hints there is work for.
            idle: whether nobody works on anything that waits.
        """
        try:
            missing = wanted - self._broker.hints()
            if missing > 0:
                self._broker.leave(missing)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the broker, changes must be delivered
            refuses = refusal(error) or refusal(error.__cause__)
            self._log_reach("broker", away=True, error=away_words(error), refuses=refuses)
            self._flush(FLUSH_BUDGET_SECONDS)
            return
        now = self._monotonic()
        self._untaken = min(self._untaken, now) if idle and missing <= 0 else math.inf
        untaken = now - self._untaken >= UNTAKEN_SECONDS
        if untaken:
            self._log_reach("broker", away=True, refuses="no worker takes the hints that lie in its queue")
            self._flush(FLUSH_BUDGET_SECONDS)
        elif missing > 0 or not idle:
            self._log_reach("broker", away=False)

    def _log_reach(self, what: str, *, away: bool, error: str = "", refuses: str | None = None) -> None:
        """Logs once that something is away, or what it refuses, and once that it is back."""
        told = refuses or "away"
        if away and self._away.get(what) != told:
            self._away[what] = told
            if refuses:
                self._log.error(f"{what}_refuses", error=refuses)
            else:
                self._log.warning(f"{what}_away", error=error)
        elif not away and what in self._away:
            del self._away[what]
            self._log.info(f"{what}_back")


def pace_of(survey: Survey) -> float:
    """How long after this scan the next one comes while something is due (seconds)."""
    return min(TICKER_IDLE_SECONDS, PACE_SECONDS * max(1.0, len(survey.waiting) / SCANNED_AT_PACE))
