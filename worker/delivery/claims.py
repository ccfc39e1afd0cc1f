"""Claims the partitions that a flush works on: as few as fill a batch, as many as it takes."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from producers.nodes.trip import NodeAwayError
from worker.core.backlog import ABSORB_READ, Ranked
from worker.core.codec import Unreadable
from worker.core.flow import Left
from worker.core.lane import bulk_share
from worker.core.linger import Linger
from worker.core.reach import Reach, Room
from worker.core.round import SLOW_MS, Round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from worker.config.settings import WorkerSettings
    from worker.core.backlog import PartitionBacklog
    from worker.core.events import Log
    from worker.core.gate import GateSnapshot
    from worker.core.lease import Lease
    from worker.core.suppression import Suppression
    from worker.store.backlog import BacklogScanner
    from worker.store.gate import Gate
    from worker.store.partitions import Partitions


ABSORB_SCAN_SECONDS: Final = 0.25
"""How often a run that waits for its place looks for logs to absorb."""

SCAN_SECONDS: Final = 0.25
"""How long the runs of a process take partitions from one scan, while it names due ones that none of them tried. With
many partitions a scan before each batch would cost more than the batch."""

SCAN_SHARE: Final = 10
"""That time is at least this many times as long as the scan took, which grows with the number of partitions."""

TURN_SECONDS: Final = 1.0
"""Longest time that a run waits for the scan of another. While Redis hangs, the last of many runs would otherwise
wait for the timeouts of all before it, and a stop with it."""

TRIES: Final = 4
"""How often partitions are claimed for one request, if other processes were quicker."""

STAY_SECONDS: Final = 0.25
"""Longest time that a flush keeps the same partitions while others may be due."""


@dataclass(slots=True)
class Choice:
    """Partitions that a scan found free, in the order in which runs try them.

    Attributes:
        ranked: those that are due, then others with entries, which may share a request; by the node of a cluster that
            holds them, or all under None.
        due: those of them that are due.
        hurries: those of them that have a delete deep in their log.
        ends: when it is too old (monotonic, seconds).
        ends_if_slow: the same while a rate binds.
        outdated: whether a partition was released since with live deletes that were read.
    """

    ranked: Mapping[object, Ranked]
    due: set[int]
    hurries: set[int]
    ends: float
    ends_if_slow: float
    outdated: bool = False

    @property
    def has_live(self) -> bool:
        """Whether anything of the live lane is left in those that nobody has tried yet."""
        return any(ranked.has_live for ranked in self.ranked.values())

    def take(self, room: float, entries_a_record: float, node_of: Callable[[int], object], held: set[int]) -> list[int]:
        """Takes partitions, due ones first, until what waits in them fills the room.

        All are of one node, if there are several: then one node that fails, or its clock, concerns all of them alike.

        Args:
            room: how many records are wanted.
            entries_a_record: how many entries are read for each.
            node_of: tells the node of a partition.
            held: partitions that the run has, of the same node.
        """
        if held:
            node = node_of(next(iter(held)))
        else:
            node = next((each for each, ranked in self.ranked.items() if ranked), None)
        ranked = self.ranked.get(node)
        taken = [] if ranked is None else ranked.take(room, entries_a_record)
        self.due.difference_update(taken)
        return taken


@dataclass(slots=True)
class FlushRun:
    """What one run of the flush loop has in hand.

    Attributes:
        leases: of the partitions that it works on.
        ends: when they are released, so that other partitions get their turn (monotonic, seconds).
        absorbs: when logs to absorb are looked for again while no request may go out (monotonic, seconds).
    """

    leases: list[Lease] = field(default_factory=list)
    ends: float = 0.0
    absorbs: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """No request may go out for this many seconds, and nothing is to be absorbed meanwhile."""

    seconds: float


class ScanTurn:
    """Lets one run of a process scan at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Waits until the run before has scanned, but not for longer than `TURN_SECONDS`."""
        mine = self._lock.acquire(timeout=TURN_SECONDS)
        try:
            yield
        finally:
            if mine:
                self._lock.release()


class Claims:
    """Claims and releases partitions. The runs of a process share one, and what it found.

    Args:
        settings: linger, batch size and the request's timeout.
        partitions: those of the namespace.
        scanner: finds what waits in them.
        scan_turn: lets one run scan while others wait for what it finds.
        gate: the endpoint as the fleet sees it.
        monotonic: a clock, in seconds.
        draw: a random number in [0, 1).
        suppressed: the people who were erased, under a state of the gate.
        log: receives what cannot be read.

    Attributes:
        reach: how many entries fill a request.
    """

    def __init__(  # noqa: PLR0913 - everything that a claim depends on, by name
        self,
        settings: WorkerSettings,
        *,
        partitions: Partitions,
        scanner: BacklogScanner,
        scan_turn: Callable[[], AbstractContextManager[None]],
        gate: Gate,
        monotonic: Callable[[], float],
        draw: Callable[[], float],
        suppressed: Callable[[str], Suppression],
        log: Log,
    ) -> None:
        self._batch_size = settings.batch_size
        self._lease_seconds = settings.lease_seconds
        self._request_seconds = settings.request_timeout_seconds
        self._linger = Linger.of(settings.linger_seconds, settings.delete_linger_seconds)
        self._partitions = partitions
        self._scanner = scanner
        self._gate = gate
        self._monotonic = monotonic
        self._draw = draw
        self._suppressed = suppressed
        self._log = log
        self.reach = Reach()
        self._choice: Choice | None = None
        self._scan_turn = scan_turn
        self._lock = threading.Lock()

    def claim(self, run: FlushRun) -> Round | Wait | None:
        """Asks the gate for a place, and claims partitions until they fill a batch.

        The place comes first, so that a run that waits for one holds no lease that another needs.

        Returns:
            The next round. `Wait` while the fleet's rate, or the limit of requests under way, lets no request out, and
            for no time if all leases were about to expire. None if nothing is due.

        Raises:
            redis.RedisError: Redis does not answer, or refuses; leases that were claimed expire.
            Unreadable: something else wrote into the list of who was erased, or into the gate.
        """
        asked = self._monotonic()
        gate, token, next_ms, start_ms, absorbs = self._gate.ask(self._lease_seconds)
        answered = self._monotonic()
        try:
            self._suppressed(gate.suppression)
        except NodeAwayError:  # nothing may go out before this process knows who was erased: others may know it
            self._return_place(gate, token)
            return None
        except Unreadable:
            self._return_place(gate, token)
            raise
        waits = gate.state == "ok" and gate.closed
        limit = min(self._batch_size, gate.limit or self._batch_size)
        # What waits already may not be what goes next: worth staying for are unread logs, and live deletes that fill a
        # request, since with fewer others may be due elsewhere.
        unread = any(lease.waiting or lease.bulk_waiting for lease in run.leases)
        stays = unread or sum(lease.live_deletes for lease in run.leases) >= limit
        if waits or answered >= run.ends or not stays:
            self.release(run.leases)
            run.leases = []
        elif self._live_waits():
            # Bulk alone would fill the request while live waits in other partitions.
            self.release([each for each in run.leases if not each.has_live])
            run.leases = [each for each in run.leases if each.has_live]
        if not run.leases:
            run.ends = self._monotonic() + STAY_SECONDS
        if not waits or (absorbs and answered >= run.absorbs):
            self._fill_up(run, gate, limit, slow=next_ms >= SLOW_MS)
        found = bool(run.leases)
        self._release_short(run)
        if run.leases:
            this = Round(gate, asked, answered, run.leases, limit, token, next_ms, answered + start_ms / 1000)
            clock = run.leases[0].clock  # until it is read again: what is due decides what is read
            return this if clock is None else this.by_clock(*clock)
        self._return_place(gate, token)
        if found:
            return Wait(0.0)
        run.absorbs = self._monotonic() + ABSORB_SCAN_SECONDS
        return Wait(gate.wait_ms / 1000) if waits else None

    def release(self, leases: Sequence[Lease]) -> None:
        """Releases leases; nothing else of their partitions changes.

        Raises:
            redis.RedisError: it is not certain that they were released; they expire.
        """
        self.note_released(leases)
        self._partitions.release(leases)

    def note_released(self, leases: Iterable[Lease]) -> None:
        """Notes what is left in partitions whose leases are released, by a settle for one."""
        if self._choice is not None and any(lease.live_deletes for lease in leases):
            self._choice.outdated = True

    def give_up(self, run: FlushRun, this: Round, error: NodeAwayError | Unreadable) -> None:
        """Ends a round before its request, because what is known of its pairs cannot be read.

        If a node is away, all leases of the round are there, and expire. If something else wrote into a key of a
        partition, that partition is left alone until its lease expires, and the others go on.

        Raises:
            redis.RedisError: it is not certain that the others were released; they expire.
        """
        leases, run.leases = run.leases, []
        self._return_place(this.gate, this.token)
        if isinstance(error, Unreadable):
            self._log.error("state_unreadable", partition=error.partition, error=str(error))
            self.release([each for each in leases if each.partition != error.partition])

    def _return_place(self, gate: GateSnapshot, token: str) -> None:
        if token:
            self._gate.report(gate.generation, "unused", left=Left(token, unused=True))

    def _fill_up(self, run: FlushRun, gate: GateSnapshot, limit: int, *, slow: bool) -> None:
        """Claims what fills a request; while the rate leaves time for it, as much as is read ahead."""
        ahead = max(self.reach.entries_a_pair, ABSORB_READ / limit if slow else 0.0)
        room = Room(limit, bulk_share(limit, gate.now_ms), ahead)
        if self._left(room, run) > 0 and not (run.leases and gate.closed):
            kept = self._kept(gate, slow=slow)
            if kept is not None:
                self._try(run, kept, room)
            if kept is None or not run.leases:
                self._try(run, self._scanned(gate, limit, kept, slow=slow), room)

    def _left(self, room: Room, run: FlushRun) -> float:
        return room.left(run.leases, live_waits=self._live_waits())

    def _live_waits(self) -> bool:
        """Whether anything live waits in partitions that no run has tried."""
        with self._lock:
            return self._choice is not None and self._choice.has_live

    def _kept(self, gate: GateSnapshot, *, slow: bool) -> Choice | None:
        """The choice of an earlier scan, if it still serves: a closed gate has other partitions due.

        With a rate, a delete that was read since goes first; and while that leaves time for it, partitions are scanned
        for each request, unless a scan takes long.
        """
        kept = self._choice
        if kept is None or not kept.due or gate.closed or (kept.outdated and gate.rate is not None):
            return None
        return kept if self._monotonic() < (kept.ends_if_slow if slow else kept.ends) else None

    def _scanned(self, gate: GateSnapshot, limit: int, tried: Choice | None, *, slow: bool) -> Choice:
        """A choice that was not tried; one run scans, and others that want to meanwhile take what it found."""
        with self._scan_turn():
            kept = self._kept(gate, slow=slow)
            if kept is None or kept is tried:
                self._choice = kept = self._scan(gate, limit)
            return kept

    def _try(self, run: FlushRun, choice: Choice, room: Room) -> None:
        """Claims partitions of a choice; others in place of those that another process has taken since it scanned."""
        for _ in range(TRIES):
            left = self._left(room, run)
            held = {lease.partition for lease in run.leases}  # a lease that Redis lost too early looks free
            with self._lock:
                taken = choice.take(left, room.entries_a_record, self._partitions.node_of, held)
            chosen = [p for p in taken if p not in held]
            leases = self._partitions.claim(chosen)
            for lease in leases:
                lease.hurries = lease.partition in choice.hurries
            run.leases += leases
            if len(leases) == len(chosen) or self._left(room, run) <= 0:
                return

    def _release_short(self, run: FlushRun) -> None:
        """Releases the leases that a request begun now would outlive."""
        deadline = self._monotonic() + self._request_seconds
        short = [lease for lease in run.leases if not lease.outlives(deadline)]
        run.leases = [lease for lease in run.leases if lease.outlives(deadline)]
        self.release(short)

    def _scan(self, gate: GateSnapshot, limit: int) -> Choice:
        """Finds partitions that are due, in random order, and others to share the request, which costs no more."""
        began = self._monotonic()
        survey = self._scanner.scan()
        scanned = self._monotonic()
        free = [each for each in survey.waiting if not each.leased]
        # All that is due is equally due: ranked by size or age, a quiet partition would wait while others stay full.
        # Workers that scan at the same moment would all choose the same partitions; the draw sends them apart.
        times = {each.partition: self._due_ms(each, gate, limit, survey.now_ms) for each in free}
        ranked = sorted(free, key=lambda each: (times[each.partition], self._draw()))
        due = [each for each in ranked if times[each.partition] <= survey.now_ms]
        others = [each for each in ranked[len(due) :] if each.oldest_ms and not each.full_until_ms]
        company = [] if gate.closed or not due else others
        hurries = {each.partition for each in due if each.hurries(limit)}
        by_node: dict[object, list[PartitionBacklog]] = defaultdict(list)
        for each in (*due, *company):
            by_node[self._partitions.node_of(each.partition)].append(each)
        ranked_by_node = {node: Ranked(some) for node, some in by_node.items()}
        long = SCAN_SHARE * (scanned - began)
        return Choice(
            ranked_by_node, {each.partition for each in due}, hurries, began + max(SCAN_SECONDS, long), began + long
        )

    def _due_ms(self, backlog: PartitionBacklog, gate: GateSnapshot, limit: int, now_ms: int) -> float:
        """When it is due (Unix ms); now if it was before."""
        due = backlog.due_ms(gate, self._linger, limit)
        return float("inf") if due is None else max(due, now_ms)
