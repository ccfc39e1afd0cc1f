"""The demo's summary: what was emitted and delivered, and whether the endpoint has the right contacts (pure)."""

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
    "late": "requests applied late",
    "worker_killed": "workers killed",
}
"""Text for each fault, by kind."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's outcome; its fields are those of `--json`.

    Attributes:
        ok: whether all contacts are right and everything is finished.
        seconds: total duration.
        changes: changes that the log accepted.
        pairs: distinct pairs among them.
        flurries: how often each kind of flurry occurred.
        requests: requests that the endpoint received.
        changes_per_request: changes divided by requests.
        confirmed: records that the endpoint confirmed.
        coalesced: changes merged into another change of the same pair and op.
        superseded: changes overridden by a change of the other op.
        stale: changes dropped because a newer change was already confirmed when they arrived.
        retries: requests that failed and were built again.
        repairs: records sent again because an unanswered request might have been applied after them.
        dead_letters: changes that could not be delivered; must be 0.
        unaccounted: changes without any outcome; must be 0.
        faults: how often each fault occurred.
        broken_requests: requests with a pair twice, or with an upsert after a delete; must be 0.
        contacts: contacts that the endpoint must have.
        wrong_pairs: pairs that the endpoint has but should not, or lacks but should have; must be 0.
        unfinished: what was left when time was up; must be empty.
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
        object.__setattr__(
            self, "ok", not faulty
        )  # the class is frozen, so this is the only way to set a computed field

    def as_json(self) -> dict[str, object]:
        """Returns the fields by name, for programs."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yields rows for people: name, number, and a comment."""
        flurries = ", ".join(f"{number:,} {kind}" for kind, number in self.flurries.items())
        faults = ", ".join(f"{FAULT_WORDS.get(kind, kind)}: {number:,}" for kind, number in self.faults.items())
        yield "changes", f"{self.changes:,}", flurries
        yield "pairs", f"{self.pairs:,}", f"{self.contacts:,} of them are contacts at the end"
        yield "requests", f"{self.requests:,}", f"{self.changes_per_request:,.0f} changes per request"
        yield "confirmed", f"{self.confirmed:,}", "records, each with its pair's newest state"
        yield "joined", f"{self.coalesced + self.superseded:,}", "changes that needed no record of their own"
        yield "stale", f"{self.stale:,}", "changes dropped, older than what was confirmed"
        yield "faults survived", f"{sum(self.faults.values()):,}", faults
        yield "retries", f"{self.retries:,}", "requests built again"
        yield "repairs", f"{self.repairs:,}", "records sent again, in case an unanswered request was applied late"
        yield "dead letters", f"{self.dead_letters:,}", ""
        if self.unaccounted:
            yield "unaccounted", f"{self.unaccounted:,}", "changes without any outcome"
        if self.broken_requests:
            yield "broken requests", f"{self.broken_requests:,}", "with a pair twice, or an upsert after a delete"
        yield "wrong pairs", f"{self.wrong_pairs:,}", f"compared pair by pair, after {self.seconds:.1f} seconds"


def summarize(  # noqa: PLR0913 - every input of the check, by name
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
    """Computes the summary of a demo.

    Args:
        seconds: total duration.
        kinds: how often each kind of flurry occurred.
        pairs: every pair with a change.
        expected: the contacts that the endpoint must have.
        actual: the contacts that the endpoint has.
        numbers: the final numbers.
        workers_killed: number of killed workers.
        unfinished: what was left when time was up.
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
