"""What of the deeds of several servers is true in the end, and what failovers lost (pure).

Each server writes down what it does, whether it leads or follows. A deed that whoever led took is lost if a server that
led later, and had followed at that time, does not have it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.soak.log_file import Beat, Entry, Gone, Settle

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from tests.proof.history import Places
    from tests.soak.log_file import Done

SLACK_MS: Final = 5_000
"""How much later than it happened it may be seen that another server leads."""

FORK_MS: Final = 2_000
"""How long before it is seen that another server leads, the one before may have led alone, at least."""

UNDER_WAY_MS: Final = 12_000
"""How long what was read of a server that led before may be acted upon: a lease, and while a request is held up."""

_FOREVER: Final = 1 << 62


class Reign(NamedTuple):
    """A server serves a partition from then on.

    Attributes:
        since_ms: when that was seen first (Unix ms).
        node: which.
    """

    since_ms: int
    node: int


class Moved(NamedTuple):
    """A partition moved to another server, key by key.

    Attributes:
        partition: which.
        node: where to.
        begun_ms, ended_ms: from when until when (Unix ms): meanwhile both servers have some of it.
    """

    partition: int
    node: int
    begun_ms: int
    ended_ms: int


@dataclass(slots=True)
class Deeds:
    """What one server wrote down.

    Attributes:
        done: in order.
        starts: from when on each of its files tells what was done.
    """

    done: list[Done] = field(default_factory=list)
    starts: Sequence[int] = (0,)


@dataclass(slots=True)
class Tail:
    """What one failover lost.

    Attributes:
        took_over_ms: when it was seen that another server leads (Unix ms).
        nodes: which server led before, and which since.
        partitions: of which something is lost, or may be.
        since_ms, until_ms: the times of the first and of the last deed that is lost; both when it took over if none is.
        entries: changes that are lost.
        settles: outcomes that are lost.
        beats: how many checks are lost, of each key in which they are counted.
    """

    took_over_ms: int
    nodes: tuple[int, int]
    partitions: set[int] = field(default_factory=set)
    since_ms: int = 0
    until_ms: int = 0
    entries: list[Entry] = field(default_factory=list)
    settles: list[Settle] = field(default_factory=list)
    beats: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def loses(self) -> bool:
        """Whether anything is lost."""
        return bool(self.entries or self.settles or self.beats)

    @property
    def adrift(self) -> tuple[int, int]:
        """From when until when a request may have been built on what is lost (Unix ms)."""
        return min(self.since_ms, self.took_over_ms - FORK_MS), self.took_over_ms + UNDER_WAY_MS


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is true in the end.

    Attributes:
        done: what was done and is not lost, by time.
        tails: what each failover lost, those that lost nothing included.
        latest: until when each settle can have been at the latest, by its name.
    """

    done: list[Done]
    tails: list[Tail]
    latest: Mapping[Hashable, int]


def lineage_of(
    deeds: Sequence[Deeds],
    reigns: Mapping[int, Sequence[Reign]],
    moves: Sequence[Moved] = (),
    counted: Mapping[str, int] | None = None,
) -> Lineage:
    """Follows every deed from the server that took it to the one that leads in the end.

    Args:
        deeds: of each server.
        reigns: which servers served each partition, in order.
        moves: of partitions between servers that lead.
        counted: for each key in which checks are counted a partition that is always where the key is.
    """
    names = [{name_of(each) for each in one.done} for one in deeds]
    latest: dict[Hashable, int] = {}
    for one in deeds:
        for name, ms in latest_times(one.done).items():
            latest[name] = max(ms, latest.get(name, 0))
    if len(deeds) == 1:
        return Lineage(_carried(deeds[0].done), [], latest)
    paths = {p: _Path(p, those, deeds, moves) for p, those in reigns.items()}
    kept: dict[Hashable, Done] = {}
    lost: dict[Hashable, tuple[Done, tuple[int, int, int]]] = {}
    for one in deeds:
        for each in one.done:
            name = name_of(each)
            partition = (counted or {}).get(each.key) if isinstance(each, Beat) else _partition(each)
            if partition is None or partition not in paths or name in lost:
                continue
            if name in kept:
                kept[name] = max(kept[name], each, key=_ms)
                continue
            failover = paths[partition].lost_by(_ms(each), [name in those for those in names])
            if failover is None:
                kept[name] = each
            else:
                lost[name] = each, failover
    return Lineage(_carried(sorted(kept.values(), key=_ms)), _tails(lost.values(), paths), latest)


def _carried(done: Iterable[Done]) -> list[Done]:
    """The same, where each settle says how far the logs are settled by then, also if it settled no entry."""
    carried: list[Done] = []
    places: dict[int, Places] = {}
    for each in done:
        if isinstance(each, Settle):
            live, bulk = places.get(each.partition, ("", ""))
            places[each.partition] = each.position[0] or live, each.position[1] or bulk
            carried.append(each._replace(position=places[each.partition]))
        else:
            carried.append(each)
    return carried


def latest_times(done: Iterable[Done]) -> dict[Hashable, int]:
    """Until when each settle can have been at the latest: the next time that its file speaks of after it."""
    latest: dict[Hashable, int] = {}
    open_ones: list[Settle] = []
    for each in done:
        while open_ones and open_ones[-1].ms < _ms(each):
            latest[name_of(open_ones.pop())] = _ms(each)
        if isinstance(each, Settle):
            open_ones.append(each)
    return latest | {name_of(each): _FOREVER for each in open_ones}


class _Path:
    """The servers that one partition lived on, one after another."""

    def __init__(self, partition: int, reigns: Sequence[Reign], deeds: Sequence[Deeds], moves: Sequence[Moved]) -> None:
        self.partition = partition
        self.reigns = reigns
        self._covers: list[int] = []
        self._begins: list[int] = []
        self.moved: list[Moved | None] = []
        for reign in reigns:
            before = [each for each in moves if each.partition == partition and each.begun_ms <= reign.since_ms]
            move = before[-1] if before else None
            came = move is not None and move.node == reign.node and reign.since_ms <= move.ended_ms + SLACK_MS
            self.moved.append(move if came else None)
            self._begins.append(move.begun_ms if move is not None and came else reign.since_ms)
            starts = [start for start in deeds[reign.node].starts if start <= reign.since_ms]
            # A server knows of a partition from when it came, whoever of its fellows led then.
            self._covers.append(max([*starts[-1:], move.ended_ms if move is not None else 0]))

    def lost_by(self, ms: int, has: Sequence[bool]) -> tuple[int, int, int] | None:
        """Whether a deed of that time is lost: by which failover (when, from which server to which); None if not.

        Args:
            ms: when it was done.
            has: whether each server wrote it down.
        """
        reigns = self.reigns
        first = max(0, bisect_right(self._begins, ms) - 1)
        near = [i for i in range(first, len(reigns)) if i == first or self._begins[i] <= ms + SLACK_MS]
        move = self.moved[first]
        if move is not None and ms <= move.ended_ms + SLACK_MS:
            near.insert(0, first - 1)  # the one before has what has not moved yet
        # A server that leads again soon lost what it took in between.
        soon = first and ms <= self._begins[first] + SLACK_MS
        again = reigns[first - 1].node if soon else None
        held = next((i for i in near if has[reigns[i].node] and not (i > first and reigns[i].node == again)), None)
        if held is None:
            # Whoever led before and did not know yet took it.
            before = next((i for i in reversed(range(first)) if has[reigns[i].node]), None)
            if before is None:
                return None  # its server is new here: it leads now, which nobody has seen yet
            return reigns[first].since_ms, reigns[before].node, reigns[first].node
        for i in range(held + 1, len(reigns)):
            if not has[reigns[i].node] and self._covers[i] <= ms and self.moved[i] is None:
                return reigns[i].since_ms, reigns[i - 1].node, reigns[i].node
        return None

    def failovers(self) -> Iterable[tuple[int, int, int]]:
        """When one server took over from another, by itself."""
        for i in range(1, len(self.reigns)):
            if self.moved[i] is None:
                yield self.reigns[i].since_ms, self.reigns[i - 1].node, self.reigns[i].node


def _tails(lost: Iterable[tuple[Done, tuple[int, int, int]]], paths: Mapping[int, _Path]) -> list[Tail]:
    tails: list[Tail] = []

    def tail_of(failover: tuple[int, int, int]) -> Tail:
        ms, *nodes = failover
        for each in tails:
            if each.nodes == tuple(nodes) and abs(each.took_over_ms - ms) <= SLACK_MS:
                return each
        tails.append(Tail(ms, (nodes[0], nodes[1]), since_ms=ms, until_ms=ms))
        return tails[-1]

    for path in paths.values():
        for failover in path.failovers():
            tail_of(failover).partitions.add(path.partition)
    for each, failover in lost:
        tail = tail_of(failover)
        nothing = not tail.loses
        tail.since_ms = min(tail.since_ms, _ms(each))
        tail.until_ms = _ms(each) if nothing else max(tail.until_ms, _ms(each))
        match each:
            case Entry():
                tail.entries.append(each)
            case Settle():
                tail.settles.append(each)
            case Beat():
                tail.beats[each.key] += 1
    return sorted(tails, key=lambda each: each.took_over_ms)


def name_of(done: Done) -> Hashable:
    """What tells it from all others, on whichever server."""
    match done:
        case Entry():
            # Two servers that both take themselves for the leader may give one id to what each takes in a millisecond.
            return "entry", done.partition, done.lane, done.id, frozenset(done.fields.items())
        case Settle():
            # Done again after it was lost it is the same again, and the later one is true.
            return "settle", done.partition, done.seq, done.confirmed, done.buried
        case Gone():
            return "gone", done.id
        case Beat():
            return "beat", done.key, done.number, done.ms


def _partition(done: Entry | Settle | Gone) -> int:
    return int(done.id.partition("-")[0]) if isinstance(done, Gone) else done.partition


def _ms(done: Done) -> int:
    return done.ms
