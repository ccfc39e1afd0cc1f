"""Runs the demo: emits changes, injects faults, waits until everything is delivered, and checks the result."""

from __future__ import annotations

import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from producers import ContactProducer, ProducerSettings
from producers.contract.partitions import agree_partitions
from worker.core.numbers import many
from worker.demo.numbers import Reader
from worker.demo.story import contacts_after, tell
from worker.demo.summary import summarize
from worker.store.client import connect
from worker.store.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from producers import ContactChange
    from worker.demo.numbers import Numbers
    from worker.demo.screen import Screen
    from worker.demo.summary import Summary
    from worker.demo.system import System

CHANGES: Final = 20_000
PAIRS: Final = 3_000

SEED: Final = 7
"""Every demo emits the same changes; only the worker's timing differs."""

OUTAGE_SECONDS: Final = 3.0
"""How long the endpoint is away; at most a quarter of the traffic's duration."""

LATE_ACT_SECONDS: Final = 1.5
"""How long after its arrival the endpoint applies the killed worker's request: newer changes may be confirmed then."""

TICK_SECONDS: Final = 0.05
REFRESH_SECONDS: Final = 0.2


class Scene(NamedTuple):
    """An event that happens once during the demo.

    Attributes:
        name: its name, shown if it is not reached.
        due: takes the seconds since the traffic began; returns whether it is time.
        act: makes it happen.
    """

    name: str
    due: Callable[[float], bool]
    act: Callable[[], None]


class Demo:
    """One run of the demo."""

    def __init__(self, system: System, screen: Screen, *, seconds: float, began: float, ends: float) -> None:
        """Prepares the demo; :meth:`run` runs it.

        Args:
            system: the system, already entered.
            screen: shows the progress.
            seconds: duration of the traffic.
            began: when the demo began (monotonic seconds).
            ends: when it ends at the latest (monotonic seconds).
        """
        self._system = system
        self._screen = screen
        self._seconds = seconds
        self._began = began
        self._ends = ends
        self._story = tell(random.Random(SEED), changes=CHANGES, pairs=PAIRS, seconds=seconds)  # noqa: S311 - a story
        self._sent: list[ContactChange] = []
        settings = system.settings
        self._client = connect(settings.redis_url, settings.redis_credentials)
        partitions = agree_partitions(self._client, settings.keys, settings.partitions)
        self._reader = Reader(Namespace(self._client, settings.keys, partitions), system.stand_in)
        # These settings are not read from the environment, which may name another Redis.
        self._producer = ContactProducer(settings=ProducerSettings(redis_url=settings.redis_url))
        self._numbers = self._reader.read(0)
        self._refreshed = began

    def run(self) -> Summary:
        """Runs the demo to its end, and returns its summary.

        Raises:
            DemoFailedError: the worker ended by itself.
            ContactSyncError: Redis did not accept a change.
            redis.RedisError, StandInAway: Redis or the stand-in endpoint went away.
        """
        with self._client, self._producer:
            unfinished = self._wait_for_worker() or self._play() or self._wait_for_delivery()
            return summarize(
                seconds=time.monotonic() - self._began,
                kinds=self._story.kinds,
                pairs={(change.owner, change.contact) for change in self._sent},
                expected=contacts_after(self._sent),
                actual=self._system.stand_in.contacts(),
                numbers=self._reader.read(len(self._sent)),
                workers_killed=self._system.workers_killed,
                unfinished=unfinished,
            )

    def _wait_for_worker(self) -> list[str]:
        """Starts the worker and waits until it is ready; returns what was not reached in time."""
        self._screen.say(f"Redis is up, and the endpoint at {self._system.stand_in.url}; starting a worker")
        self._system.start_worker()
        while not self._current_numbers().status.worker_awake:
            if self._time_is_up():
                return ["the worker did not get ready"]
            self._pause()
        self._screen.say(f"Changes begin to flow: {CHANGES:,} of {PAIRS:,} pairs in {self._seconds:g} seconds")
        return []

    def _play(self) -> list[str]:
        """Emits the changes and runs the scenes; returns what was not reached in time."""
        steps, scenes = deque(self._story.steps), deque(self._scenes())
        start, start_ms = time.monotonic(), int(time.time() * 1000)
        while (steps or scenes) and not self._time_is_up():
            elapsed = time.monotonic() - start
            due: list[ContactChange] = []
            while steps and steps[0].due_seconds <= elapsed:
                due.append(steps.popleft().change(start_ms))
            self._producer.send(due)
            self._sent += due
            while scenes and scenes[0].due(elapsed):
                scenes.popleft().act()
            self._pause()
        left = [f"{many(len(steps), 'change')} not emitted"] if steps else []
        return left + [f"not reached: {scene.name}" for scene in scenes]

    def _wait_for_delivery(self) -> list[str]:
        """Waits until everything is delivered; returns what is left when time is up."""
        self._screen.say("All changes are emitted; waiting until the last one is delivered")
        while unfinished := self._current_numbers().unfinished():
            if self._time_is_up():
                return unfinished
            self._pause()
        self._screen.say("Everything is delivered; comparing the endpoint's contacts, pair by pair")
        return []

    def _scenes(self) -> list[Scene]:
        away = 0.3 * self._seconds
        back = away + min(OUTAGE_SECONDS, self._seconds / 4)
        trap = 0.65 * self._seconds
        return [
            Scene("the endpoint goes away", lambda elapsed: elapsed >= away, self._go_away),
            Scene("the endpoint comes back", lambda elapsed: elapsed >= back, self._come_back),
            Scene("a request without an answer", lambda elapsed: elapsed >= trap, self._set_trap),
            Scene("a worker is killed during a request", lambda _: self._trapped(), self._kill),
        ]

    def _go_away(self) -> None:
        # First a request that is applied but not answered: no client can tell whether it was applied.
        self._system.stand_in.faults({"kind": "drop_after", "times": 1}, {"kind": "status", "status": 503})
        self._screen.say("The endpoint goes away: one answer is lost, then every answer is 503; changes keep coming")

    def _come_back(self) -> None:
        self._system.stand_in.remove_faults()
        self._screen.say("The endpoint is back")

    def _set_trap(self) -> None:
        """Lets the next request hang until its sender is gone, and then be applied late."""
        self._system.stand_in.faults({"kind": "late", "seconds": LATE_ACT_SECONDS, "hold": True, "times": 1})

    def _trapped(self) -> bool:
        return "late" in self._system.stand_in.counts()["faults"]

    def _kill(self) -> None:
        self._system.kill_worker()
        self._screen.say(
            "The worker was killed (SIGKILL) during a request; the endpoint will still apply that request, late"
        )
        self._system.start_worker()
        self._screen.say("Another worker starts; it takes over when the dead one's leases expire")

    def _current_numbers(self) -> Numbers:
        """Returns the numbers, refreshed and shown every REFRESH_SECONDS."""
        if time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self._numbers = self._reader.read(len(self._sent))
            self._refreshed = time.monotonic()
            self._screen.show(self._numbers, len(self._sent) / CHANGES)
        return self._numbers

    def _pause(self) -> None:
        self._system.check_worker()
        self._current_numbers()
        time.sleep(TICK_SECONDS)

    def _time_is_up(self) -> bool:
        return time.monotonic() >= self._ends
