"""What the control interface shows, as types for those who read it."""

from __future__ import annotations

from typing import Literal, TypedDict


class RecordView(TypedDict):
    """One record as the control interface shows it."""

    owner: str
    contact: str
    op: Literal["upsert", "delete"]


class RequestView(TypedDict):
    """One request as the control interface shows it; times are monotonic seconds of this machine."""

    number: int
    received_at: float
    fault: str | None
    status: int | None
    code: str
    applied_at: float | None
    records: list[RecordView]


class AppliedView(TypedDict):
    """One record that took effect, in the order it did; `at` is monotonic seconds of this machine."""

    sequence: int
    at: float
    request: int
    owner: str
    contact: str
    op: Literal["upsert", "delete"]


class Counts(TypedDict):
    """Counters since the last reset.

    Attributes:
        requests: requests that came in whole.
        in_flight: requests that are not answered yet and whose connection is not closed.
        most_in_flight: the most there were at once.
        statuses: answers by HTTP status; `none` is for requests that got none.
        codes: answers by the envelope's error code.
        faults: requests by the kind of the fault applied to them.
        records: records of all readable requests, applied or not.
        largest_batch: most records in one request.
        applied: records that took effect, whether or not they changed anything.
        inserted: contacts that came to be.
        deleted: contacts that ceased to be.
        pair_twice: requests that name a pair more than once; CONTRACT section 3 allows none.
        upsert_after_delete: requests with an upsert after a delete; CONTRACT section 3 allows none.
        contacts: contacts there are now.
        late: requests that were dropped and will be applied later.
    """

    requests: int
    in_flight: int
    most_in_flight: int
    statuses: dict[str, int]
    codes: dict[str, int]
    faults: dict[str, int]
    records: int
    largest_batch: int
    applied: int
    inserted: int
    deleted: int
    pair_twice: int
    upsert_after_delete: int
    contacts: int
    late: int
