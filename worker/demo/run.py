"""The demo's course: changes that flow, faults that strike, the wait until all is delivered, and the judgement."""

from __future__ import annotations

import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from producers import ContactProducer, ProducerSettings
from producers.contract.partitions import agree_partitions
from worker.demo.numbers import Reader
from worker.demo.story import contacts_after, tell
from worker.demo.summary import summarize
from worker.store.client import connect

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
"""Every demo tells the same story; what differs is which part of it the worker reads when."""

OUTAGE_SECONDS: Final = 3.0
"""How long the endpoint is away; less where the traffic lasts less than four times as long."""

LATE_ACT_SECONDS: Final = 1.5
"""How long after it came in the endpoint does what the killed worker asked: newer words may have been confirmed."""

TICK_SECONDS: Final = 0.05
LOOK_SECONDS: Final = 0.2


class Scene(NamedTuple):
    """Something that happens once in the course.

    Attributes:
        name: what it is, for the case that it is not reached.
        due: whether it is time, so many seconds after the traffic began.
        act: lets it happen.
    """

    name: str
    due: Callable[[float], bool]
    act: Callable[[], None]


class Demo:
    """One run of the demo."""

    def __init__(self, system: System, screen: Screen, *, seconds: float, began: float, ends: float) -> None:
        """Puts it together; :meth:`run` does it.

        Args:
            system: where it takes place, already entered.
            screen: where it is told.
            seconds: how long the traffic lasts.
            began: when everything began (monotonic, seconds).
            ends: when it ends at the latest (monotonic, seconds).
        """
        self._system = system
        self._screen = screen
        self._seconds = seconds
        self._began = began
        self._ends = ends
        self._story = tell(random.Random(SEED), changes=CHANGES, pairs=PAIRS, seconds=seconds)  # noqa: S311 - a story
        self._sent: list[ContactChange] = []
        settings = system.settings
        self._client = connect(settings.redis_url)
        partitions = agree_partitions(self._client, settings.keys, settings.partitions)
        self._reader = Reader(self._client, settings.keys, partitions, system.stand_in)
        # Settings made here, not read: what the environment says of another Redis must not matter.
        self._producer = ContactProducer(settings=ProducerSettings(redis_url=settings.redis_url))
        self._numbers = self._reader.read(0)
        self._looked = began

    def run(self) -> Summary:
        """Lets it all happen, waits until everything is delivered, and judges.

        Raises:
            DemoFailedError: the worker ended by itself.
            ContactSyncError: Redis did not accept a change.
            redis.RedisError, httpx.HTTPError: Redis or the stand-in endpoint went away.
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
        """Starts the worker and waits until it looks for work; returns what was not reached in time."""
        self._screen.say(f"They are up, the endpoint at {self._system.stand_in.url}; starting a worker")
        self._system.start_worker()
        while not self._look().status.worker_awake:
            if self._time_is_up():
                return ["the worker did not get ready"]
            self._pause()
        self._screen.say(f"Changes begin to flow: {CHANGES:,} of {PAIRS:,} pairs in {self._seconds:g} seconds")
        return []

    def _play(self) -> list[str]:
        """Emits the story while the scenes come up; returns what was not reached in time."""
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
        left = [f"{len(steps):,} changes were not emitted"] if steps else []
        return left + [f"not reached: {scene.name}" for scene in scenes]

    def _wait_for_delivery(self) -> list[str]:
        """Waits until nothing is left to do; returns what is, when time is up."""
        self._screen.say("All changes are emitted; waiting until the last one is delivered")
        while unfinished := self._look().unfinished():
            if self._time_is_up():
                return unfinished
            self._pause()
        self._screen.say("All is delivered; comparing what the endpoint holds, pair by pair")
        return []

    def _scenes(self) -> list[Scene]:
        away = 0.3 * self._seconds
        back = away + min(OUTAGE_SECONDS, self._seconds / 4)
        trap = 0.65 * self._seconds
        return [
            Scene("the endpoint goes away", lambda elapsed: elapsed >= away, self._go_away),
            Scene("the endpoint comes back", lambda elapsed: elapsed >= back, self._come_back),
            Scene("a request without an answer", lambda elapsed: elapsed >= trap, self._set_trap),
            Scene("a worker is killed in mid-request", lambda _: self._trapped(), self._kill),
        ]

    def _go_away(self) -> None:
        # First a request that is done but not answered, the one that nobody can know about.
        self._system.stand_in.faults({"kind": "drop_after", "times": 1}, {"kind": "status", "status": 503})
        self._screen.say("The endpoint goes away: one answer is lost, then nothing but 503; changes flow on")

    def _come_back(self) -> None:
        self._system.stand_in.remove_faults()
        self._screen.say("The endpoint is back")

    def _set_trap(self) -> None:
        """Lets the next request hang until its sender is gone, and take effect all the same, late."""
        self._system.stand_in.faults({"kind": "late", "seconds": LATE_ACT_SECONDS, "hold": True, "times": 1})

    def _trapped(self) -> bool:
        return "late" in self._system.stand_in.counts()["faults"]

    def _kill(self) -> None:
        self._system.kill_worker()
        self._screen.say("The worker was killed (SIGKILL) in mid-request, and its request will still act, late")
        self._system.start_worker()
        self._screen.say("Another worker starts; it takes over when the dead one's leases expire")

    def _look(self) -> Numbers:
        """The numbers, as fresh as they need to be, and on the screen."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._numbers = self._reader.read(len(self._sent))
            self._looked = time.monotonic()
            self._screen.show(self._numbers, len(self._sent) / CHANGES)
        return self._numbers

    def _pause(self) -> None:
        self._system.check_worker()
        self._look()
        time.sleep(TICK_SECONDS)

    def _time_is_up(self) -> bool:
        return time.monotonic() >= self._ends
