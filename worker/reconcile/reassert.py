"""Says again a share of what is believed confirmed: people change contacts in the app, and nobody tells us (pure).

Each run takes the share behind that of the run before, so that all pairs have their turn. Where it begins stands in the
history of runs; if that is lost, it is chosen by the time.
"""

from __future__ import annotations

from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from zlib import crc32

from producers.contract.change import ContactChange
from worker.core.codec import decode_remembered
from worker.core.entry import split_pair
from worker.core.pair import Remembered, join_remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from worker.admin.status import Status

WHOLE: Final = 100_000
"""A circle on which every pair has its place; a share is a part of it."""


class Share(NamedTuple):
    """The pairs of one run: those in a part of the circle.

    Attributes:
        begin: where the part begins.
        size: how long it is.
    """

    begin: int
    size: int

    @classmethod
    def of(cls, percent: float, past: Iterable[Mapping[str, Any]], now_ms: int) -> Self:
        """The share of a run.

        Args:
            percent: how much of all pairs.
            past: the results of past runs, the newest first.
            now_ms: the present (Unix ms).
        """
        size = min(WHOLE, ceil(WHOLE * percent / 100))
        ends = (each["reassert"]["end"] for each in past if each.get("reassert"))
        return cls(next(ends, now_ms // 1000 * size % WHOLE), size)

    @property
    def end(self) -> int:
        """Where it ends, and the next begins."""
        return (self.begin + self.size) % WHOLE

    def has(self, pair: bytes) -> bool:
        """Whether a pair is in it."""
        # Not the plain checksum: the partition of an owner, and the file that a pair is laid aside in, come of that.
        return (crc32(b"reassert " + pair) % WHOLE - self.begin) % WHOLE < self.size


class Again(NamedTuple):
    """What to say again of the pairs of a ledger.

    Attributes:
        known: number of contacts among them that are believed confirmed.
        unstamped: those whose confirmed change carried no time: nothing can be said again that is surely not later.
        dead: those with dead letters.
        changes: pairs to upsert, each with its time.
    """

    known: int
    unstamped: int
    dead: int
    changes: list[tuple[bytes, int]]


def again(entries: Iterable[tuple[bytes, bytes]], dead: Iterable[bytes], share: Share, now_ms: int) -> Again:
    """Returns what to say again of one partition.

    The time is one millisecond after what was confirmed: a delete that is on its way wins, however long it takes.

    Args:
        entries: the pairs of its ledgers as stored, the older ledger first.
        dead: its pairs with dead letters.
        share: the pairs of this run.
        now_ms: the present (Unix ms); what was confirmed with a later time is left for the next run.
    """
    known: dict[bytes, Remembered] = {}
    for pair, value in entries:
        if share.has(pair):
            found = decode_remembered(value)
            known[pair] = join_remembered(found, known.get(pair)) or found
    held = set(dead)
    contacts = {pair: found for pair, found in known.items() if found.op == "upsert"}
    stamped = {pair: found.upsert_at for pair, found in contacts.items() if found.upsert_at > found.delete_at}
    changes = [(pair, at + 1) for pair, at in stamped.items() if pair not in held and at < now_ms]
    return Again(len(contacts), len(contacts) - len(stamped), sum(pair in held for pair in stamped), changes)


def missing(before: Status, after: Status, *, sent: int, upserts: int, reasserted: int) -> dict[str, int]:
    """Returns how many of the contacts that were said again the endpoint did not have any more, as far as it can tell.

    The endpoint counts inserts for a whole request, not for each record. So what others said meanwhile, what waited
    before and what was repaired may be among them; and a request whose answer was lost may have inserted what nobody
    counted.

    Args:
        before: the status before anything was sent.
        after: the status when everything was delivered, or the wait was given up.
        sent: number of changes that were sent.
        upserts: upserts among them that were not said again.
        reasserted: upserts among them that were.
    """

    def moved(name: str) -> int:
        return after.totals[name] - before.totals[name]

    if not after.idle:
        return {"at_least": 0, "at_most": reasserted}
    others = max(0, moved("events") - sent) + before.waiting_changes + before.inbox_entries + moved("repairs")
    inserted = moved("inserted")
    at_most = reasserted if moved("retries") else min(reasserted, inserted)
    return {"at_least": max(0, min(reasserted, inserted - others - upserts)), "at_most": at_most}


def each_change(changes: Iterable[tuple[bytes, int]]) -> Iterator[ContactChange]:
    """Yields the change of each pair, with its time."""
    for pair, at in changes:
        owner, contact = split_pair(pair)
        yield ContactChange(owner=owner.decode(), contact=contact.decode(), op="upsert", at=at)


def batched(changes: Iterable[ContactChange], size: int) -> Iterator[list[ContactChange]]:
    """Yields them in lists of this size; the last may be shorter."""
    rest = iter(changes)
    while page := list(islice(rest, size)):
        yield page
