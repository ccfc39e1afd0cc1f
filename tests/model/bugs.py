"""Bugs that can be planted into the small world, to see that trying everything finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from producers.contract.keys import Keys
from worker.store import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.redis_model import Op, RedisModel
    from worker.core.lease import Lease
    from worker.core.read import Recalled
    from worker.core.settlement import Settlement

_KEYS: Final = Keys("m")


@dataclass(frozen=True, slots=True)
class Bug:
    """What one bug changes.

    Attributes:
        why: what it breaks.
        no_token: a settle compares nothing, whoever holds the lease.
        forgets_holder: a lease that expired leaves no suspicion of what its holder sent.
        clears_marks: any confirmation clears a late mark.
        no_ledger: nothing is remembered of what was confirmed.
        two_classes: a pair that moves to another class stays in its old one too.
        drops_rest: an upsert that is known to be later than a delete is not kept for its turn.
        sends_without_lease: a request is sent though the lease ends before its deadline.
        settles_before_answer: what was read is settled before the answer is there.
        marks_nothing: a request without an answer leaves no mark.
        fenced_says_nothing: a worker that lost its lease does not mark what it sent.
        loses_parked: a record that is refused with an unknown code is not kept.
        forgets_parked: a newer change of a pair is not joined with what is parked of it.
    """

    why: str = ""
    no_token: bool = False
    forgets_holder: bool = False
    clears_marks: bool = False
    no_ledger: bool = False
    two_classes: bool = False
    drops_rest: bool = False
    sends_without_lease: bool = False
    settles_before_answer: bool = False
    marks_nothing: bool = False
    fenced_says_nothing: bool = False
    loses_parked: bool = False
    forgets_parked: bool = False

    def of_recalled(self, recalled: Recalled) -> Recalled:
        """What it does to what a worker recalls."""
        return recalled._replace(parked={}) if self.forgets_parked else recalled

    def after_claim(self, lease: Lease) -> None:
        """What it does to a lease."""
        if self.forgets_holder:
            lease.late_until_ms = 0

    def of_redis(self, ops: Sequence[Op], redis: RedisModel) -> Sequence[Op]:
        """What it does to what a worker asks of Redis."""
        if not self.no_token:
            return ops
        return [_without_token(op, redis) for op in ops]

    def of_settlement(self, writes: Settlement) -> Settlement:
        """What it does to the writes of one settle."""
        if self.no_ledger:
            writes.ledger.clear()
        if self.two_classes and writes.keeps:
            for gone in writes.drop:
                gone.clear()
        if self.drops_rest and writes.ledger:
            for some in writes.keep:
                some.clear()
        if self.loses_parked:
            writes.park.clear()
        return writes


def _without_token(op: Op, redis: RedisModel) -> Op:
    name, args = op
    if name != "EVALSHA" or args[0] != scripts.SETTLE.sha:
        return op
    keys, argv = list(args[2 : 2 + args[1]]), list(args[2 + args[1] :])
    held = redis.hash_of(_KEYS.partition(0))
    lease = redis.text(_KEYS.lease(0))
    if lease is None:
        return op
    return name, (args[0], args[1], *keys, lease, int(held.get(b"seq", b"0")), *argv[2:])


NO_BUG: Final = Bug()
