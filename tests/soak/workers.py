"""The worker processes, and who starts them again when they end, as a service manager does."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Self

from tests.support.previous import running_from
from worker.local.process import SupervisedProcess
from worker.local.worker import environment_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from worker.config.settings import WorkerSettings

POOLS: Final = {"threads": 4, "prefork": 2, "default": os.cpu_count() or 1}
"""Flushes side by side in a worker of each pool; the last one is Celery's own choice, as of whoever names none."""

GRACE_SECONDS: Final = 30.0
"""Longest that a worker may take to end once it is asked to."""

WATCH_SECONDS: Final = 0.1
"""Time between two looks at whether all of them run."""

LAST_WORDS_BYTES: Final = 100_000

START: Final = b"\n---- start "
"""What parts the words of one worker process from those of the next, in a log."""

LOST: Final = "redis_lost_changes"
"""What a worker says when Redis lost changes."""

UNMEANT: Final = "raised unexpected"
"""In what Celery logs where a task ended by an exception."""

EXIT_BARRED: Final = 2
"""Exit status of a worker that is too old for the log."""

EXIT_STALLED: Final = 70
"""Exit status of a worker that stopped consuming."""

CELERYS_OWN: Final = ("Unrecoverable error: StopIteration()",)
"""How a worker of Celery 5.7 ends by a fault of its own, seen where its broker goes while it connects anew.

A prefork worker whose broker refuses a write while a child of its pool has just died looks for a free queue for the
next child, and none is (`asynpool.get_process_queues`).

Whoever runs workers starts it again, as after any crash; what it had in hand is judged like all else. It is told, and
not called ours.
"""


class Alarm(NamedTuple):
    """A worker said that Redis lost changes.

    Attributes:
        after_ms: accepted after this, 0 if Redis came back empty (Unix ms).
        before_ms: accepted before this, when it was noticed (Unix ms).
    """

    after_ms: int
    before_ms: int


@dataclass(slots=True)
class Worker:
    """One worker process at a time.

    Attributes:
        name: of it and its log.
        pool: Celery's pool.
        process: the process.
        doomed: why the soak itself ends it, empty while it does not.
        starts: how often it was started.
        tree: whose code it runs; None for this tree's.
        lock: held by whoever ends it or starts it again.
    """

    name: str
    pool: str
    log: IO[bytes]
    process: SupervisedProcess
    doomed: str = ""
    starts: int = 1
    tree: Path | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def children(self) -> list[int]:
        """Process ids of its children, such as those of a prefork pool; Linux only."""
        pid = self.process.pid
        with suppress(OSError):
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
        return []

    def resident_bytes(self) -> int:
        """Memory that it and its children hold."""
        return sum(_resident_bytes(pid) for pid in (self.process.pid, *self.children()))


@dataclass(slots=True)
class Exits:
    """How workers ended.

    Attributes:
        by_nemesis: killed or asked to end by the soak, by why.
        stalled: ended by themselves because they stopped consuming.
        by_celery: ended by a fault of Celery's own, one of :data:`CELERYS_OWN`.
        barred: workers of the previous release that ended because they are too old for the log.
        wrong: ended otherwise, in words.
        previous: workers of the previous release that ended otherwise; nobody fixes these any more.
        slowest_seconds: longest that one took to end after SIGTERM.
    """

    by_nemesis: Counter[str] = field(default_factory=Counter)
    stalled: int = 0
    by_celery: int = 0
    barred: int = 0
    wrong: list[str] = field(default_factory=list)
    previous: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


class Fleet:
    """The workers of a soak, from `start` to the end of the context.

    Args:
        settings: what they work with.
        directory: where their logs go.
        count: how many there are; pools take turns.
        tree: whose code they run at first; None for this tree's.

    Attributes:
        exits: how they ended so far.
        upgraded: whether the log is in a form that the previous release does not know.
        beside: spans in which workers of the previous release ran (monotonic seconds).
    """

    def __init__(self, settings: WorkerSettings, directory: Path, count: int, tree: Path | None = None) -> None:
        self.upgraded = False
        self.beside: list[tuple[float, float]] = []
        self._tree = tree
        self._settings = settings
        self._directory = directory
        self._count = count
        self._workers: list[Worker] = []
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self.exits = Exits()

    def start(self) -> None:
        """Starts all of them, and returns before they are ready."""
        for number in range(self._count):
            pool = list(POOLS)[number % len(POOLS)]
            name = f"{pool}-{number}"
            log = (self._directory / f"{name}.log").open("ab")
            process = self._process(name, pool, log, self._tree)
            self._workers.append(Worker(name, pool, log, process, tree=self._tree))
        self._mark()
        self._watcher.start()

    def of_pool(self, pool: str | None = None) -> list[Worker]:
        """Those of one pool, or all."""
        return [each for each in self._workers if pool in {None, each.pool}]

    def kill(self, worker: Worker, why: str) -> None:
        """Kills it with all its children, in the middle of whatever they do; it is started again."""
        with worker.lock:
            if worker.process.poll() is None:
                worker.doomed = why
                self.signal(worker, signal.SIGKILL)

    def signal(self, worker: Worker, number: signal.Signals) -> None:
        """Sends a signal to it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, number)

    def replace(self, worker: Worker, tree: Path | None = None) -> None:
        """Asks it to end, as a service manager does, waits until it has, and starts another, from any tree."""
        with worker.lock:
            if (ended := worker.process.poll()) is not None:
                self._note(worker, ended)  # it has just ended by itself
                self._again(worker, tree)
                return
            worker.doomed, process = "rolling restart", worker.process
            # It starts again and again while it is barred; one that has just started may not know the signal yet.
            unready = (worker.tree is not None and self.upgraded) or not _is_ready(worker.log)
            begun = time.monotonic()
            with suppress(ProcessLookupError):  # it has ended by itself just now
                os.kill(process.pid, signal.SIGTERM)
            while (status := process.poll()) is None and time.monotonic() < begun + GRACE_SECONDS:
                time.sleep(WATCH_SECONDS / 10)
            took = time.monotonic() - begun
            if worker.tree is None:
                self.exits.slowest_seconds = max(self.exits.slowest_seconds, took)
            if status != 0 and not (unready and status is not None):
                how = "has not ended" if status is None else f"ended with status {status}"
                self._wrong(worker).append(f"{worker.name} {how} {took:.1f} s after SIGTERM: {_last_words(worker.log)}")
            self._again(worker, tree)

    def said(self) -> Counter[str]:
        """How often the workers logged each event above the level of information; one that nobody meant to is told."""
        counted: Counter[str] = Counter()
        for said in self._said():
            if said["level"] not in {"debug", "info"}:
                counted[gist(said["event"])] += 1
        return counted

    def alarms(self) -> list[Alarm]:
        """Every time that one of them said that Redis lost changes."""
        return [
            Alarm(_ms(said["accepted_after"]) if said["accepted_after"] else 0, _ms(said["accepted_before"]))
            for said in self._said()
            if said["event"] == LOST
        ]

    def _said(self) -> Iterator[dict[str, Any]]:
        for each in self._workers:
            for line in Path(each.log.name).read_text("utf-8", "replace").splitlines():
                with suppress(ValueError):
                    said = json.loads(line)
                    if isinstance(said, dict) and {"level", "event"} <= said.keys():
                        yield said

    def resident_bytes(self) -> list[int]:
        """Memory that each of them holds, with its children."""
        return [each.resident_bytes() for each in self._workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for each in self._workers:
            self.signal(each, signal.SIGCONT)
            each.doomed = "end"
            with suppress(ProcessLookupError):
                os.kill(each.process.pid, signal.SIGTERM)  # all at once; closing them one by one takes as long as each
        for each in self._workers:
            each.process.close()
            each.log.close()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            for worker in self._workers:
                with worker.lock:
                    if (status := worker.process.poll()) is not None:
                        self._note(worker, status)
                        self._again(worker, worker.tree)

    def _note(self, worker: Worker, status: int) -> None:
        if worker.doomed:
            self.exits.by_nemesis[worker.doomed] += 1
        elif status == EXIT_BARRED and worker.tree is not None and self.upgraded:
            self.exits.barred += 1
        elif status == EXIT_STALLED:
            self.exits.stalled += 1
        elif any(own in line for own in CELERYS_OWN for line in _spoken_since_start(worker.log)):
            self.exits.by_celery += 1
        else:
            self._wrong(worker).append(f"{worker.name} ended by itself with status {status}: {_last_words(worker.log)}")

    def _wrong(self, worker: Worker) -> list[str]:
        return self.exits.wrong if worker.tree is None else self.exits.previous

    def _again(self, worker: Worker, tree: Path | None) -> None:
        worker.process.close()
        worker.tree = tree
        worker.doomed = ""
        worker.starts += 1
        worker.log.write(b"%b%d ----\n" % (START, worker.starts))
        worker.log.flush()
        worker.process = self._process(worker.name, worker.pool, worker.log, tree)
        self._mark()

    def _mark(self) -> None:
        """Takes note of when workers of the previous release run."""
        now, beside = time.monotonic(), any(each.tree is not None for each in self._workers)
        open_one = bool(self.beside) and self.beside[-1][1] == math.inf
        if beside and not open_one:
            self.beside.append((now, math.inf))
        elif open_one and not beside:
            self.beside[-1] = self.beside[-1][0], now

    def _process(self, name: str, pool: str, log: IO[bytes], tree: Path | None) -> SupervisedProcess:
        # -P: what lies in the current directory is never imported, not even before Celery changes to another.
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "celery", "-A", "worker", "--workdir", str(directory), "worker"]
        chosen = [] if pool == "default" else ["-P", pool, "-c", str(POOLS[pool])]
        options = [*chosen, "-n", f"{name}@%h", "--loglevel", "INFO"]
        environment = running_from(tree, environment_of(self._settings, os.environ))
        return SupervisedProcess(
            [*command, *options],
            env=environment,
            grace_seconds=GRACE_SECONDS,
            stdout=log,
            stderr=log,
        )


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, ValueError):
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def _last_words(log: IO[bytes]) -> str:
    return " | ".join(_spoken_since_start(log)[-3:])[-600:] or "no output"


def _spoken_since_start(log: IO[bytes]) -> list[str]:
    """What the worker said last; other threads may go on for a while after it has said why it ends."""
    text = Path(log.name).read_bytes()[-LAST_WORDS_BYTES:].rpartition(START)[2].decode(errors="replace")
    return [_spoken(line.strip()) for line in text.splitlines() if line.strip()]


def _is_ready(log: IO[bytes]) -> bool:
    """Whether the worker has said since its last start that it takes tasks."""
    return b" ready." in Path(log.name).read_bytes().rpartition(START)[2]


def _ms(time_iso: str) -> int:
    return int(datetime.fromisoformat(time_iso).timestamp() * 1000)


def gist(event: str) -> str:
    """What a line of the log is about. Celery's own sentences hold ids and addresses, so only what they begin with.

    Of a warning of Python, which begins with the path of a file, it is the kind.
    """
    if UNMEANT in event:
        return event
    warning = re.match(r"\S+:\d+: (\w+)", event)
    return warning[1] if warning else re.split(r"[.:\[({]| '", event)[0][:60]


def _spoken(line: str) -> str:
    """What happened and the last line of its exception, of a line of the log."""
    with suppress(ValueError):
        said = json.loads(line)
        return f"{said['event']} {said.get('exception', '').strip().rpartition(chr(10))[2]}".strip()
    return line
