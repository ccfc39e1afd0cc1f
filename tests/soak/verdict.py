"""What a soak comes to: what the oracle and the soak itself found wrong, and the figures (pure)."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.proof.oracle import judge, pasts_of
from tests.soak.erasures import UNKNOWN
from tests.soak.evidence import ANSWERED, evidence_of
from tests.soak.lineage import SLACK_MS
from tests.soak.log_file import Entry
from tests.soak.workers import UNMEANT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.proof.explanation import Delivery
    from tests.proof.history import History
    from tests.soak.evidence import Evidence
    from tests.soak.lineage import Lineage, Tail
    from tests.soak.soak import Ran, Struck
    from tests.soak.workers import Alarm


NOTICED_MS: Final = 30_000
"""How long after a failover a loss may be noticed, at most: a worker may just have been killed, or be paused."""

BEATS_OF_EACH: Final = 2
"""A loss must be noticed if more checks of each worker are lost: then the first to check again sees it."""


class Wrong(NamedTuple):
    """Something that must not be.

    Attributes:
        kind: what the report counts it as.
        says: what it is, the first line for itself.
    """

    kind: str
    says: str


class Recovery(NamedTuple):
    """How the system took one kind of fault.

    Attributes:
        times: how often it struck.
        alone: how often nothing else struck beside it; the seconds are of these.
        p50, p99, longest: seconds from healing until all accepted before was confirmed, None where there are none.
        outage_seconds: how long it lasted, all in all.
        requests: how many requests reached the endpoint meanwhile.
    """

    times: int
    alone: int
    p50: float | None
    p99: float | None
    longest: float | None
    outage_seconds: float
    requests: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of it.

    Attributes:
        wrong: everything that must not be; empty is the proof.
        counts: what was checked and found, by name.
        duplicates: records that repeat the one before though nothing was said since, by cause.
        recoveries: by kind of fault.
    """

    wrong: list[Wrong]
    counts: Mapping[str, int]
    duplicates: Mapping[str, int]
    recoveries: Mapping[str, Recovery]


def bound(checked: int) -> float | None:
    """The rule of three: none of so many failed, so with 95 % confidence fewer than this share does."""
    return min(1.0, 3 / checked) if checked else None


def verdict_of(ran: Ran) -> Verdict:
    """Judges a soak."""
    evidence = evidence_of(ran)
    history = evidence.history
    violations = [*judge(history), *evidence.false]
    kinds = Counter(each.kind for each in violations)
    counts = {
        "accepted": len(history.changes),
        "pairs": len({(each.owner, each.contact) for each in history.changes if not each.malformed}),
        "applied": len(ran.seen.applied),
        "requests": len(ran.seen.requests),
        "dead letters": len(history.letters),
        "redriven": sum(each.gone_ms is not None for each in history.letters),
        "lost": kinds["lost"],
        "resurrected": kinds["resurrected"],
        "wrong final state": kinds["wrong_end"],
        "order violations": kinds["order"],
        "illegal requests": kinds["illegal_request"],
        "faster than the limit": kinds["rate"],
        "wrong dead letters": kinds["dead_letters"],
        "wrong totals": kinds["totals"],
        "left over": kinds["left_over"],
        "erased and seen again": kinds["erased"],
        "people erased": sum(each.ended is not None for each in ran.erasures),
        "not recovered": sum(each.recovered_seconds is None for each in ran.struck),
        "wrong exits": len(ran.exits.wrong),
        "stalled workers": ran.exits.stalled,
        "barred workers": ran.exits.barred,
        "refused to producers": ran.told.refused,
        "uncertain to producers": ran.told.uncertain,
        **_losses(ran, evidence.lineage),
    }
    wrong = [Wrong(each.kind, str(each)) for each in violations]
    return Verdict([*wrong, *_wrong(ran, evidence)], counts, _duplicates(ran, history), _recoveries(ran))


def _losses(ran: Ran, lineage: Lineage) -> dict[str, int]:
    """What failovers lost, and what the workers said of it."""
    tails = [each for each in lineage.tails if each.entries]
    noticed = [each for each in tails if any(_is_of(alarm, each) for alarm in ran.alarms)]
    return {
        "failovers": len(lineage.tails),
        "failovers that lost changes": len(tails),
        "changes lost by failovers": sum(len(each.entries) for each in tails),
        "of these noticed": sum(len(each.entries) for each in noticed),
        "losses noticed": len(noticed),
        "losses too short to be noticed": len(tails) - len(noticed),
    }


def _wrong(ran: Ran, evidence: Evidence) -> Iterator[Wrong]:
    """What the oracle is not asked: the soak's own witnesses, and how the processes did."""
    yield from (Wrong("soak", each) for each in ran.seen.gaps)
    yield from _wrong_accounts(ran, evidence)
    yield from _wrong_losses(ran, evidence.lineage)
    yield from (Wrong("wrong exit", each) for each in ran.exits.wrong)
    yield from (Wrong("worker's error", each) for each in ran.said if UNMEANT in each)
    yield from (Wrong("producer", each) for each in ran.told.died)
    for erasure in ran.erasures:
        if erasure.ended is None and UNKNOWN not in erasure.failed:
            yield Wrong("erased", f"{erasure.user} is not erased after {erasure.calls} calls: {erasure.failed}")
    if ran.unsent:
        yield Wrong("producer", f"{ran.unsent} changes were not accepted long after all was healed")
    for each in ran.struck:
        if each.recovered_seconds is None:
            yield Wrong("not recovered", f"something waits two minutes after: {' + '.join(each.kinds)}")
    if ran.previous and not ran.upgraded:
        yield Wrong("not upgraded", "a worker of the previous release was still seen two minutes after the last ended")
    if not ran.drained:
        yield Wrong("not recovered", f"something waits long after all was healed: {ran.status}")


def _wrong_losses(ran: Ran, lineage: Lineage) -> Iterator[Wrong]:
    """Where what the workers say of losses is not what was lost."""
    for tail in lineage.tails:
        where = f"server {tail.nodes[0] + 1} to {tail.nodes[1] + 1} at {tail.took_over_ms}"
        lost = {(each.partition, each.id) for each in tail.entries}
        if ran.options.wait_replicas and (told := lost & ran.told.ids):
            yield Wrong("lost", f"{len(told)} changes that replicas had are lost by the failover from {where}")
        if lost and _must_be_noticed(tail, ran.options.workers) and not any(_is_of(each, tail) for each in ran.alarms):
            yield Wrong("loss not noticed", f"{len(lost)} changes are lost by the failover from {where}")
    for alarm in ran.alarms:
        if not any(_is_near(alarm, tail) and tail.loses for tail in lineage.tails):
            yield Wrong("false alarm", f"a worker says that Redis lost changes, and none are lost: {alarm}")


def _must_be_noticed(tail: Tail, workers: int) -> bool:
    """Whether so many checks are lost that those made since cannot have made up for them."""
    return max(tail.beats.values(), default=0) > BEATS_OF_EACH * workers


def _is_of(alarm: Alarm, tail: Tail) -> bool:
    """Whether an alarm speaks of all that this failover lost.

    Who notices it after another worker did says that it came after what the first one noticed.
    """
    return alarm.after_ms <= tail.since_ms and _is_near(alarm, tail)


def _is_near(alarm: Alarm, tail: Tail) -> bool:
    return tail.took_over_ms - SLACK_MS <= alarm.before_ms <= tail.took_over_ms + NOTICED_MS


def _wrong_accounts(ran: Ran, evidence: Evidence) -> Iterator[Wrong]:
    """Where two accounts of the same differ."""
    history, lineage = evidence.history, evidence.lineage
    every = [*lineage.done, *(each for tail in lineage.tails for each in tail.entries)]
    # The two logs of a partition may give the same id.
    entries = {(each.partition, each.lane, each.id) for each in every if isinstance(each, Entry)}
    if vanished := ran.told.ids - {(partition, entry_id) for partition, _, entry_id in entries}:
        yield Wrong("not in the log", f"{len(vanished)} acknowledged entries never were in the log: {min(vanished)}")
    if ran.told.accepted > len(entries):
        yield Wrong("not in the log", f"{ran.told.accepted} changes were acknowledged, {len(entries)} are in the log")
    there = sorted(each.id for each in history.letters if each.gone_ms is None)
    if there != sorted(ran.left_letters):
        says = f"{len(there)} letters were written and not redriven, {len(ran.left_letters)} are there"
        yield Wrong("dead_letters", says)
    for name in ("pair_twice", "upsert_after_delete"):
        if ran.counts.get(name):
            yield Wrong("illegal_request", f"the endpoint counts {ran.counts[name]} requests with {name}")
    totals = ran.status.totals if ran.status else Counter[str]()
    most = len(ran.seen.requests) + totals["retries"]  # those that never arrived were tried again
    if totals["requests"] > most:
        yield Wrong("totals", f"{totals['requests']} requests are counted, of {most} that there can be")


def _duplicates(ran: Ran, history: History) -> Counter[str]:
    counted: Counter[str] = Counter()
    for past in pasts_of(history).values():
        times = sorted(each.order[0] for each in past.changes)
        acted = [each for each in past.deliveries if each.sent.applied is not None]
        for before, after in itertools.pairwise(acted):
            new = any(before.sent.built_ms <= ms <= after.sent.begun_ms for ms in times)
            if before.op == after.op and not new:
                counted[_cause(ran, before, after)] += 1
    return counted


def _cause(ran: Ran, before: Delivery, after: Delivery) -> str:
    """Why a record was sent again, by what is known of both."""
    fault = ran.seen.requests[before.sent.number].fault
    if fault not in ANSWERED:
        return f"the first got no good answer ({fault})"
    if not before.settled:
        return "the first was answered, but its worker could not settle it"
    return "none known" if after.settled else "repair: something else might have acted in between"


def _recoveries(ran: Ran) -> dict[str, Recovery]:
    by_kind: defaultdict[str, list[Struck]] = defaultdict(list)
    for each in ran.struck:
        for kind in each.kinds:
            by_kind[kind].append(each)
    received = sorted(each.received_at for each in ran.seen.requests.values())
    return {kind: _recovery(struck, received) for kind, struck in sorted(by_kind.items())}


def _recovery(struck: Sequence[Struck], received: Sequence[float]) -> Recovery:
    alone = [each for each in struck if len(each.kinds) == 1]
    took = sorted(each.recovered_seconds for each in alone if each.recovered_seconds is not None)
    return Recovery(
        times=len(struck),
        alone=len(alone),
        p50=_rank(took, 0.50),
        p99=_rank(took, 0.99),
        longest=_rank(took, 1.0),
        outage_seconds=sum(each.healed - each.begun for each in struck),
        requests=sum(sum(each.begun <= at <= each.healed for at in received) for each in struck),
    )


def _rank(ordered: Sequence[float], share: float) -> float | None:
    """The nearest rank, None of nothing."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else None
