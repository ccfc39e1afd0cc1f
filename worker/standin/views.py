"""Types of what the control API returns."""

from __future__ import annotations

from typing import Literal, TypedDict


class RecordView(TypedDict):
    """One record."""

    owner: str
    contact: str
    op: Literal["upsert", "delete"]


class RequestView(TypedDict):
    """One request; times are monotonic seconds of this machine."""

    number: int
    received_at: float
    fault: str | None
    status: int | None
    code: str
    applied_at: float | None
    records: list[RecordView]


class AppliedView(TypedDict):
    """One applied record, in the order of application; `at` is monotonic seconds of this machine."""

    sequence: int
    at: float
    request: int
    owner: str
    contact: str
    op: Literal["upsert", "delete"]


class Counts(TypedDict):
    """Counters since the last reset.

    Attributes:
        requests: requests that were received in full.
        in_flight: requests that are not answered yet and whose connection is open.
        most_in_flight: most requests in flight at once.
        statuses: answers by HTTP status; `none` counts requests that got no answer.
        codes: answers by the envelope's error code.
        faults: requests by the kind of the fault that affected them.
        records: records of all valid requests, applied or not.
        largest_batch: most records in one request.
        applied: records that were applied, whether or not they changed a contact.
        inserted: contacts that were inserted.
        deleted: contacts that were deleted.
        pair_twice: requests that name a pair more than once; docs/reference/contract.md, section 3, forbids it.
        upsert_after_delete: requests with an upsert after a delete; docs/reference/contract.md, section 3, forbids it.
        contacts: current number of contacts.
        late: requests that got no answer and will be applied later.
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
