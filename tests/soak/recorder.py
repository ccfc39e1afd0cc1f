"""What is seen from outside while a soak runs: entries, requests, applied records, memory."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx
import redis

from tests.soak.lineage import Deeds, Reign
from tests.soak.log_file import LogFile

if TYPE_CHECKING:
    from types import TracebackType

    from tests.proof.history import Record
    from tests.soak.system import System
    from worker.standin.views import AppliedView

REIGN_SECONDS: Final = 0.2
"""Time between two looks at who serves what."""

EVERY_SECONDS: Final = 1.0
"""Time between two looks; the stand-in remembers its last 100,000 records, and far fewer are made in that time."""

UNANSWERED_SECONDS: Final = 4.0
"""How long a request without an answer is looked at again: then nobody waits for it any more."""


class Request(NamedTuple):
    """One request as the endpoint saw it.

    Attributes:
        number: 1 for the first.
        received_at: monotonic seconds.
        records: in the order of its body.
        fault: kind of the fault that it met, None if none.
        status, code: what it was answered with; None, and nothing, while it was not.
        applied_at: monotonic seconds at which it took effect, None if it had not when it was looked at last.
    """

    number: int
    received_at: float
    records: tuple[Record, ...]
    fault: str | None
    status: int | None
    code: str
    applied_at: float | None


@dataclass(slots=True)
class Peaks:
    """The most memory that was seen, in bytes.

    Attributes:
        redis: of the server that has most, as it counts itself.
        worker: of one worker with its children.
        workers: of all workers together.
        backlog: entries that waited in the streams.
        pending: pairs that waited as joined states.
    """

    redis: int = 0
    worker: int = 0
    workers: int = 0
    backlog: int = 0
    pending: int = 0


@dataclass(slots=True)
class Seen:
    """All that was seen.

    Attributes:
        deeds: what each server of the log was given and what was settled there, in order.
        reigns: which of them served what, by the name that :attr:`System.keys` gives it.
        applied: records that took effect, in order.
        requests: by number.
        peaks: of memory, and of what waited.
        gaps: what was forgotten before it was looked at, in words: then the soak proves nothing.
    """

    deeds: list[Deeds] = field(default_factory=list)
    reigns: dict[int, list[Reign]] = field(default_factory=dict)
    applied: list[AppliedView] = field(default_factory=list)
    requests: dict[int, Request] = field(default_factory=dict)
    peaks: Peaks = field(default_factory=Peaks)
    gaps: list[str] = field(default_factory=list)


class Recorder:
    """Looks about once a second, in a thread of its own.

    Args:
        system: what it looks at.

    Attributes:
        seen: all that it saw so far.
    """

    def __init__(self, system: System) -> None:
        self.seen = Seen()
        self._system = system
        lease_ms = int(system.settings.lease_seconds * 1000)
        self._log_files = [LogFile(each.data, lease_ms) for each in system.home.nodes]
        self.seen.deeds = [Deeds() for _ in self._log_files]
        self._since = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="recorder", daemon=True),
            threading.Thread(target=self._watch_reigns, name="reigns", daemon=True),
        ]

    def __enter__(self) -> Seen:
        self._record_reigns()
        for thread in self._threads:
            thread.start()
        return self.seen

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            self._record()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self._record()

    def _watch_reigns(self) -> None:
        while not self._stop.wait(REIGN_SECONDS):
            self._record_reigns()

    def _record_reigns(self) -> None:
        system, reigns = self._system, self.seen.reigns
        for name, node in system.home.serving(system.keys).items():
            those = reigns.setdefault(name, [])
            if not those:
                those.append(Reign(0, node))
            elif those[-1].node != node:
                those.append(Reign(int(time.time() * 1000), node))

    def _record(self) -> None:
        for deeds, log_file in zip(self.seen.deeds, self._log_files, strict=True):
            deeds.done.extend(log_file.read_on())
            deeds.starts = log_file.starts or (0,)
        try:
            self._record_endpoint()
        except httpx.HTTPError as error:
            self.seen.gaps.append(f"the stand-in did not answer: {type(error).__name__}")
        self._record_memory()

    def _record_endpoint(self) -> None:
        seen, stand_in = self.seen, self._system.stand_in
        for each in stand_in.requests(self._since):
            number = each["number"]
            records = tuple((line["owner"], line["contact"], line["op"]) for line in each["records"])
            seen.requests[number] = Request(
                number, each["received_at"], records, each["fault"], each["status"], each["code"], each["applied_at"]
            )
        if len(seen.requests) < max(seen.requests, default=0):
            seen.gaps.append("the stand-in forgot requests before they were read")
        waited_for = time.monotonic() - UNANSWERED_SECONDS
        open_ones = [r.number for r in seen.requests.values() if r.number > self._since and r.status is None]
        still = [number for number in open_ones if seen.requests[number].received_at > waited_for]
        self._since = min(still, default=max(seen.requests, default=0) + 1) - 1
        last = seen.applied[-1]["sequence"] if seen.applied else 0
        applied = stand_in.applied(last)
        if applied and applied[0]["sequence"] != last + 1:
            seen.gaps.append("the stand-in forgot applied records before they were read")
        seen.applied.extend(applied)

    def _record_memory(self) -> None:
        peaks, workers = self.seen.peaks, self._system.fleet.resident_bytes()
        peaks.worker = max(peaks.worker, *workers, 0)
        peaks.workers = max(peaks.workers, sum(workers))
        try:
            peaks.redis = max(peaks.redis, self._system.redis_memory())
            status = self._system.status()
        except redis.RedisError:
            return  # away, as it is at times, and is asked again soon
        peaks.backlog = max(peaks.backlog, status.backlog_events)
        peaks.pending = max(peaks.pending, status.pending_pairs)
