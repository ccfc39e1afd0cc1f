"""The invariants of no single pair: legal requests, exact dead letters, totals, nothing left over (pure)."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from tests.proof.history import Violation
from tests.proof.story import story

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.proof.explanation import PairPast
    from tests.proof.history import DeadLetter, History, Pair


BURST: Final = 2
"""Requests beyond the rate that a second may have: the one at its begin, and the one that may go ahead of its time."""


def illegal_requests(history: History, pasts: Mapping[Pair, PairPast]) -> Iterator[Violation]:
    """What sections 1 and 3.5 forbid of a request, and records that nobody asked for."""
    for sent in history.sent:
        pairs = [(owner, contact) for owner, contact, _ in sent.records]
        ops = [op for _, _, op in sent.records]
        where = f"request {sent.number}"
        if not 1 <= len(pairs) <= history.batch_size:
            yield Violation(
                "illegal_request", None, f"{where} has {len(pairs)} records of {history.batch_size} at most"
            )
        if "upsert" in ops and "delete" in ops[: len(ops) - ops[::-1].index("upsert")]:
            yield Violation("illegal_request", None, f"{where} has a delete before an upsert")
        for pair, times in Counter(pairs).items():
            if times > 1:
                yield Violation("illegal_request", pair, f"{where} has the pair {times} times")
        for owner, contact, op in dict.fromkeys(sent.records):
            past = pasts[owner, contact]
            said = any(each.op == op and each.time_ms <= sent.begun_ms for each in past.changes)
            if op == "delete" and not history.erased.isdisjoint((owner, contact)):
                continue  # a late request may have brought somebody back, of whom nothing else is known
            if not said and not any(each.op == op for each in (*past.perhaps, *past.lost)):
                asked = f"{where} says {op}, which nobody had asked for"
                yield Violation(
                    "illegal_request", (owner, contact), asked, story(past, held=(owner, contact) in history.contacts)
                )


def too_many_at_once(history: History) -> Iterator[Violation]:
    """Where the fleet went faster than a limit allows: in no second more requests than it says, within one burst."""
    placed = sorted(each.placed_ms for each in history.sent if each.placed_ms is not None)
    for span in history.paced:
        within = [ms for ms in placed if span.from_ms <= ms < span.until_ms]
        for last, ms in enumerate(within):
            first = bisect_right(within, ms - 1_000)
            if last + 1 - first > span.rate + BURST + span.in_hand:
                says = f"{last + 1 - first} requests in the second before {ms}, of at most {span.rate:g}"
                yield Violation("rate", None, says)
                break


def wrong_letters(history: History) -> Iterator[Violation]:
    """Letters too many, too few, twice, or with words that nobody said."""
    says = [f"letter {each} is there twice" for each, n in Counter(one.id for one in history.letters).items() if n > 1]
    written = Counter((each.partition, each.entry, each.reason) for each in history.letters if each.entry is not None)
    broken = Counter(
        (each.partition, each.entry_id, each.malformed)
        for each in history.changes
        if each.malformed and each.entry_id and not each.lost
    )
    refused = Counter(
        (each.partition, each.entry_id, each.malformed)
        for each in history.changes
        if each.malformed and each.op != "delete" and not history.erased.isdisjoint((each.owner, each.contact))
    )
    few = broken - written - refused if history.healed else Counter()
    for number, odd in ("too many", written - broken), ("too few", few):
        for (partition, entry, reason), times in odd.items():
            says.append(f"entry {entry} of partition {partition} has {times} letters {number} ({reason})")
    said: defaultdict[tuple[Pair, str], set[int]] = defaultdict(set)
    for change in history.changes:
        if change.malformed is None:
            at = change.at or (change.order[0] if change.entry_id else change.perhaps_since_ms or 0)
            said[(change.owner, change.contact), change.op].add(at)
    for letter in history.letters:
        if letter.entry is None:
            says += _misquotes(letter, said)
    return (Violation("dead_letters", None, each) for each in says)


def _misquotes(letter: DeadLetter, said: Mapping[tuple[Pair, str], set[int]]) -> Iterator[str]:
    known = said.get(((letter.owner or "", letter.contact or ""), letter.op or ""), set())
    if letter.reason != "refused":
        yield f"letter {letter.id} names no entry, and its reason is {letter.reason}"
    elif not known:
        yield f"letter {letter.id} is of a change that nobody said"
    elif letter.at is not None and letter.at not in known:
        yield f"letter {letter.id} carries an at that nobody said"


def wrong_totals(history: History) -> Iterator[Violation]:
    """Where the counters of section 6 do not add up."""
    totals = history.totals
    accepted = sum(1 for each in history.changes if each.entry_id and not each.lost)
    perhaps = sum(each.perhaps for each in history.changes)
    names = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered", "suppressed")
    ended = sum(totals.get(name, 0) for name in names)
    tried = len(history.sent) + history.unsent
    rules = [
        (accepted <= totals.get("events", 0) <= accepted + perhaps, f"{accepted} entries were accepted"),
        (ended <= totals.get("events", 0), f"{ended} changes ended"),
        (not history.healed or ended == totals.get("events", 0), f"{ended} changes ended, and none waits"),
        (min(totals.values(), default=0) >= 0, "none may be negative"),
        (totals.get("dead_lettered", 0) == len(history.letters), f"there were {len(history.letters)} dead letters"),
        (totals.get("requests", 0) <= tried, f"{tried} requests were sent"),
        (
            totals.get("records_confirmed", 0)
            == totals.get("upserts_confirmed", 0) + totals.get("deletes_confirmed", 0),
            "upserts and deletes are all the records there are",
        ),
        (
            totals.get("records_confirmed", 0) + totals.get("repairs", 0) <= _confirmed(history),
            "more than was confirmed",
        ),
    ]
    for holds, why in rules:
        if not holds:
            yield Violation("totals", None, f"{why}, but the totals are {dict(totals)}")


def _confirmed(history: History) -> int:
    """Most records that can have been confirmed."""
    return sum(len(each.records) for each in history.sent if each.outcome in {"confirmed", None})


def brought_back(history: History) -> Iterator[Violation]:
    """Where somebody who was erased comes back, or never left (section 8)."""
    for sent in history.sent:
        for owner, contact, op in sent.records:
            if op == "upsert" and not sent.suppressed.isdisjoint((owner, contact)):
                yield Violation("erased", (owner, contact), f"request {sent.number} upserts whoever was erased before")
    if not history.healed:
        return
    for pair in sorted(history.contacts):
        if history.erased.isdisjoint(pair):
            continue
        if not any(sent.beyond and (*pair, "upsert") in sent.records for sent in history.sent):
            yield Violation("erased", pair, "the endpoint still has it")
    for key in history.mentions:
        yield Violation("erased", None, f"somebody who was erased still stands in {key}")


def left_over(history: History) -> Iterator[Violation]:
    """What waits though all was healed, and more pairs that waited than there are."""
    if history.healed:
        for name, number in history.left._asdict().items():
            if number:
                yield Violation("left_over", None, f"all is healed, and {number} are left of: {name}")
    pairs: defaultdict[int, set[Pair]] = defaultdict(set)
    for change in history.changes:
        if change.malformed is None:
            pairs[change.partition].add((change.owner, change.contact))
    for partition, peak in history.peak_pending.items():
        if peak > len(pairs[partition]):
            says = f"{peak} pairs waited in partition {partition}, which has but {len(pairs[partition])}"
            yield Violation("left_over", None, says)
