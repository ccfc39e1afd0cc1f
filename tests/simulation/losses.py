"""What failovers of a world lost, who must notice it, and what of the world is still to be judged by all rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.simulation.chronicle import Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.proof.history import Pair
    from tests.simulation.chronicle import Chronicle

_UNDER_WAY_MS: Final = 6_000
"""A request that was built on what is lost has ended by then, and what it did late is done."""


class Loss(NamedTuple):
    """A tail that a node lost.

    Attributes:
        partitions: that it served.
        since_ms, at_ms: when the tail began, and when the replica without it took over (Unix ms).
    """

    partitions: Collection[int]
    since_ms: int
    at_ms: int


@dataclass(slots=True, eq=False)
class _Expected:
    """A process that must notice a loss at its next check.

    Attributes:
        process: its name.
        checks: how many it made that are lost.
        others: how many others have made since: each makes up for one.
    """

    process: str
    checks: int
    others: int = 0


@dataclass(slots=True)
class Noticed:
    """Whether processes notice what is lost, and nothing else.

    Args:
        mono_us: the clock that never jumps.

    Attributes:
        lost: whether anything was.
        alarms: how often it was noticed.
    """

    mono_us: Callable[[], int]
    lost: bool = False
    alarms: int = 0
    _begun: dict[str, int] = field(default_factory=dict)
    _checks: dict[str, list[int]] = field(default_factory=dict)
    _troubled: set[str] = field(default_factory=set)
    _expected: list[_Expected] = field(default_factory=list)

    def begin(self, process: str) -> None:
        """A process may be about to check."""
        self._troubled.discard(process)
        self._begun[process] = self.mono_us()

    def trouble(self, process: str) -> None:
        """It does not reach every node."""
        self._troubled.add(process)

    def alarm(self, process: str) -> None:
        """It says that something is lost."""
        if not self.lost:
            raise Broken(f"{process} says that changes are lost, and none are")
        self.alarms += 1
        self._expected.clear()

    def checked(self, process: str) -> None:
        """It has checked every node, unless it was in trouble."""
        if process in self._troubled:
            for each in self._expected:
                each.others += 1
            return
        # Nodes are asked one after another: of what a node had heard before its tail began nothing is lost.
        self._checks.setdefault(process, []).append(self._begun[process])
        for each in self._expected:
            if each.process == process and each.others < each.checks:
                raise Broken(f"{process} does not notice that changes are lost")
            each.others += 1

    def lose(self, since_us: int, alive: Collection[str], *, certain: bool) -> None:
        """A node lost what it did since then (monotonic); whether whoever checked since must notice it."""
        self.lost = True
        self._expected.clear()
        for process in alive if certain else ():
            if lost := sum(at_us > since_us for at_us in self._checks.get(process, ())):
                self._expected.append(_Expected(process, lost))


def disturbed(chronicle: Chronicle, losses: Collection[Loss]) -> set[Pair]:
    """The pairs of which something was said, sent or buried while a tail grew that is lost, or soon after."""
    found: set[Pair] = set()
    for loss in losses:
        said = {(each.owner, each.contact) for each in chronicle.changes if each.partition in loss.partitions}
        found |= {
            (each.owner, each.contact)
            for each in chronicle.changes
            if each.partition in loss.partitions and loss.since_ms <= each.time_ms <= loss.at_ms
        }
        for sent in chronicle.sent:
            ended_ms = sent.begun_ms if sent.ended_ms is None else sent.ended_ms
            if sent.begun_ms <= loss.at_ms + _UNDER_WAY_MS and ended_ms + _UNDER_WAY_MS >= loss.since_ms:
                found |= {(owner, contact) for owner, contact, _ in sent.records} & said
        for letter in chronicle.letters.values():
            if letter.partition in loss.partitions and letter.owner and letter.contact:
                found.add((letter.owner, letter.contact))
    return found
