"""How the demo went: what was said, what was delivered, and whether the endpoint holds what it must. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping

    from worker.demo.numbers import Numbers

FAULT_WORDS = {
    "drop_after": "answers lost",
    "status": "answers 503",
    "late": "requests that acted late",
    "worker_killed": "workers killed",
}
"""What each fault is called; those of the stand-in by their kind."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's outcome; its fields are those of `--json`.

    Attributes:
        ok: nothing differs and nothing is left.
        seconds: how long it took in all.
        changes: changes that the log accepted.
        pairs: distinct pairs among them.
        flurries: how often each kind of flurry was among the changes.
        requests: requests that the endpoint saw.
        changes_per_request: changes divided by requests.
        confirmed: records that the endpoint confirmed.
        coalesced: changes that another one of the same op of their pair said as well.
        superseded: changes that one of the other op won over.
        stale: changes that were refused because newer knowledge was confirmed before they came.
        retries: requests that failed and were built anew.
        repairs: records sent once more because an unanswered request might have acted after them.
        dead_letters: changes that could not be delivered; there should be none.
        unaccounted: changes that ended in none of these ways; there should be none.
        faults: how often each fault struck.
        broken_requests: requests that named a pair twice, or an upsert after a delete; there should be none.
        contacts: contacts that the endpoint must hold.
        wrong_pairs: pairs that the endpoint holds and should not, or should and does not; there should be none.
        unfinished: what was not done when time was up; there should be nothing.
    """

    ok: bool = field(init=False)
    seconds: float
    changes: int
    pairs: int
    flurries: Mapping[str, int]
    requests: int
    changes_per_request: float
    confirmed: int
    coalesced: int
    superseded: int
    stale: int
    retries: int
    repairs: int
    dead_letters: int
    unaccounted: int
    faults: Mapping[str, int]
    broken_requests: int
    contacts: int
    wrong_pairs: int
    unfinished: list[str]

    def __post_init__(self) -> None:
        faulty = self.dead_letters or self.unaccounted or self.broken_requests or self.wrong_pairs or self.unfinished
        object.__setattr__(self, "ok", not faulty)  # frozen: it follows from the others, once for all

    def as_json(self) -> dict[str, object]:
        """The fields by name, for machines."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """For people: what, how many, and what there is to say of it."""
        told = ", ".join(f"{number:,} {kind}" for kind, number in self.flurries.items())
        struck = ", ".join(f"{FAULT_WORDS.get(kind, kind)}: {number:,}" for kind, number in self.faults.items())
        yield "changes", f"{self.changes:,}", told
        yield "pairs", f"{self.pairs:,}", f"{self.contacts:,} of them contacts in the end"
        yield "requests", f"{self.requests:,}", f"{self.changes_per_request:,.0f} changes a request"
        yield "confirmed", f"{self.confirmed:,}", "records, each the newest word on its pair"
        yield "joined", f"{self.coalesced + self.superseded:,}", "changes that needed no record of their own"
        yield "stale", f"{self.stale:,}", "changes refused, older than what was confirmed"
        yield "faults survived", f"{sum(self.faults.values()):,}", struck
        yield "retries", f"{self.retries:,}", "requests built anew"
        yield "repairs", f"{self.repairs:,}", "records said again, where one without an answer might have acted"
        yield "dead letters", f"{self.dead_letters:,}", ""
        if self.unaccounted:
            yield "unaccounted", f"{self.unaccounted:,}", "changes that ended in no way there is"
        if self.broken_requests:
            yield "broken requests", f"{self.broken_requests:,}", "with a pair twice, or an upsert after a delete"
        yield "wrong pairs", f"{self.wrong_pairs:,}", f"compared pair by pair, after {self.seconds:.1f} seconds"


def summarize(  # noqa: PLR0913 - all that the judgement rests on, by name
    *,
    seconds: float,
    kinds: Counter[str],
    pairs: set[tuple[str, str]],
    expected: set[tuple[str, str]],
    actual: set[tuple[str, str]],
    numbers: Numbers,
    workers_killed: int,
    unfinished: list[str],
) -> Summary:
    """Judges a demo.

    Args:
        seconds: how long it took in all.
        kinds: how often each kind of flurry was told.
        pairs: every pair that a change was about.
        expected: the contacts there must be.
        actual: the contacts that the endpoint holds.
        numbers: the last look at the system.
        workers_killed: how many were killed.
        unfinished: what was not done when time was up.
    """
    counts, totals = numbers.counts, numbers.status.totals
    return Summary(
        seconds=round(seconds, 1),
        changes=numbers.emitted,
        pairs=len(pairs),
        flurries=dict(kinds),
        requests=counts["requests"],
        changes_per_request=round(numbers.emitted / max(1, counts["requests"]), 1),
        confirmed=totals["records_confirmed"],
        coalesced=totals["coalesced"],
        superseded=totals["superseded"],
        stale=totals["stale"],
        retries=totals["retries"],
        repairs=totals["repairs"],
        dead_letters=totals["dead_lettered"],
        unaccounted=numbers.unaccounted,
        faults={**counts["faults"], "worker_killed": workers_killed},
        broken_requests=counts["pair_twice"] + counts["upsert_after_delete"],
        contacts=len(expected),
        wrong_pairs=len(expected ^ actual),
        unfinished=unfinished,
    )
