"""Decides the outcome of a request from status, envelope or silence: one value, in one place (pure).

An answer has three witnesses: the HTTP status, the envelope's own status, and the error code. If they disagree, the one
that confirms least is believed (contract, section 1). `_Claim` is that order.
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

_LOGGABLE_CODE = re.compile(r"[0-9]{1,6}")
_RECORD_FIELDS = frozenset({"", "102", "103", "104"})
_REQUEST_FIELD = "101"
_ANOTHER_ERROR = "99999"
_NO_CODES = frozenset({"", "0", "?"})  # "?" is neither text nor a whole number, see `read_envelope`


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, as far as it arrived.

    Attributes:
        status: HTTP status.
        retry_after: value of the ``Retry-After`` header, with commas between if it came twice; None if there was none.
        body: the body's raw bytes.
        readable: whether the body arrived whole and is not too large; if not, it is ignored.
        rate_headers: those of its headers that state a rate limit, by the names in `rate_headers.HEADERS`.
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
    """The endpoint did all of it; both counts are its own, 0 if it did not send them."""

    inserted: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Retry:
    """The request itself is in order; its pairs are tried again later.

    Attributes:
        after_seconds: what ``Retry-After`` asked for, None if it was not sent.
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
    """The endpoint refuses one of the records.

    Attributes:
        code: the envelope's error code.
        field: the envelope's error field.
        message: the endpoint's own text, which may hold ids: never log it.
        known: whether the code is documented as the fault of a record; if not, nothing says that it is for good.
        after_seconds: as in `Retry`.
    """

    code: str
    field: str
    message: str
    known: bool = True
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """The cause lies outside the records.

    Attributes:
        reason: ``credentials``, ``app_unavailable``, ``endpoint_refuses`` or ``redirect``.
        error: what happened, in a few words without ids or secrets.
        after_seconds: as in `Retry`.
    """

    reason: str
    error: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A smaller request might be accepted."""

    error: str


Outcome = Confirmed | Retry | Rejected | Hold | TooLarge


class _Claim(IntEnum):
    """What one witness says; the greatest is believed, because it confirms least."""

    SUCCESS = 0  # or this witness says nothing
    REFUSED = 1  # refused; another witness gives the reason
    REJECTED = 2
    UNKNOWN = 3  # refused by the platform itself, with a code that no row names
    TOO_LARGE = 4
    RETRY = 5
    HOLD = 6
    REDIRECT = 7
    CREDENTIALS = 8
    APP_UNAVAILABLE = 9


_HOLD_REASONS = {
    _Claim.REFUSED: "endpoint_refuses",  # no witness gave a reason
    _Claim.TOO_LARGE: "endpoint_refuses",  # although it was a single record, see `decide`
    _Claim.HOLD: "endpoint_refuses",
    _Claim.REDIRECT: "redirect",
    _Claim.CREDENTIALS: "credentials",
    _Claim.APP_UNAVAILABLE: "app_unavailable",
}


def decide(answer: Answer | NoAnswer, records: int, now_epoch_seconds: float) -> Outcome:
    """Returns the outcome of a request; never raises, whatever the answer contains.

    Args:
        answer: what came back.
        records: how many records the request carried.
        now_epoch_seconds: Unix time in seconds, for a ``Retry-After`` that is a date.
    """
    if isinstance(answer, NoAnswer):
        return Retry(after_seconds=None, ambiguous=answer.sent, error=sanitize(answer.why))
    if answer.status == 200 and answer.readable and (success := read_success(answer.body)):
        return Confirmed(inserted=success.data.inserted, deleted=success.data.deleted)
    envelope = read_envelope(answer.body) if answer.readable else None
    claim = _least_confirming(answer.status, envelope)
    error = _describe(answer, envelope)
    after_seconds = retry_after_seconds(answer.retry_after, now_epoch_seconds)
    match claim:
        case _Claim.SUCCESS | _Claim.RETRY:
            limited = answer.status == 429 or (envelope is not None and envelope.status == 429)
            return Retry(after_seconds, _may_still_act(answer.status, envelope), error, limited)
        case _Claim.REJECTED | _Claim.UNKNOWN if envelope is not None:
            said = envelope.error
            known = claim is _Claim.REJECTED
            return Rejected(sanitize(said.code), sanitize(said.field), sanitize(said.message), known, after_seconds)
        # No request is smaller than one record, and a legal one has a few hundred bytes: a limit below that is a
        # fault in somebody's configuration. To call the record bad would bury every record, one after the other.
        case _Claim.TOO_LARGE if records > 1:
            return TooLarge(error)
        case _:
            return Hold(_HOLD_REASONS[claim], error, after_seconds)


def _least_confirming(status: int, envelope: Envelope | None) -> _Claim:
    if envelope is None:
        claim = _claim_of_status(status)
        # A proxy's page says nothing of any record: to believe it would bury records, one after the other.
        return _Claim.HOLD if claim is _Claim.REJECTED else claim
    code = envelope.error.code
    return max(
        _with_code(_claim_of_status(status), status, code),
        _with_code(_claim_of_envelope_status(envelope.status), envelope.status, code),
        _claim_of_code(code, envelope.error.field),
    )


def _with_code(claim: _Claim, status: int, code: str) -> _Claim:
    """What a status says beside a code of the platform: without a code, a 403 or 404 may be the word of a proxy."""
    # The platform may answer its code for "another error" as a 500, to the same record again and again.
    defers = claim is _Claim.HOLD or status == 403 or (status == 500 and code == _ANOTHER_ERROR)
    return _Claim.UNKNOWN if code not in _NO_CODES and defers else claim


def _claim_of_status(status: int) -> _Claim:  # noqa: PLR0911 - a table: one row per kind of status
    match status:
        case 200:
            return _Claim.SUCCESS
        case 400:
            return _Claim.REFUSED
        case 401 | 403 | 491:
            return _Claim.CREDENTIALS
        case 492:
            return _Claim.APP_UNAVAILABLE
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
        case _:  # 5xx; and statuses that the endpoint never sends: 1xx, 201, 204, 999
            return _Claim.RETRY


def _claim_of_envelope_status(status: int) -> _Claim:
    # Only the HTTP status 422 rejects by itself; in an envelope it needs a code.
    return _Claim.REFUSED if status == 422 else _claim_of_status(status)


def _claim_of_code(code: str, field: str) -> _Claim:
    if code == "40001" or re.fullmatch(r"401[0-9]{2}|491[0-9]{2}", code):
        return _Claim.CREDENTIALS
    if re.fullmatch(r"4920[1-3]", code):
        return _Claim.APP_UNAVAILABLE
    if code == "40002":
        if field == _REQUEST_FIELD:
            return _Claim.TOO_LARGE
        return _Claim.REJECTED if field in _RECORD_FIELDS else _Claim.UNKNOWN
    if code == "50001":
        return _Claim.RETRY
    return _Claim.SUCCESS if code in _NO_CODES else _Claim.UNKNOWN


def _may_still_act(status: int, envelope: Envelope | None) -> bool:
    """Whether a request that will be retried may still change something at the endpoint.

    Once the endpoint itself has answered, it is done with the request. So the question is who answered.
    """
    if status in {425, 429}:
        return False  # turned away before it was processed, whoever answered
    if envelope is None:
        return True  # an intermediary answered, or something unreadable
    if {status, envelope.status} & {502, 504}:
        return True  # a gateway, even with our envelope, does not know what the endpoint did
    if not (status == 200 or status >= 400):
        return True  # 202 and the like: accepted, done later
    return envelope.status == 200 == status and not envelope.error.code  # neither success nor failure


def _describe(answer: Answer, envelope: Envelope | None) -> str:
    """Names status, code and field, but not the message, which may contain user ids."""
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
    """Returns the code or field if it has 1 to 6 digits, else `unknown`: anything else might contain a user id."""
    return value if not value or _LOGGABLE_CODE.fullmatch(value) else "unknown"
