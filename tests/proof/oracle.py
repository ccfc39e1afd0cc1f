"""Judges a history by every invariant of the contract (pure). The simulation and the soak share it.

What each checks, and by which section of the contract:

    lost             a change was accepted, and no record, rule or dead letter accounts for it (4)
    wrong_end        the endpoint ends otherwise than section 3 allows, or than was confirmed (3, 4)
    resurrected      an upsert goes out that a confirmed delete had outdated (3.1 to 3.3, 6)
    order            any other record that no reading of section 3 explains (3)
    rate             more requests in a second than the limit allows within one burst, of all workers together
    illegal_request  a request that sections 1 and 3.5 forbid, or a record that nobody asked for
    dead_letters     a letter too many, too few, twice, or with words that nobody said (6)
    totals           the counters do not add up (6)
    erased           somebody who was erased is upserted, is still at the endpoint, or still stands in a key (8)
    left_over        something waits though all was healed, or more pairs wait than there are (4, memory)
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from producers.contract.change import LANES
from tests.proof.accounts import (
    brought_back,
    illegal_requests,
    left_over,
    too_many_at_once,
    wrong_letters,
    wrong_totals,
)
from tests.proof.explanation import Delivery, Explainer, PairPast, Possible, Unexplained
from tests.proof.history import Violation, order_of
from tests.proof.story import at_in_words, story
from tests.support.pair_oracle import Told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from producers.contract.change import Op
    from tests.proof.explanation import Read
    from tests.proof.history import History, Kind, Pair, Places


_Orders = tuple[list[tuple[int, int]], list[tuple[int, int]]]
"""Where a pair's entries lie in the log and in the bulk lane's, in order."""


def judge(history: History) -> list[Violation]:
    """Every broken invariant, worst first; an empty list is the proof."""
    pasts = pasts_of(history)
    # Of a pair with somebody who was erased the rules for erasures alone hold: whatever was said, it ends deleted.
    judged = [each for each in pasts.items() if history.erased.isdisjoint(each[0])]
    found = [each for pair, past in judged for each in _Case(history, pair, past).judge()]
    found += brought_back(history)
    found += illegal_requests(history, pasts)
    found += too_many_at_once(history)
    found += wrong_letters(history)
    found += wrong_totals(history)
    found += left_over(history)
    return found


def duplicates(history: History) -> Counter[str]:
    """Records that repeat the one before of their pair though nothing was said since, by what became of that one."""
    counted: Counter[str] = Counter()
    for past in pasts_of(history).values():
        times = sorted(each.order[0] for each in past.changes)
        for before, after in zip(past.deliveries, past.deliveries[1:], strict=False):
            new = any(before.sent.built_ms <= ms <= after.sent.begun_ms for ms in times)
            if before.op == after.op and not new:
                counted[before.sent.outcome or "unknown"] += 1
    return counted


def pasts_of(history: History) -> dict[Pair, PairPast]:
    """What is known of each pair, in order."""
    pasts: defaultdict[Pair, PairPast] = defaultdict(PairPast)
    partitions: dict[Pair, int] = {}
    for change in history.changes:
        pair = change.owner, change.contact
        if change.malformed is not None:
            continue
        partitions[pair] = change.partition
        if change.entry_id:
            (pasts[pair].lost if change.lost else pasts[pair].changes).append(change)
        if change.perhaps_since_ms is not None:
            pasts[pair].perhaps.append(change)
    for letter in history.letters:
        if letter.entry is None and letter.owner is not None and letter.contact is not None:
            pasts[letter.owner, letter.contact].letters.append(letter)
    orders: defaultdict[Pair, _Orders] = defaultdict(lambda: ([], []))
    for pair, past in pasts.items():
        past.changes.sort(key=lambda each: each.order)
        live, bulk = ([each.order for each in past.of_lane(lane)] for lane in LANES)
        orders[pair] = live, bulk
    for sent in sorted(history.sent, key=lambda each: (each.begun_ms, each.number)):
        for owner, contact, op in sent.records:
            pair = owner, contact
            partition, lie = partitions.get(pair), orders[pair]
            settled = None if sent.settled is None else partition in sent.settled
            least = _count(lie, partition, sent.read_from) or (0, 0)
            settled_to, perhaps_to = _count(lie, partition, sent.settled_to), _counts(lie, partition, sent.perhaps_to)
            pasts[pair].deliveries.append(Delivery(sent, op, settled, least, settled_to, perhaps_to))
    return dict(pasts)


def _counts(
    orders: _Orders, partition: int | None, perhaps: Mapping[int, Sequence[Places]] | None
) -> frozenset[Read] | None:
    """How many entries of a pair lie up to each of the places that may be settled."""
    if perhaps is None or partition is None:
        return None
    counts = (_count(orders, partition, {partition: each}) for each in perhaps.get(partition, ()))
    return frozenset(each for each in counts if each is not None)


def _count(orders: _Orders, partition: int | None, settled: Mapping[int, Places] | None) -> Read | None:
    """How many entries of a pair lie up to the settled ones."""
    entries = None if settled is None or partition is None else settled.get(partition)
    if entries is None:
        return None
    live, bulk = (
        bisect_right(of_lane, order_of(entry or "0-0")) for of_lane, entry in zip(orders, entries, strict=True)
    )
    return live, bulk


# One pair


@dataclass(frozen=True, slots=True)
class _Case:
    """One pair before the judge."""

    history: History
    pair: Pair
    past: PairPast

    def judge(self) -> list[Violation]:
        if not self.past.changes and not self.past.perhaps:
            return []  # its records are illegal requests, or of what is lost
        try:
            ends = Explainer(self.past, self.history.readd, int(self.history.ledger_seconds * 1000)).explain()
        except Unexplained as error:
            return [self._unexplained(error)]
        return self._judge_ends(ends) if self.history.healed else []

    def _violation(self, kind: Kind, says: str, until: int | None = None) -> Violation:
        held = self.pair in self.history.contacts
        return Violation(kind, self.pair, says, story(self.past, held=held, until=until))

    def _unexplained(self, error: Unexplained) -> Violation:
        delivery = error.delivery
        instead = " or ".join(sorted(each or "nothing" for each in error.instead)) or "nothing"
        says = f"request {delivery.sent.number} says {delivery.op}, where the contract says {instead}"
        outdated = delivery.op == "upsert" and "delete" in error.ended
        return self._violation("resurrected" if outdated else "order", says, delivery.sent.number)

    def _judge_ends(self, ends: set[Possible]) -> list[Violation]:
        rested = [each for each in ends if not each.known.waiting]
        if not rested:
            waits = min((each.known.waiting for each in ends), key=len)
            what = ", ".join(sorted(f"{each.op} {at_in_words(each.at)}" for each in waits))
            return [self._violation("lost", f"accepted, and neither confirmed, outdated nor dead: {what}")]
        letters, buried = len(self.past.letters), {each.buried for each in rested}
        if letters not in buried:
            return [self._violation("dead_letters", f"{letters} letters, but {sorted(buried)} records were refused")]
        if any(each.sent.beyond for each in self.past.deliveries):
            return []  # a later act cannot be told from somebody else's
        held: Op = "upsert" if self.pair in self.history.contacts else "delete"
        allowed = self._allowed(rested)
        if held in allowed:
            return []
        return [self._violation("wrong_end", f"it holds {held}, the contract allows {' or '.join(sorted(allowed))}")]

    def _adrift(self) -> Op | None:
        """What took effect last, if its outcome is perhaps lost with what it was built on: nobody need know of it."""
        acted = [each for each in self.past.deliveries if each.sent.applied is not None]
        last = max(acted, key=lambda each: each.sent.applied or 0, default=None)
        return last.op if last is not None and last.sent.adrift and not last.settled else None

    def _allowed(self, rested: list[Possible]) -> set[Op]:
        """The ends that the readings allow; twice told, where the changes alone decide."""
        past, history = self.past, self.history
        ends: set[Op] = {each.known.confirmed or "delete" for each in rested}
        refused = any(
            each.sent.outcome == "refused" or (each.sent.outcome is None and past.letters) for each in past.deliveries
        )
        if refused:
            # What a request did whose outcome was never known, or not settled before its worker died, is neither
            # confirmed nor repaired where the endpoint refuses the pair since.
            acted = [each for each in past.deliveries if each.sent.applied is not None]
            return ends | {each.op for each in acted if each.sent.outcome != "confirmed" or not each.settled}
        adrift = self._adrift()
        if adrift is not None:
            return ends | {adrift}
        if past.letters or past.perhaps or not past.changes:
            return ends
        if past.changes[-1].order[0] - past.changes[0].order[0] > history.ledger_seconds * 1000:
            return ends
        if any(each.lane == "bulk" for each in past.changes) and any(each.at is None for each in past.changes):
            return ends  # which of the lanes was read first decides what a change without a time is later than
        told = Told()
        for change in past.changes:
            told = told.and_then(cast("Op", change.op), change.at)
        return ends & told.allows(history.readd)
