"""The stand-in endpoint: docs/reference/contract.md, section 1, in memory, with faults on demand.

Tests, demo and benchmark deliver to it, and so can the integration tests of users. This module decides;
`standin.app` is its web application and `standin.server` serves it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.standin.faults import FaultQueue
from worker.standin.history import HISTORY_RECORDS
from worker.standin.memory import Memory
from worker.standin.rules import Answer, confirmation, key_refusal
from worker.standin.settings import Limits, StandInSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.standin.memory import Received
    from worker.standin.rules import Refusal
    from worker.standin.views import Counts


@dataclass(slots=True)
class Era:
    """The state between two resets. A request belongs to the era in which it arrived.

    So an old request only changes the memory of its own era, which nobody can see after a reset.

    Attributes:
        memory: contacts, history, counters.
        faults: the queued faults.
        ended: set at the end of the era; ends every wait in it.
        late: requests whose connection is closed and that will be applied later.
    """

    memory: Memory
    faults: FaultQueue = field(default_factory=FaultQueue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    late: set[asyncio.TimerHandle] = field(default_factory=set)

    def apply_late(self, seconds: float, apply: Callable[[], object]) -> None:
        """Applies a request after this many seconds, unless the era ends before."""

        def act() -> None:
            self.late.discard(handle)
            apply()

        handle = asyncio.get_running_loop().call_later(seconds, act)
        self.late.add(handle)

    def end(self) -> None:
        """Ends every wait; late requests are never applied."""
        self.ended.set()
        for handle in self.late:
            handle.cancel()
        self.late.clear()


class StandIn:
    """One stand-in endpoint. Use it only from the event loop that serves it.

    Attributes:
        settings: the current settings.
        era: the state since the last reset.

    Args:
        settings: the first settings, also after a reset.
        history_records: most records in the history of requests, and in the history of applied records.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: StandInSettings | None = None,
        *,
        history_records: int = HISTORY_RECORDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._first_settings = settings or StandInSettings()
        self._history_records = history_records
        self.era = self._new_era()
        self.configure(self._first_settings)

    def configure(self, settings: StandInSettings) -> None:
        """Replaces the settings, from the next decision on."""
        self.settings = settings
        self._limits = Limits(settings, self.clock)

    def reset(self) -> None:
        """Resets everything: no contacts, no history, no faults, the first settings."""
        self.close()
        self.era = self._new_era()
        self.configure(self._first_settings)

    def close(self) -> None:
        """Ends every wait, so that the server can stop."""
        self.era.end()

    def answer(self, received: Received, memory: Memory) -> Answer:
        """Processes a request as the endpoint does: applies all of it, or refuses all of it."""
        refusal = self._refusal(received)
        return refusal.answer() if refusal else confirmation(*memory.apply(received))

    def counts(self) -> Counts:
        """Returns the counters since the last reset."""
        return self.era.memory.counts(late=len(self.era.late))

    def _refusal(self, received: Received) -> Refusal | None:
        settings, limits = self.settings, self._limits
        return (
            limits.rate_refusal()
            or key_refusal(received.server_key, settings.key_id, settings.key_secret.get_secret_value())
            or received.unreadable
            or limits.records_refusal(received.records)
        )

    def _new_era(self) -> Era:
        return Era(Memory(self.clock, self._history_records))
