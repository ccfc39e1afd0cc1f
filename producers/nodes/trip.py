"""One round trip with a cluster, whichever nodes it takes: I/O-free, as steps that a driver performs.

Commands are grouped by node. Those for all nodes are written before any reply is read. Only a command that a node did
not carry out, because its slot is elsewhere (MOVED, ASK) or on its way (TRYAGAIN), is sent again. What became of a
node's own commands, if it is away, is their reply: `NodeAwayError`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeVar

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError, NoPermissionError, TryAgainError

from producers.nodes.exchange import Answer, pack
from producers.nodes.slots import SlotMap, address_told

if TYPE_CHECKING:
    from producers.nodes.url import Address

T = TypeVar("T")
K = TypeVar("K")

NODE_SECONDS: Final = 1.0
"""Longest wait for a node, to connect and for each reply. One that is busy for longer delays all others."""

SHUNNED_SECONDS: Final = 1.0
"""How long a node that did not answer in time is left alone; twice as long after each PING that it does not answer."""

SHUNNED_SECONDS_MAX: Final = 4.0
PROBE_SECONDS: Final = 0.2
"""Longest wait for the answer to that PING."""

MAP_SECONDS: Final = 0.3
"""Shortest time between two questions for the slots; and longest wait for an answer."""

FIRST_MAP_SECONDS: Final = 1.0
"""Longest wait for an answer while no slots are known: on a busy machine a first connection by TLS takes its time."""

_MAP_TRIES: Final = 3  # nodes asked at once for the slots
_ROUNDS: Final = 6
_PAUSE_SECONDS: Final = 0.02
_ASKING: Final = pack(["ASKING"])


class NodeAwayError(redis.ConnectionError):
    """A node did not answer, is left alone because it did not, or answers that it serves nothing now.

    Attributes:
        written: whether the command may have been carried out.
    """

    def __init__(self, text: str, *, written: bool) -> None:
        super().__init__(text)
        self.written = written


WAIT_SECONDS: Final = 0.5
"""Longest wait for replicas in one round trip."""

Replicas = int | Literal["all"]
"""How many replicas must have a change; `all` for every one that the server has, at least one."""


class NotReplicatedError(NodeAwayError):
    """The server has the change, and too few replicas have it: a failover may lose it."""

    def __init__(self, text: str) -> None:
        super().__init__(text, written=True)


def wait_command(wanted: int) -> bytes:
    """Returns WAIT, packed. It belongs on the connection of the changes: on another one it waits for nothing."""
    return pack(["WAIT", wanted, int(WAIT_SECONDS * 1000)])


def why_not_replicated(reply: object, wanted: int) -> str | None:
    """Says what is wrong with the reply to WAIT; None if `wanted` replicas have the changes."""
    if isinstance(reply, int):
        return None if reply >= wanted else f"{reply} of {wanted} replicas have it within {WAIT_SECONDS:g} s"
    return f"it is not known whether replicas have it: {str(reply).rstrip('.')}"


class NotAClusterError(redis.ResponseError):
    """The URL is that of a cluster, and the server is not one of its nodes."""


class Command(NamedTuple):
    """Commands that go to one node together.

    Attributes:
        slot: which node; None for any.
        packed: each in the protocol of Redis. Only one that is alone is sent again if it is redirected.
    """

    slot: int | None
    packed: Sequence[bytes]


class Parcel(NamedTuple):
    """What to write to one node, and how many replies to read."""

    commands: bytes
    replies: int


class Write(NamedTuple):
    """Write to all of these nodes, then read from each; the result is an `Answer` for each node."""

    parcels: Mapping[Address, Parcel]


class AskForSlots(NamedTuple):
    """Ask a node for CLUSTER SLOTS, on a connection of its own; the result is the reply, or an error."""

    node: Address


class Ping(NamedTuple):
    """Ask a node, which did not answer before, for PING; the result is whether it answers within PROBE_SECONDS."""

    node: Address


class Rest(NamedTuple):
    """Wait for this many seconds."""

    seconds: float


Step = Write | AskForSlots | Ping | Rest
Steps = Generator[Step, Any, T]


class _LeftAlone(Generic[K]):
    """What is left alone for a while, and for twice as long after each time that it was tried in vain."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[K, tuple[float, float]] = {}  # until when, and for how long

    def __bool__(self) -> bool:
        return bool(self._until)

    def __contains__(self, each: object) -> bool:
        return each in self._until

    def add(self, each: K) -> None:
        """Leaves it alone from now on, unless it is already."""
        self._until.setdefault(each, (self._clock() + SHUNNED_SECONDS, SHUNNED_SECONDS))

    def drop(self, each: K) -> None:
        """Leaves it alone no longer."""
        self._until.pop(each, None)

    def may_try(self, each: K) -> bool:
        """Whether whoever asks may try it now; if it was left alone, others go on to leave it alone meanwhile."""
        found = self._until.get(each)
        if found is None:
            return True
        until, seconds = found
        now = self._clock()
        if now < until:
            return False
        longer = min(2 * seconds, SHUNNED_SECONDS_MAX)
        self._until[each] = (now + longer, longer)
        return True


class Nodes:
    """What is known of a cluster's nodes. Threads may share it.

    Args:
        seeds: where to ask first.
        clock: returns seconds that only rise.
    """

    def __init__(self, seeds: Sequence[Address], clock: Callable[[], float] = time.monotonic) -> None:
        self.slots = SlotMap()
        self._seeds = tuple(seeds)
        self._clock = clock
        self._map_due = True
        self._map_asked = float("-inf")
        self._shunned: _LeftAlone[Address] = _LeftAlone(clock)  # nodes that hang
        self._adrift: _LeftAlone[int | None] = _LeftAlone(clock)  # slots that each node sends on to another
        self._why: dict[Address, str] = {}

    @property
    def map_seconds(self) -> float:
        """How long to wait for a node's answer to the question for the slots."""
        return MAP_SECONDS if self.slots else FIRST_MAP_SECONDS

    def away(self) -> dict[Address, str]:
        """The masters that did not answer last, or served nothing, with what was seen."""
        return {each: self._why[each] for each in self.slots.masters if each in self._why}

    def trip(self, commands: Sequence[Command], wait: Replicas = 0) -> Steps[list[list[Any]]]:
        """Runs commands; returns for each its replies, errors included.

        Args:
            commands: what to run.
            wait: how many replicas of each node must have what they write; what too few have is NotReplicatedError.

        Raises:
            redis.ResponseError: before anything is sent: the server is not a node of a cluster, or refuses us.
        """
        yield from self.refresh()
        results: list[list[Any]] = [[] for _ in commands]
        targets: dict[int, Address] = {}
        asking: set[int] = set()
        todo: list[int] = list(range(len(commands)))
        for i in range(_ROUNDS):
            groups = yield from self._grouped(commands, todo, targets, results)
            if not groups:
                break
            answers: Mapping[Address, Answer] = yield Write(
                {node: _parcel(commands, those, asking, self._wanted(node, wait)) for node, those in groups.items()}
            )
            todo = []
            for node, those in groups.items():
                todo += self._take(node, those, answers[node], commands, results, targets, asking)
                if wanted := self._wanted(node, wait):
                    _lack(those, answers[node], wanted, results)
            waits = all(isinstance(results[each][0], TryAgainError) for each in todo)
            known = i and all(commands[each].slot in self._adrift for each in todo)  # others need not wait for these
            if not todo or i == _ROUNDS - 1 or (waits and i) or known:
                break
            if i or waits:
                yield Rest(_PAUSE_SECONDS * (i + 1))
        self._set_adrift(commands, todo, results)
        return results

    def refresh(self) -> Steps[None]:
        """Asks for the slots if it is time to: never in the middle of a trip, whose replies would be mixed up."""
        now = self._clock()
        if not (self._map_due or not self.slots) or now - self._map_asked < (MAP_SECONDS if self.slots else 0.0):
            return
        self._map_asked, self._map_due = now, False
        known = list(dict.fromkeys((*self.slots.known, *self._seeds)))
        random.shuffle(known)  # not the same node for the whole fleet
        known.sort(key=lambda each: each in self._why)
        for node in known[: _MAP_TRIES if self.slots else len(known)]:
            reply = yield AskForSlots(node)
            if isinstance(reply, Exception) or not reply:
                self._why[node] = str(reply).rstrip(".") if reply else "serves no slots"
                if not self.slots:
                    _raise_if_refused(reply)
                continue
            self.slots.read(reply, node)
            return
        self._map_due = True

    def _grouped(
        self, commands: Sequence[Command], todo: Sequence[int], targets: Mapping[int, Address], results: list[list[Any]]
    ) -> Steps[dict[Address, list[int]]]:
        groups: dict[Address, list[int]] = {}
        usable: dict[Address, bool] = {}
        slots = {commands[i].slot for i in todo if i not in targets} if self._adrift else ()
        refused = {slot for slot in slots if not self._adrift.may_try(slot)}
        for i in todo:
            slot = commands[i].slot
            if slot in refused and i not in targets:
                self._map_due = True
                results[i] = [_nobodys(slot)] * len(commands[i].packed)
                continue
            node = targets.get(i) or (self.slots.node_of(slot) if slot is not None else self._any())
            if node is not None and node not in usable:
                usable[node] = yield from self._usable(node)
            if node is not None and usable[node]:
                groups.setdefault(node, []).append(i)
                continue
            self._map_due = True
            results[i] = [self._unsent(node)] * len(commands[i].packed)
        return groups

    def _wanted(self, node: Address, wait: Replicas) -> int:
        return max(1, self.slots.replicas_of(node)) if wait == "all" else wait

    def _any(self) -> Address | None:
        masters = self.slots.masters
        return self._another() or (masters[0] if masters else None)

    def _another(self) -> Address | None:
        """A node of which nothing bad is known."""
        return next((each for each in self.slots.masters if each not in self._why), None)

    def _unsent(self, node: Address | None) -> NodeAwayError:
        if node is not None:
            return NodeAwayError(f"{node} is away: {self._why.get(node, 'it does not answer')}", written=False)
        why = "; ".join(f"{each}: {said}" for each, said in self._why.items())
        return NodeAwayError(f"no node of the cluster serves the slot ({why or 'none answered'})", written=False)

    def _usable(self, node: Address) -> Steps[bool]:
        """Whether to write to a node. One that hangs is left alone, then asked for one PING by one thread."""
        if node not in self._shunned:
            return True
        if self._shunned.may_try(node) and (yield Ping(node)):
            self._shunned.drop(node)
            return True
        return False

    def _set_adrift(self, commands: Sequence[Command], todo: Sequence[int], results: list[list[Any]]) -> None:
        """Takes slots for served by no node if each node that was asked sends on to another.

        So it is when somebody began to give a slot away and did not end it: it passes, and holds up nobody else.
        """
        for i in todo:
            slot = commands[i].slot
            if slot is not None and isinstance(results[i][0], MovedError | AskError):
                self._adrift.add(slot)
                results[i] = [_nobodys(slot)]

    def _take(  # noqa: PLR0913, PLR0917 - what one round reads and fills
        self,
        node: Address,
        those: Sequence[int],
        answer: Answer,
        commands: Sequence[Command],
        results: list[list[Any]],
        targets: dict[int, Address],
        asking: set[int],
    ) -> list[int]:
        """Takes a node's answer; returns which commands are to be sent again."""
        unable = next((each for each in answer.replies if _serves_nothing(each)), None)
        self._note(node, answer.broken or unable)
        again = []
        replies = iter(answer.replies)
        for i in those:
            got = []
            for _ in commands[i].packed:
                if i in asking:
                    next(replies, None)  # the answer to ASKING
                reply = next(replies, answer)  # the answer itself, which is no reply, if there are no more
                if reply is answer:
                    reply = _away(node, answer.broken, written=answer.written)
                elif unable is not None and _serves_nothing(reply):
                    reply = _away(node, reply, written=False)
                got.append(reply)
            asking.discard(i)
            results[i] = got
            if len(got) == 1 and self._redirected(i, commands[i].slot, got[0], node, targets, asking):
                again.append(i)
            elif commands[i].slot is None and isinstance(got[0], NodeAwayError) and self._another():
                again.append(i)  # it changes nothing, and any node can answer it
            elif commands[i].slot in self._adrift and not any(isinstance(each, _NOT_SERVED) for each in got):
                self._adrift.drop(commands[i].slot)
        return again

    def _redirected(  # noqa: PLR0913, PLR0917 - the same
        self, i: int, slot: int | None, reply: Any, node: Address, targets: dict[int, Address], asking: set[int]
    ) -> bool:
        if isinstance(reply, MovedError):
            targets[i] = address_told(reply.host, reply.port, node)
            if slot is not None:
                self.slots.learn(slot, targets[i])
            self._map_due = True
            return True
        if isinstance(reply, AskError):
            targets[i] = address_told(reply.host, reply.port, node)
            asking.add(i)
            return True
        return isinstance(reply, TryAgainError)

    def _note(self, node: Address, broken: Exception | None) -> None:
        if broken is None:
            self._why.pop(node, None)
            return
        self._why[node] = str(broken).rstrip(".")
        self._map_due = True
        if isinstance(broken, redis.TimeoutError):
            self._shunned.add(node)


# What says nothing of who serves a slot, or that it is another.
_NOT_SERVED: Final = (NodeAwayError, MovedError, AskError)


def _away(node: Address, why: object, *, written: bool) -> NodeAwayError:
    return NodeAwayError(f"{node}: {str(why).rstrip('.')}", written=written)


def _nobodys(slot: int | None) -> NodeAwayError:
    return NodeAwayError(f"no node serves slot {slot}: each says that another has it", written=False)


def _serves_nothing(reply: object) -> bool:
    """Whether a node refuses a command for its own state, which passes: it loads, is cut off, or runs a script."""
    if isinstance(reply, redis.BusyLoadingError | ClusterDownError):  # the latter is MASTERDOWN, too
        return True
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("BUSY ")


def _raise_if_refused(reply: object) -> None:
    """Raises what the first node that is asked refuses for good."""
    if isinstance(reply, redis.ResponseError) and "cluster support disabled" in str(reply):
        raise NotAClusterError("it is a single server, and the URL is that of a cluster")
    if isinstance(reply, redis.AuthenticationError | NoPermissionError):
        raise reply


def _lack(those: Sequence[int], answer: Answer, wanted: int, results: list[list[Any]]) -> None:
    """Marks what a node carried out and too few replicas have; the reply to WAIT is the last one."""
    why = why_not_replicated(answer.broken or answer.replies[-1], wanted)
    for i in those if why is not None else ():
        results[i] = [each if isinstance(each, Exception) else NotReplicatedError(why or "") for each in results[i]]


def _parcel(commands: Sequence[Command], those: Sequence[int], asking: set[int], wanted: int) -> Parcel:
    packed: list[bytes] = []
    for i in those:
        for each in commands[i].packed:
            if i in asking:
                packed.append(_ASKING)
            packed.append(each)
    if wanted:
        packed.append(wait_command(wanted))
    return Parcel(b"".join(packed), len(packed))
