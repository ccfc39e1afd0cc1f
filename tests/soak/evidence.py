"""From what was seen of a soak to a history that the oracle can judge (pure)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from producers.contract.change import partition_of
from tests.proof.history import Change, DeadLetter, History, Left, Paced, Sent, Violation
from tests.soak.lineage import lineage_of, name_of
from tests.soak.log_file import Entry, Gone, Settle, milliseconds_of
from tests.soak.system import CONFIG
from tests.soak.traffic import EXPECTED
from tests.soak.workers import POOLS
from worker.core.dead_letter import read_letter

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from tests.proof.history import Outcome, Pair, Places, Record
    from tests.soak.lineage import Lineage, Tail
    from tests.soak.log_file import Done
    from tests.soak.recorder import Request
    from tests.soak.soak import Ran

ANSWERED: Final = frozenset({None, "delay", "drip_body", "drip_headers", "hang"})
"""The faults, and none, under which an answer of success is one."""

HELD_BACK_SECONDS: Final = 8.0
"""Longest that a fault keeps a request on its way, or a worker from settling what was answered."""

CLOCK_MS: Final = 20
"""How far the clocks that are compared may be apart."""

_FOREVER: Final = 1 << 62


class Part(NamedTuple):
    """What one request says of one partition: a lease, and so an outcome, is of one partition."""

    request: Request
    partition: int
    records: tuple[Record, ...]
    received_ms: int
    applied_ms: int | None

    @property
    def name(self) -> tuple[int, int]:
        """What tells it from all others."""
        return self.request.number, self.partition

    @property
    def succeeded(self) -> bool:
        """Whether the endpoint answered that all of it was done."""
        request = self.request
        return request.status == 200 and not request.code and request.fault in ANSWERED

    @property
    def refused(self) -> bool:
        """Whether the endpoint answered that it never takes the request's only record."""
        return len(self.request.records) == 1 and self.request.code == "40002"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the oracle is given, and what it cannot know.

    Attributes:
        history: the run.
        false: settles of what was never answered, which no rule allows.
        lineage: what was done and is not lost, and what failovers lost.
    """

    history: History
    false: list[Violation]
    lineage: Lineage


def evidence_of(ran: Ran) -> Evidence:
    """All that was seen, as a history."""
    lineage = _lineage(ran)
    entries = [each for each in lineage.done if isinstance(each, Entry)]
    settles = [each for each in lineage.done if isinstance(each, Settle)]
    parts = _parts(ran)
    settled, perhaps, false = _match(parts, settles, ran, lineage.latest)
    lost = [each for tail in lineage.tails for each in tail.entries]
    settled_by = _Settled(settles, lineage.latest)
    applied = {
        number: place for place, number in enumerate(dict.fromkeys(each["request"] for each in ran.seen.applied))
    }
    status = ran.status
    history = History(
        changes=[*map(_change, entries), *(_change(each)._replace(lost=True) for each in lost)],
        sent=[
            (
                _of_either(each, perhaps[each.name], applied, ran)
                if adrift and each.name in perhaps
                else _sent(each, settled.get(each.name), applied, ran)
            )._replace(
                adrift=adrift,
                suppressed=_suppressed(each, ran),
                read_from=settled_by.at(each.partition, each.received_ms - _longest_ms(ran) - CLOCK_MS),
            )
            for each in parts
            for adrift in [_is_adrift(each, lineage.tails)]
        ],
        letters=_letters(lineage.done),
        contacts=frozenset(ran.contacts) - _forgotten(parts, ran),
        left=Left(status.backlog_events, status.pending_pairs, ran.marks, status.in_flight, status.parked)
        if status
        else Left(1),
        # Requests that never arrived count too, and nobody saw them.
        totals={name: number for name, number in (status.totals if status else {}).items() if name != "requests"},
        readd=ran.settings["readd"],
        ledger_seconds=ran.settings["ledger_seconds"],
        batch_size=ran.settings["batch_size"],
        healed=True,
        paced=_paced(ran),
        erased=frozenset(each.user for each in ran.erasures if each.ended is not None),
        mentions=ran.mentions,
    )
    return Evidence(history, false, lineage)


def _lineage(ran: Ran) -> Lineage:
    counted = {key: name for name, key in ran.keys.items() if name == CONFIG or name >= 0}
    return lineage_of(ran.seen.deeds, ran.seen.reigns, ran.moves, counted)


def _is_adrift(part: Part, tails: Sequence[Tail]) -> bool:
    """Whether it may have been built on what a failover lost."""
    return any(
        part.partition in each.partitions and each.adrift[0] <= part.received_ms <= each.adrift[1] for each in tails
    )


def _suppressed(part: Part, ran: Ran) -> frozenset[str]:
    """Who had certainly been erased when the gate let it out: a fault may hold a request on its way for a while."""
    return frozenset(
        each.user
        for each in ran.erasures
        if each.ended is not None
        and part.received_ms >= min(each.ended * 1000 + ran.unix_ms, each.begun_ms + HELD_BACK_SECONDS * 1000)
    )


def _forgotten(parts: Sequence[Part], ran: Ran) -> set[Pair]:
    """Pairs of somebody who was erased, of which nothing was known any more: the receipt says so."""
    last: dict[Pair, int] = {}
    for part in parts:
        for owner, contact, op in part.records:
            if op == "upsert":
                last[owner, contact] = part.received_ms
    forgotten = {each.user: each.forgotten_ms for each in ran.erasures if each.ended is not None}
    return {
        pair
        for pair, ms in last.items()
        if any(ms <= forgotten.get(user, 0) + HELD_BACK_SECONDS * 1000 for user in pair)
    }


def _paced(ran: Ran) -> list[Paced]:
    """The configured limit holds but while the previous release, which knows none, works too, or nobody can be asked.

    Each thread may hold one request up.
    """
    rate, fleet = ran.settings["rate"], ran.options.workers
    if not isinstance(rate, float):
        return []
    in_hand = fleet * (max(POOLS.values()) + 1)
    spans, since = [], 0
    for begun, ended in sorted([*ran.beside, *ran.unpaced]):
        spans.append(Paced(since, int(begun * 1000 + ran.unix_ms), rate, in_hand))
        since = max(since, int(min(_FOREVER, (ended + HELD_BACK_SECONDS) * 1000 + ran.unix_ms)))
    return [*spans, Paced(since, _FOREVER, rate, in_hand)]


def _change(entry: Entry) -> Change:
    at = entry.text("at")
    malformed = entry.text(EXPECTED.decode()) or None
    return Change(
        entry.id,
        entry.partition,
        entry.text("owner"),
        entry.text("contact"),
        entry.text("op"),
        at=int(at) if at and not malformed else None,
        malformed=malformed,
        lane=entry.lane,
    )


# Requests, and what became of them


def _parts(ran: Ran) -> list[Part]:
    partitions = ran.settings["partitions"]
    parts = []
    for request in sorted(ran.seen.requests.values(), key=lambda each: each.number):
        of: defaultdict[int, list[Record]] = defaultdict(list)
        for record in request.records:
            of[partition_of(record[0], partitions)].append(record)
        received_ms = int(request.received_at * 1000 + ran.unix_ms)
        applied_ms = None if request.applied_at is None else int(request.applied_at * 1000 + ran.unix_ms)
        parts += [Part(request, p, tuple(records), received_ms, applied_ms) for p, records in of.items()]
    return parts


def _match(
    parts: Sequence[Part], settles: Sequence[Settle], ran: Ran, latest_ms: Mapping[Hashable, int]
) -> tuple[dict[tuple[int, int], Settle], dict[tuple[int, int], list[Settle]], list[Violation]]:
    """Which settle was of which part: the last one that it can be of and that says just what it wrote.

    Returns:
        The settle of each part that has one; for each part that is like others, all settles that it can have; settles
        of what was never answered.
    """
    of: defaultdict[int, list[Part]] = defaultdict(list)
    for part in parts:
        of[part.partition].append(part)
    matched: dict[tuple[int, int], Settle] = {}
    alike: defaultdict[tuple[int, int], list[Settle]] = defaultdict(list)
    several: set[tuple[int, int]] = set()
    false = []
    longest_ms = int((ran.settings["request_timeout_seconds"] + HELD_BACK_SECONDS) * 1000)
    for settle in settles:
        wrote = set(settle.confirmed) | {_record_of(letter) for _, letter in settle.buried} - {None}
        if not wrote:
            continue
        every, until_ms = of[settle.partition], latest_ms[name_of(settle)] + CLOCK_MS
        first = bisect_left(every, settle.ms - longest_ms, key=lambda part: part.received_ms)
        last = bisect_right(every, until_ms, key=lambda part: part.received_ms)
        like = [
            part
            for part in every[first:last]
            if (part.succeeded and (part.applied_ms or 0) <= until_ms if settle.confirmed else part.refused)
            and wrote <= set(part.records)
        ]
        for part in like:
            alike[part.name].append(settle)
        if len(like) > 1:
            several.update(part.name for part in like)
        if fitting := [part for part in like if part.name not in matched]:
            # What it says is settled had been read before the request began, as far as clocks tell.
            read_ms = max(map(milliseconds_of, settle.position)) - CLOCK_MS
            best = min(fitting, key=lambda part: (part.received_ms < read_ms, len(part.records), -part.received_ms))
            matched[best.name] = settle
        else:
            what = f"partition {settle.partition} settled {len(wrote)} records at {settle.ms} that were not answered so"
            false.append(Violation("order", None, f"{what}: {sorted(map(str, wrote))[:3]}"))
    return matched, {name: alike[name] for name in several}, false


def _record_of(letter: bytes) -> Record | None:
    found = orjson.loads(letter)
    return (found["owner"], found["contact"], found["op"]) if found["reason"] == "refused" else None


def _sent(part: Part, settle: Settle | None, applied: dict[int, int], ran: Ran) -> Sent:
    request = part.request
    acting_seconds = ran.settings["request_timeout_seconds"] + ran.settings["late_seconds"]
    beyond = request.applied_at is not None and request.applied_at > request.received_at + acting_seconds
    place = applied.get(request.number)
    begun_ms = part.received_ms + CLOCK_MS
    placed_ms = (
        part.received_ms if part.partition == partition_of(request.records[0][0], ran.settings["partitions"]) else None
    )
    if settle is not None:
        outcome: Outcome = "confirmed" if settle.confirmed else "refused"
        read_to_ms = min(max(map(milliseconds_of, settle.position)), begun_ms)
        return Sent(
            request.number,
            part.records,
            built_ms=read_to_ms,
            begun_ms=begun_ms,
            ended_ms=max(settle.ms, part.received_ms),
            outcome=outcome,
            applied=place,
            settled=frozenset({part.partition}),
            beyond=beyond,
            read_by_ms=read_to_ms,
            settled_to={part.partition: settle.position},  # says how far the logs had been read
            placed_ms=placed_ms,
        )
    return Sent(
        request.number,
        part.records,
        built_ms=part.received_ms - _longest_ms(ran),
        begun_ms=begun_ms,
        ended_ms=part.received_ms + int(ran.settings["request_timeout_seconds"] * 1000),
        outcome=None if part.succeeded else "failed",
        applied=place,
        settled=frozenset(),
        beyond=beyond,
        placed_ms=placed_ms,
    )


def _of_either(part: Part, settles: Sequence[Settle], applied: dict[int, int], ran: Ran) -> Sent:
    """A request that cannot be told from others: any of these settles may be its own, or none."""
    return _sent(part, None, applied, ran)._replace(
        outcome=None, settled=None, perhaps_to={part.partition: [each.position for each in settles]}
    )


def _longest_ms(ran: Ran) -> int:
    """How long before a request arrives its logs can have been read, at most."""
    return int((ran.settings["lease_seconds"] + HELD_BACK_SECONDS) * 1000)


class _Settled:
    """How far each partition was certainly settled by when."""

    def __init__(self, settles: Sequence[Settle], latest_ms: Mapping[Hashable, int]) -> None:
        self._of: defaultdict[int, list[tuple[int, Places]]] = defaultdict(list)
        for each in settles:
            every = self._of[each.partition]
            before_ms = every[-1][0] if every else 0  # files of several servers tell the times of one partition
            every.append((max(before_ms, latest_ms[name_of(each)]), each.position))

    def at(self, partition: int, ms: int) -> dict[int, Places] | None:
        """The last entries that are settled of a partition by then, None if none are."""
        every = self._of[partition]
        by_then = bisect_right(every, ms, key=lambda each: each[0])
        return {partition: every[by_then - 1][1]} if by_then else None


# Dead letters


def _letters(done: Sequence[Done]) -> list[DeadLetter]:
    """Every dead letter that there was, redriven ones included."""
    gone = {each.id: each.ms for each in done if isinstance(each, Gone)}
    written = [
        read_letter(settle.partition, letter_id, letter)
        for settle in done
        if isinstance(settle, Settle)
        for letter_id, letter in settle.buried
    ]
    return [
        DeadLetter(
            letter.id,
            letter.partition,
            letter.owner,
            letter.contact,
            letter.op,
            letter.at,
            letter.reason,
            letter.entry,
            letter.since_ms,
            gone.get(letter.id),
        )
        for letter in written
    ]
