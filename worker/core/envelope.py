"""Reads the envelope of the endpoint's answer: a failure leniently, a success strictly (pure).

The form is that of the contract, section 1. A failure that is misread costs a retry. A success that is misread costs a
change. So each has its own model.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

MESSAGE_CAP: Final = 200
"""Most characters kept of any text from the endpoint or the network stack."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # JSON has none, but some servers write one
# The counts are added to 64-bit counters in Redis; an absurd number must not make later additions overflow.
_LARGEST_COUNT = 2**31 - 1


def sanitize(text: str) -> str:
    """Returns ``text`` on one line, without control characters, at most `MESSAGE_CAP` characters long."""
    return "".join(character if character.isprintable() else " " for character in text[:MESSAGE_CAP]).strip()


def _as_text(value: object) -> str:
    """Reads a code, field or message that is a string, a number or null; "?" stands for anything else."""
    match value:
        case None:
            return ""
        case str():
            return value.strip()
        case bool() | float():
            return "?"
        case int():
            return str(value)
        case _:
            return "?"


def _as_count(value: object) -> int:
    """Reads a count: null and fractions are 0; anything negative, or not a number, is an error."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # a bool is an int in Python, but no count
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic takes a ValueError for an invalid value
    if value < 0:
        raise ValueError("must not be negative")
    return min(value, _LARGEST_COUNT) if isinstance(value, int) else 0


def _as_object(value: object) -> object:
    return value if isinstance(value, dict) else {}


_Text = Annotated[str, BeforeValidator(_as_text)]
_Count = Annotated[int, BeforeValidator(_as_count)]


class _Error(BaseModel):
    code: _Text = ""
    message: _Text = ""
    field: _Text = ""


class Envelope(BaseModel):
    """Any envelope, read leniently: numbers may be strings and strings numbers, and missing values are empty.

    ``status`` and the ``error`` object are required, so that the JSON of a proxy's error page is not mistaken for the
    endpoint's answer.
    """

    status: Annotated[int, Field(ge=100, le=999)]
    error: _Error


class _NoError(BaseModel):
    code: Literal[""]


class _Counts(BaseModel):
    inserted: _Count = Field(default=0, alias="countInserted")
    deleted: _Count = Field(default=0, alias="countDeleted")


class Success(BaseModel):
    """The envelope of a success: the status is the number 200 and the error code is the empty string.

    A count that is missing is 0, because only totals depend on it. If one is negative or not a number, this is not a
    success: the endpoint that we know does not answer like that.
    """

    status: Literal[200]
    error: _NoError
    data: Annotated[_Counts, BeforeValidator(_as_object)] = _Counts()


def read_envelope(body: bytes) -> Envelope | None:
    """Returns the envelope in ``body``, or None if there is none."""
    try:
        return Envelope.model_validate_json(body.removeprefix(_BYTE_ORDER_MARK))
    except ValidationError:
        return None


def read_success(body: bytes) -> Success | None:
    """Returns the envelope in ``body`` if it is a success in every part, else None."""
    try:
        return Success.model_validate_json(body.removeprefix(_BYTE_ORDER_MARK))
    except ValidationError:
        return None
