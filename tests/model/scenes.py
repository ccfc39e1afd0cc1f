"""What is said in each of the small worlds, what may go wrong in it, and for how long."""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.model.bugs import Bug
from tests.model.world import Said

_CRASH, _FAILOVER, _LOSE, _REFUSE = ("crash",), ("failover",), ("lose",), ("refuse",)


class Scene(NamedTuple):
    """One small world.

    Attributes:
        changes: what is said, in every order.
        faults: the kinds that may happen, once each.
        seconds: how long anything may go wrong. Afterwards all is well, except for requests under way.
    """

    changes: tuple[Said, ...]
    faults: tuple[str, ...] = ()
    seconds: int = 3

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.changes))}; {self.faults[0] if self.faults else 'no fault'}; {self.seconds} s"


_LATER_DELETE = (Said("upsert", 1), Said("delete", 2))
_LATER_UPSERT = (Said("delete", 1), Said("upsert", 2))
_EQUAL = (Said("upsert", 1), Said("delete", 1))
_UNSTAMPED = (Said("upsert"), Said("delete"))
_BULK_UPSERT = (Said("upsert", 1, "bulk"), Said("delete", 2))
_BULK_DELETE = (Said("upsert", 1), Said("delete", 2, "bulk"))

BACK_AGAIN: Final = Scene((Said("upsert", 1), Said("delete", 2), Said("upsert", 3)), (), 1)

SCENES: Final = (
    *(Scene(_LATER_DELETE, faults) for faults in ((), _CRASH, _LOSE, _REFUSE)),
    *(Scene(_LATER_UPSERT, faults) for faults in ((), _CRASH, _LOSE, _REFUSE)),
    *(Scene(changes, _FAILOVER, 1) for changes in (_LATER_DELETE, _LATER_UPSERT)),  # a replica doubles every state
    *(Scene(changes, _CRASH) for changes in (_EQUAL, _UNSTAMPED, _BULK_UPSERT, _BULK_DELETE)),
    *(Scene(changes, _REFUSE) for changes in (_UNSTAMPED, _BULK_UPSERT)),
    BACK_AGAIN,
)
"""All of them are explored by the command."""

SLICE: Final = (Scene(_LATER_DELETE, (), 1), Scene(_LATER_UPSERT, (), 1), Scene(_BULK_UPSERT, (), 1))
"""Those of every run of the tests: short worlds without faults, in which requests are late all the same."""

UPSERT: Final = Scene((Said("upsert", 1),), _REFUSE, 2)
UPSERT_CRASH: Final = Scene((Said("upsert", 1),), _CRASH, 2)
DELETE_LAST: Final = Scene(_LATER_DELETE, (), 2)
UPSERT_LAST: Final = Scene(_LATER_UPSERT, (), 2)
UNSTAMPED_REFUSED: Final = Scene(_UNSTAMPED, _REFUSE, 2)
DELETE_LAST_CRASH: Final = Scene(_LATER_DELETE, _CRASH, 4)
DELETE_LAST_FAILOVER: Final = Scene(_LATER_DELETE, _FAILOVER, 2)

PLANTED: Final[tuple[tuple[Bug, Scene], ...]] = (
    (
        Bug("a settle compares no token: whoever lost the lease moves the partition", no_token=True),
        DELETE_LAST_FAILOVER,
    ),
    (Bug("a worker that lost its lease does not mark what it sent", fenced_says_nothing=True), DELETE_LAST_FAILOVER),
    (Bug("a lease that expired leaves no suspicion of what its holder sent", forgets_holder=True), DELETE_LAST_CRASH),
    (Bug("a request is sent though its lease ends before its deadline", sends_without_lease=True), DELETE_LAST_CRASH),
    (Bug("what was read is settled before the answer is there", settles_before_answer=True), UPSERT_CRASH),
    (Bug("a request without an answer leaves no mark", marks_nothing=True), DELETE_LAST),
    (Bug("any confirmation clears a late mark", clears_marks=True), DELETE_LAST),
    (Bug("nothing is remembered of what was confirmed", no_ledger=True), DELETE_LAST),
    (Bug("a pair that moves to another class stays in its old one too", two_classes=True), DELETE_LAST),
    (Bug("an upsert known to be later than a delete is not kept for its turn", drops_rest=True), UPSERT_LAST),
    (Bug("a record that is refused with an unknown code is not kept", loses_parked=True), UPSERT),
    (Bug("a newer change of a pair is not joined with what is parked of it", forgets_parked=True), UNSTAMPED_REFUSED),
)
"""Bugs, each with a scene in which it must be found."""
