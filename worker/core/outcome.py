"""What became of a request: one value, decided in one place from status, envelope or silence (pure).

Three witnesses speak of an answer: the HTTP status, the envelope's own status, and the error code. Where they
disagree, the one that confirms less is believed (CONTRACT section 1). `_Claim` is that order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from worker.core.backoff import retry_after_seconds
from worker.core.envelope import Envelope, read_envelope, read_success, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATED_CODE = re.compile(r"[0-9]{1,6}")
_RECORD_FIELDS = frozenset({"", "102", "103", "104"})
_REQUEST_FIELD = "101"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, as far as it came.

    Attributes:
        status: HTTP status.
        retry_after: value of the ``Retry-After`` header, None if there was none.
        body: the body's raw bytes.
        readable: whether the answer came whole and within the size we read; if not, its body is not looked at.
        rate_headers: those of its headers that state a limit of requests, by the names in `rate_headers.HEADERS`.
    """

    status: int
    retry_after: str | None
    body: bytes
    readable: bool = True
    rate_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No HTTP status came back.

    Attributes:
        sent: whether the request's first byte may have left.
        why: what happened, in a few words without ids or secrets.
    """

    sent: bool
    why: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The endpoint did all of it; both counts are its own, 0 where it did not say."""

    inserted: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing is wrong with the request; try its pairs again later.

    Attributes:
        after_seconds: what ``Retry-After`` asked for, None if nothing.
        ambiguous: whether the request may still act after we stopped waiting for it.
        error: what happened, in a few words without ids or secrets.
        limited: whether the endpoint was asked too often (429).
    """

    after_seconds: float | None
    ambiguous: bool
    error: str
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The endpoint refuses one of the records; ``message`` is its own text and may hold ids: never log it."""

    code: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The cause lies outside the records: ``reason`` is ``credentials``, ``endpoint_refuses`` or ``redirect``."""

    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Fewer records might pass."""

    error: str


Outcome = Confirmed | Retry | Rejected | Hold | TooLarge


class _Claim(IntEnum):
    """What one witness says; the greatest is believed, because it confirms and settles least."""

    SUCCESS = 0  # or: nothing of its own to say
    REFUSED = 1  # refused, with the reason left to another witness
    REJECTED = 2
    TOO_LARGE = 3
    RETRY = 4
    HOLD = 5
    REDIRECT = 6
    CREDENTIALS = 7


_HOLD_REASONS = {
    _Claim.REFUSED: "endpoint_refuses",  # nobody gave a reason
    _Claim.TOO_LARGE: "endpoint_refuses",  # and yet there was but one record, see `decide`
    _Claim.HOLD: "endpoint_refuses",
    _Claim.REDIRECT: "redirect",
    _Claim.CREDENTIALS: "credentials",
}


def decide(answer: Answer | NoAnswer, records: int, now_epoch_seconds: float) -> Outcome:
    """Return what became of a request; never raises, whatever the answer holds.

    Args:
        answer: what came back.
        records: how many records the request carried.
        now_epoch_seconds: Unix time in seconds, to read a ``Retry-After`` that is a date.
    """
    if isinstance(answer, NoAnswer):
        return Retry(after_seconds=None, ambiguous=answer.sent, error=sanitize(answer.why))
    if answer.status == 200 and answer.readable and (success := read_success(answer.body)):
        return Confirmed(inserted=success.data.inserted, deleted=success.data.deleted)
    envelope = read_envelope(answer.body) if answer.readable else None
    claim = _least_confirming(answer.status, envelope)
    error = _describe(answer, envelope)
    match claim:
        case _Claim.SUCCESS | _Claim.RETRY:
            after_seconds = retry_after_seconds(answer.retry_after, now_epoch_seconds)
            limited = answer.status == 429 or (envelope is not None and envelope.status == 429)
            return Retry(after_seconds, _may_still_act(answer.status, envelope), error, limited)
        case _Claim.REJECTED:
            return _rejected(envelope, error)
        # No request is smaller than one record, and a legal one has a few hundred bytes: a limit below that is a
        # fault in somebody's configuration. To call the record bad would bury every record, one after the other.
        case _Claim.TOO_LARGE if records > 1:
            return TooLarge(error)
        case _:
            return Hold(_HOLD_REASONS[claim], error)


def _least_confirming(status: int, envelope: Envelope | None) -> _Claim:
    claims = [_claim_of_status(status)]
    if envelope:
        claims.append(_claim_of_envelope_status(envelope.status))
        claims.append(_claim_of_code(envelope.error.code, envelope.error.field))
    return max(claims)


def _claim_of_status(status: int) -> _Claim:  # noqa: PLR0911 - a table: one row per kind of status
    match status:
        case 200:
            return _Claim.SUCCESS
        case 400:
            return _Claim.REFUSED
        case 401 | 403:
            return _Claim.CREDENTIALS
        case 408 | 425 | 429:
            return _Claim.RETRY
        case 413:
            return _Claim.TOO_LARGE
        case 422:
            return _Claim.REJECTED
        case _ if 300 <= status <= 399:
            return _Claim.REDIRECT
        case _ if 400 <= status <= 499:
            return _Claim.HOLD
        case _:  # 5xx; and what no endpoint of ours answers: 1xx, 201, 204, 999
            return _Claim.RETRY


def _claim_of_envelope_status(status: int) -> _Claim:
    # Only the HTTP status 422 rejects by itself; in an envelope it needs the code to say of what.
    return _Claim.REFUSED if status == 422 else _claim_of_status(status)


def _claim_of_code(code: str, field: str) -> _Claim:
    if code == "40001" or re.fullmatch(r"401[0-9]{2}|49[0-9]{3}", code):
        return _Claim.CREDENTIALS
    if code == "40002":
        if field == _REQUEST_FIELD:
            return _Claim.TOO_LARGE
        return _Claim.REJECTED if field in _RECORD_FIELDS else _Claim.HOLD
    if code == "50001":
        return _Claim.RETRY
    return _Claim.REFUSED if code.startswith("4") else _Claim.SUCCESS  # unknown: the statuses know better


def _may_still_act(status: int, envelope: Envelope | None) -> bool:
    """Whether a request that is to be retried may yet change something at the endpoint.

    Once the endpoint itself has answered, it has finished with the request; so the question is who spoke.
    """
    if status in {425, 429}:
        return False  # turned away before it was processed, whoever said so
    if envelope is None:
        return True  # an intermediary spoke, or nobody that we could read
    if {status, envelope.status} & {502, 504}:
        return True  # a gateway, even one that speaks our envelope, knows nothing of what lies behind it
    if not (status == 200 or status >= 400):
        return True  # 202 and its like: taken, done later
    return envelope.status == 200 == status and not envelope.error.code  # neither a success nor a failure


def _rejected(envelope: Envelope | None, error: str) -> Rejected:
    if envelope is None:
        return Rejected(code="", field="", message=error)
    error_of = envelope.error
    return Rejected(code=sanitize(error_of.code), field=sanitize(error_of.field), message=sanitize(error_of.message))


def _describe(answer: Answer, envelope: Envelope | None) -> str:
    """Name status, code and field; not the message, which may echo user ids."""
    parts = [f"HTTP {answer.status}"]
    if not answer.readable:
        parts.append("answer cut short")
    elif envelope is None:
        parts.append("no readable envelope")
    else:
        if envelope.status != answer.status:
            parts.append(f"envelope {envelope.status}")
        for name, value in (("code", envelope.error.code), ("field", envelope.error.field)):
            if value:
                parts.append(f"{name} {loggable_code(value)}")
    return ", ".join(parts)


def loggable_code(value: str) -> str:
    """A code or field as it may be logged: no small number is none of theirs, and might be anything, an id too."""
    return value if not value or _STATED_CODE.fullmatch(value) else "unknown"
