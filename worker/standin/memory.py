"""The memory of the stand-in endpoint: contacts, received requests, applied records, and counters.

It does no I/O; its clock is passed in. Tests check the order of deliveries against the history, so it keeps every
record with a sequence number, up to its limit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.standin.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.standin.rules import Answer, Pair, Record, Refusal
    from worker.standin.views import AppliedView, Counts, RequestView


@dataclass(slots=True)
class Received:
    """One request that was received in full.

    Attributes:
        number: 1 for the first.
        received_at: monotonic seconds.
        server_key: the Server-Key header as received; never shown, never logged.
        records: its records; empty if the body is invalid.
        unreadable: why the body is invalid; None if it is valid.
        fault: kind of the fault that affected it; None if there was none.
        status: HTTP status of its answer; None if it has no answer yet, or never gets one.
        code: error code in the answer's envelope.
        applied_at: monotonic seconds at which it was applied; None if it was not.
    """

    number: int
    received_at: float
    server_key: str | None = field(repr=False)
    records: list[Record] = field(repr=False)
    unreadable: Refusal | None = None
    fault: str | None = None
    status: int | None = None
    code: str = ""
    applied_at: float | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """The records of one request in the order in which they were applied.

    Attributes:
        first_sequence: sequence number of the first record; the others follow it.
        at: monotonic seconds.
        request: number of the request.
        records: upserts before deletions, as the endpoint applies them.
    """

    first_sequence: int
    at: float
    request: int
    records: list[Record]


class Memory:
    """The current contacts, with the history that led to them.

    Attributes:
        contacts: every pair that is a contact now.
    """

    def __init__(self, clock: Callable[[], float], history_records: int) -> None:
        self.contacts: set[Pair] = set()
        self._clock = clock
        self._requests: History[Received] = History(history_records)
        self._applied: History[Applied] = History(history_records)
        self._counters: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    def receive(self, server_key: str | None, read: list[Record] | Refusal) -> Received:
        """Records a request that was received in full, whatever its outcome."""
        records, unreadable = (read, None) if isinstance(read, list) else ([], read)
        counters = self._counters
        counters["requests"] += 1
        counters["in_flight"] += 1
        counters["records"] += len(records)
        counters["pair_twice"] += len({(owner, contact) for owner, contact, _ in records}) < len(records)
        counters["upsert_after_delete"] += _upsert_after_delete(records)
        for highest, value in (("largest_batch", len(records)), ("most_in_flight", counters["in_flight"])):
            counters[highest] = max(counters[highest], value)
        received = Received(counters["requests"], self._clock(), server_key, records, unreadable)
        self._requests.append(received, len(records))
        return received

    def apply(self, received: Received) -> tuple[int, int]:
        """Applies a request: deletions last, wherever they are in it (docs/reference/contract.md, section 1).

        Returns:
            How many contacts were inserted, and how many were deleted.
        """
        upserts = [record for record in received.records if not record[2]]
        deletes = [record for record in received.records if record[2]]
        before = len(self.contacts)
        self.contacts.update((owner, contact) for owner, contact, _ in upserts)
        between = len(self.contacts)
        self.contacts.difference_update([(owner, contact) for owner, contact, _ in deletes])
        inserted, deleted = between - before, between - len(self.contacts)
        received.applied_at = self._clock()
        first_sequence = self._counters["applied"] + 1
        done = Applied(first_sequence, received.applied_at, received.number, upserts + deletes)
        self._applied.append(done, len(done.records))
        for counter, by in (("applied", len(done.records)), ("inserted", inserted), ("deleted", deleted)):
            self._counters[counter] += by
        return inserted, deleted

    def count_fault(self, received: Received, kind: str) -> None:
        """Counts a fault that affected a request."""
        received.fault = kind
        self._faults[kind] += 1

    def count_answer(self, received: Received, answer: Answer | None) -> None:
        """Counts the answer that a request is about to get; None if it gets none."""
        if answer is None:
            self._statuses["none"] += 1
            return
        received.status, received.code = answer.status, answer.code
        self._statuses[str(answer.status)] += 1
        if answer.code:
            self._codes[answer.code] += 1

    def count_done(self) -> None:
        """Counts a request as done: it was answered, or its connection is closed."""
        self._counters["in_flight"] -= 1

    def counts(self, late: int) -> Counts:
        """Returns the counters; the caller knows the number of `late` requests."""
        counters = self._counters
        return {
            "requests": counters["requests"],
            "in_flight": counters["in_flight"],
            "most_in_flight": counters["most_in_flight"],
            "statuses": dict(self._statuses),
            "codes": dict(self._codes),
            "faults": dict(self._faults),
            "records": counters["records"],
            "largest_batch": counters["largest_batch"],
            "applied": counters["applied"],
            "inserted": counters["inserted"],
            "deleted": counters["deleted"],
            "pair_twice": counters["pair_twice"],
            "upsert_after_delete": counters["upsert_after_delete"],
            "contacts": len(self.contacts),
            "late": late,
        }

    def pairs(self, owner: str | None) -> list[Pair]:
        """Returns the current contacts, sorted: all, or those of one owner."""
        return sorted(self.contacts if owner is None else (pair for pair in self.contacts if pair[0] == owner))

    def requests(self, since: int) -> Iterator[RequestView]:
        """Yields the remembered requests with a number above `since`, the oldest first."""
        for received in self._requests:
            if received.number > since:
                yield {
                    "number": received.number,
                    "received_at": received.received_at,
                    "fault": received.fault,
                    "status": received.status,
                    "code": received.code,
                    "applied_at": received.applied_at,
                    "records": [
                        {"owner": owner, "contact": contact, "op": "delete" if deleted else "upsert"}
                        for owner, contact, deleted in received.records
                    ],
                }

    def applied(self, since: int) -> Iterator[AppliedView]:
        """Yields the remembered applied records with a sequence number above `since`, in that order."""
        for done in self._applied:
            for sequence, (owner, contact, deleted) in enumerate(done.records, done.first_sequence):
                if sequence > since:
                    yield {
                        "sequence": sequence,
                        "at": done.at,
                        "request": done.request,
                        "owner": owner,
                        "contact": contact,
                        "op": "delete" if deleted else "upsert",
                    }

    def clear_history(self) -> None:
        """Clears the remembered requests and applied records; contacts, counts and numbering stay."""
        self._requests.clear()
        self._applied.clear()


def _upsert_after_delete(records: list[Record]) -> bool:
    seen_delete = False
    for _, _, deleted in records:
        if deleted:
            seen_delete = True
        elif seen_delete:
            return True
    return False
