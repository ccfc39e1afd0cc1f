"""Whether section 3 of contract.md explains what was sent of one pair, and how it must have ended (pure).

The contract leaves open how much of the log a worker had read when it built a request, and a crash leaves open whether
a confirmation was settled. So all that can be true is followed at once: each `Possible` is one reading of the past
that explains every record so far. A record that none of them explains breaks the rules, whatever happened inside.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from producers.contract.change import LANES
from tests.support.pair_oracle import Known, Said, confirm, is_stale, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from producers.contract.change import Lane, Op
    from tests.proof.history import Change, DeadLetter, Sent
    from worker.core.pair import Readd

_FOREVER = 1 << 62

Read = tuple[int, int]
"""How many entries of a pair were read: of its log, and of the bulk lane's."""


class Possible(NamedTuple):
    """One reading of the past.

    Attributes:
        read: how many of the pair's entries were read, of each log.
        known: what the contract lets anybody know by then.
        confirmed_ms: when its record was confirmed last.
        buried: how many of its records became dead letters.
    """

    read: Read = (0, 0)
    known: Known = Known()
    confirmed_ms: int = 0
    buried: int = 0


class Delivery(NamedTuple):
    """A request as one pair sees it.

    Attributes:
        sent: the request.
        op: of its record.
        settled: whether its outcome moved the pair's partition forward, if that is known.
        least: how many entries of the pair had certainly been settled when its logs were read.
        settled_to: how many are since, None where that is not known.
        perhaps_to: how many may be, None where one number is certain or none is known.
    """

    sent: Sent
    op: Op
    settled: bool | None
    least: Read = (0, 0)
    settled_to: Read | None = None
    perhaps_to: frozenset[Read] | None = None


class Unexplained(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """No reading of the past explains this record.

    Attributes:
        delivery: the record.
        instead: what the readings would have said: a record, or None for nothing.
        ended: the ops that any of them had confirmed.
    """

    def __init__(self, delivery: Delivery, before: Iterable[Possible]) -> None:
        self.delivery = delivery
        self.instead = {record(each.known) for each in before}
        self.ended = {each.known.confirmed for each in before}
        super().__init__(f"request {delivery.sent.number} says {delivery.op}")


@dataclass(frozen=True, slots=True)
class PairPast:
    """What is known of one pair from outside.

    Attributes:
        changes: its entries in the order of their ids, malformed ones left out.
        perhaps: changes of which further copies may lie in the log.
        deliveries: by begin.
        letters: its refused dead letters.
        lost: changes that failovers lost.
    """

    changes: list[Change] = field(default_factory=list)
    perhaps: list[Change] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    lost: list[Change] = field(default_factory=list)

    def of_lane(self, lane: Lane) -> list[Change]:
        """Those of its entries that lie in one log."""
        return [each for each in self.changes if each.lane == lane]


class Explainer:
    """Follows every reading of one pair's past.

    Raises (from `explain`):
        Unexplained: at the first record that breaks the rules.
    """

    def __init__(self, past: PairPast, readd: Readd, ledger_ms: int) -> None:
        self._past = past
        self._readd = readd
        self._ledger_ms = ledger_ms
        lanes = [past.of_lane(lane) for lane in LANES]
        self._said = [
            [Said(cast("Op", each.op), each.at, max(1, each.order[0])) for each in changes] for changes in lanes
        ]
        self._times = [[each.time_ms for each in changes] for changes in lanes]
        self._perhaps = [
            (each.perhaps_since_ms, Said(cast("Op", each.op), each.at, each.perhaps_since_ms))
            for each in past.perhaps
            if each.perhaps_since_ms is not None
        ]
        self._before: list[tuple[Delivery, set[Possible]]] = []  # what was possible before each delivery

    def explain(self) -> set[Possible]:
        """Every reading that explains all deliveries, with all entries read."""
        now = {Possible()}
        for delivery in self._past.deliveries:
            self._before.append((delivery, now))
            now = self._after(now, delivery)
        return {each for each in self._ahead(now, _FOREVER) if each.read == self._until(_FOREVER)}

    def _after(self, now: set[Possible], delivery: Delivery) -> set[Possible]:
        sent = delivery.sent
        least = delivery.least
        if sent.whole:
            live, bulk = (bisect_left(times, sent.built_ms) for times in self._times)
            least = max(least[0], live), max(least[1], bulk)
        origins = self._at_least(now, delivery.least)
        came_from = self._from(origins, sent.reads_until_ms)
        says = {each for each in came_from if not _behind(each.read, least) and self._explains(each, delivery.op)}
        then = self._moved(origins & _leading(says, came_from), says, delivery)
        if self._overlaps(delivery) and self._was_true_once(delivery):
            then |= now  # its worker had lost the lease: it moves nothing, and its act is repaired
        if sent.adrift and not delivery.settled:
            then |= now
        if not then:
            raise Unexplained(delivery, self._ahead(now, sent.reads_until_ms))
        return _earliest(then)

    def _moved(self, origins: set[Possible], says: set[Possible], delivery: Delivery) -> set[Possible]:
        """What the readings that say the record become by its outcome, and what its worker read but did not settle.

        Args:
            origins: the readings that were possible before, of those that lead to one that says it.
            says: the readings that say it.
            delivery: the record.
        """
        to = delivery.perhaps_to
        if to is None and delivery.settled_to is not None:
            to = frozenset({delivery.settled_to})
        if delivery.settled is False:
            return origins
        then: set[Possible] = set()
        for each in says:
            if to is None or each.read in to:
                then |= self._outcomes(each, delivery)
        # A refusal too may move nothing: one of very many in a row is taken for the endpoint's own fault.
        if delivery.settled is None or delivery.sent.outcome != "confirmed":
            then |= {each for each in origins if to is None or each.read in to}
        return then

    def _at_least(self, now: set[Possible], least: Read) -> set[Possible]:
        """The same, once so many entries were read."""
        then: set[Possible] = set()
        for each in now:
            to = max(each.read[0], least[0]), max(each.read[1], least[1])
            then |= {further for further in self._ahead({each}, _FOREVER, to) if further.read == to}
        return then

    def _until(self, ms: int) -> Read:
        """How many entries of each log are no later than this."""
        live, bulk = (bisect_right(times, ms) for times in self._times)
        return live, bulk

    def _ahead(self, now: set[Possible], until_ms: int, last: Read = (_FOREVER, _FOREVER)) -> set[Possible]:
        """What they become by reading on, up to entries of this time, and no more than so many."""
        return set(self._from(now, until_ms, last))

    def _from(
        self, now: set[Possible], until_ms: int, last: Read = (_FOREVER, _FOREVER)
    ) -> dict[Possible, list[Possible]]:
        """The same, each with those that become it in one step.

        All are followed together: around failovers thousands of readings are possible, and most lead to the same ones.
        """
        until = self._until(until_ms)
        last = min(last[0], until[0]), min(last[1], until[1])
        came_from: dict[Possible, list[Possible]] = {each: [] for each in now}
        front = list(now)
        while front:
            each = front.pop()
            for further in self._next(each, last, until_ms):
                if further not in came_from:
                    came_from[further] = []
                    front.append(further)
                came_from[further].append(each)
        return came_from

    def _next(self, each: Possible, last: Read, until_ms: int) -> Iterable[Possible]:
        known = each.known
        for lane in range(len(LANES)):
            at = each.read[lane]
            if at < last[lane]:
                said = self._said[lane][at]
                read = (at + 1, each.read[1]) if lane == 0 else (each.read[0], at + 1)
                yield each._replace(read=read, known=_heard(known, said))
                if self._may_be_forgotten(each, self._times[lane][at]):
                    yield each._replace(read=read, known=_heard(known._replace(ended=frozenset()), said))
        for since_ms, said in self._perhaps:
            if since_ms <= until_ms:
                yield each._replace(known=_heard(known, said))

    def _may_be_forgotten(self, each: Possible, entry_ms: int) -> bool:
        """contract.md, 3.3: what was confirmed is certainly known for LEDGER_SECONDS, and while it has dead letters."""
        if not each.known.ended or entry_ms - each.confirmed_ms <= self._ledger_ms:
            return False
        return not self._dead_at(entry_ms)

    def _dead_at(self, ms: int) -> bool:
        return any(each.since_ms <= ms and (each.gone_ms is None or ms <= each.gone_ms) for each in self._past.letters)

    def _explains(self, each: Possible, op: Op) -> bool:
        says = record(each.known)
        # Nothing waits, and it says once more what was confirmed: a repair.
        return says == op or (says is None and each.known.confirmed == op)

    def _outcomes(self, each: Possible, delivery: Delivery) -> set[Possible]:
        """What the reading can be after the delivery that it explains."""
        outcome, settled = delivery.sent.outcome, delivery.settled
        if record(each.known) is None:  # a repair moves nothing that the contract knows of
            return {each}
        then = set()
        if outcome != "confirmed" or settled is not True or self._may_repair(each, delivery):
            then.add(each)
        if outcome in {"confirmed", None} and settled is not False:
            confirmed_ms = delivery.sent.begun_ms if delivery.sent.ended_ms is None else delivery.sent.ended_ms
            known = confirm(each.known, self._readd)
            then.add(each._replace(known=known, confirmed_ms=confirmed_ms))
            unstamped = [one.entry_ms for one in each.known.waiting if one.op == "upsert" and one.at is None]
            if unstamped and delivery.op == "upsert" and self._dead_at(confirmed_ms):
                # A redriven change counts as of the time of its entry, so beside dead letters an upsert does too.
                ended = _ended({*known.ended, (max(unstamped), "upsert")})
                then.add(each._replace(known=known._replace(ended=ended), confirmed_ms=confirmed_ms))
        if outcome in {"refused", None} and settled is not False and self._past.letters:
            # It becomes a dead letter, and what is known to be later than it is tried on its own.
            waiting = confirm(each.known, self._readd).waiting
            then.add(each._replace(known=each.known._replace(waiting=waiting), buried=each.buried + 1))
        return then

    def _may_repair(self, each: Possible, delivery: Delivery) -> bool:
        """Whether it may say again what was confirmed, after a request without an answer, while what waits is parked.

        What was refused with an unknown code is parked, and such a refusal confirms nothing either.
        """
        unconfirmed = any(earlier.sent.outcome != "confirmed" for earlier, _ in self._before[:-1])
        return unconfirmed and each.known.confirmed == delivery.op

    def _overlaps(self, delivery: Delivery) -> bool:
        """Whether an earlier request was still under way when this one's log may have been read: one lease is lost."""
        if delivery.settled:
            return False
        return any(
            each.sent.ended_ms is not None and each.sent.ended_ms >= delivery.sent.built_ms
            for each, _ in self._before[:-1]
        )

    def _was_true_once(self, delivery: Delivery) -> bool:
        """Whether it was explained at any time since its log was read.

        A worker without its lease may also have read the log before another's confirmation and the ledger after it:
        then entries wait for it that ended with that confirmation.
        """
        span: list[set[Possible]] = []
        for earlier, possible in reversed(self._before):
            span.append(possible)
            if earlier.sent.ended_ms is not None and earlier.sent.ended_ms < delivery.sent.built_ms:
                break
        until_ms = delivery.sent.reads_until_ms
        return any(
            self._explains(each, delivery.op) for possible in span for each in self._ahead(possible, until_ms)
        ) or self._was_mixed_once(set().union(*span), delivery.op, self._until(until_ms))

    def _was_mixed_once(self, span: set[Possible], op: Op, last: Read) -> bool:
        """Whether entries from any place that was settled to say it, beside any ledger that there was since."""
        for ended, confirmed in {(each.known.ended, each.known.confirmed) for each in span}:
            for live, bulk in {each.read for each in span}:
                of_live = Known(ended=ended, confirmed=confirmed)
                for said_live in (None, *self._said[0][live : last[0]]):
                    known = of_live = of_live if said_live is None else _heard(of_live, said_live)
                    for said_bulk in (None, *self._said[1][bulk : last[1]]):
                        known = known if said_bulk is None else _heard(known, said_bulk)
                        if record(known) == op:
                            return True
        return False


def _earliest(every: set[Possible]) -> set[Possible]:
    """Of readings that differ in nothing else the one confirmed earliest: it explains whatever the others do.

    A confirmation may be forgotten, and never must be. Around failovers such readings are many.
    """
    earliest: dict[Possible, Possible] = {}
    for each in every:
        alike = each._replace(confirmed_ms=0)
        earliest[alike] = min(each, earliest.get(alike, each), key=lambda one: one.confirmed_ms)
    return set(earliest.values())


def _leading(to: set[Possible], came_from: Mapping[Possible, Iterable[Possible]]) -> set[Possible]:
    """All readings that become one of these, themselves included."""
    found, front = set(to), list(to)
    while front:
        for each in came_from[front.pop()]:
            if each not in found:
                found.add(each)
                front.append(each)
    return found


def _behind(read: Read, least: Read) -> bool:
    return read[0] < least[0] or read[1] < least[1]


def _heard(known: Known, said: Said) -> Known:
    """A change is read. Of each op the newest with `at` and the newest without are kept: no rule asks for others."""
    if is_stale(said, known):
        return known
    for each in known.waiting:
        if each.op == said.op and (each.at is None) == (said.at is None):
            newer = (said.at or said.entry_ms) > (each.at or each.entry_ms)
            return known._replace(waiting=known.waiting - {each} | {said}) if newer else known
    return known._replace(waiting=known.waiting | {said})


def _ended(every: set[tuple[int, Op]]) -> frozenset[tuple[int, Op]]:
    return frozenset({op: (at, op) for at, op in sorted(every)}.values())
