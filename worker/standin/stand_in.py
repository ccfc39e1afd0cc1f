"""The stand-in endpoint: CONTRACT section 1 in memory, with faults to order.

It is what tests, demo and benchmark deliver to, and what users can point their own integration
tests at. This module decides; `standin.app` speaks HTTP for it and `standin.server` serves it.
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
    """All that lies between two resets. A request belongs to the era it came in, to its end.

    So what an old request still does reaches the memory of its own era, which nobody sees any more.

    Attributes:
        memory: contacts, history, counts.
        faults: the faults on order.
        ended: set when the era is over, which ends every wait in it.
        late: requests whose connection is gone and that will be applied later.
    """

    memory: Memory
    faults: FaultQueue = field(default_factory=FaultQueue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    late: set[asyncio.TimerHandle] = field(default_factory=set)

    def apply_late(self, seconds: float, apply: Callable[[], object]) -> None:
        """Applies a request so many seconds from now, unless the era ends before."""

        def act() -> None:
            self.late.discard(handle)
            apply()

        handle = asyncio.get_running_loop().call_later(seconds, act)
        self.late.add(handle)

    def end(self) -> None:
        """Ends every wait; what was to be applied later never will be."""
        self.ended.set()
        for handle in self.late:
            handle.cancel()
        self.late.clear()


class StandIn:
    """One stand-in endpoint. To be used from the event loop that serves it, from there alone.

    Attributes:
        settings: the standing settings.
        era: what happened since the last reset.

    Args:
        settings: the settings to begin with, and to return to at a reset.
        history_records: most records that the history of requests, and that of applications, each remember.
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
        """Makes these the standing settings, from the next decision on."""
        self.settings = settings
        self._limits = Limits(settings, self.clock)

    def reset(self) -> None:
        """Goes back to the beginning: no contacts, no history, no faults, the first settings."""
        self.close()
        self.era = self._new_era()
        self.configure(self._first_settings)

    def close(self) -> None:
        """Ends every wait, so that the server can stop."""
        self.era.end()

    def answer(self, received: Received, memory: Memory) -> Answer:
        """Does with a request what the endpoint does: applies it whole, or refuses it whole."""
        refusal = self._refusal(received)
        return refusal.answer() if refusal else confirmation(*memory.apply(received))

    def counts(self) -> Counts:
        """The counters since the last reset."""
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
