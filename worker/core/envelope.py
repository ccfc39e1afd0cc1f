"""The endpoint's answer envelope: lenient in reading a failure, strict in reading a success (pure).

The shape is CONTRACT section 1's. A failure that is read wrongly costs a retry; a success that is read wrongly
costs a change, so the two have a model each.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

MESSAGE_CAP: Final = 200
"""Most characters kept of any text that the endpoint or the network stack says."""

# The counts are added to 64-bit counters in Redis; one absurd number must not make every later addition overflow.
_LARGEST_COUNT = 2**31 - 1


def sanitize(text: str) -> str:
    """Return ``text`` on one line, without control characters and at most `MESSAGE_CAP` characters long."""
    return "".join(character if character.isprintable() else " " for character in text[:MESSAGE_CAP]).strip()


def _as_text(value: object) -> str:
    """Read a code, field or message that came as a string, a number or null; "?" stands for anything else."""
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


def _as_count(value: object) -> object:
    # bool is an int to Python, and true is no count.
    return value if type(value) is int and 0 <= value <= _LARGEST_COUNT else 0


def _as_object(value: object) -> object:
    return value if isinstance(value, dict) else {}


_Text = Annotated[str, BeforeValidator(_as_text)]
_Count = Annotated[int, BeforeValidator(_as_count)]


class _Error(BaseModel):
    code: _Text = ""
    message: _Text = ""
    field: _Text = ""


class Envelope(BaseModel):
    """Any envelope, read leniently: numbers may be strings and strings numbers, and what is missing is empty.

    ``status`` and the ``error`` object must both be there, so that the JSON of a proxy's own error page
    does not pass for the endpoint's word.
    """

    status: Annotated[int, Field(ge=100, le=999)]
    error: _Error


class _NoError(BaseModel):
    code: Literal[""]


class _Counts(BaseModel):
    inserted: _Count = Field(default=0, alias="countInserted")
    deleted: _Count = Field(default=0, alias="countDeleted")


class Success(BaseModel):
    """The envelope of a success, and no other: status is the number 200 and the error code is the empty string.

    Only the counts are read leniently (0 where missing or no count), since nothing but totals depends on them.
    """

    status: Literal[200]
    error: _NoError
    data: Annotated[_Counts, BeforeValidator(_as_object)] = _Counts()


def read_envelope(body: bytes) -> Envelope | None:
    """Return the envelope in ``body``, or None if there is none."""
    try:
        return Envelope.model_validate_json(body)
    except ValidationError:
        return None


def read_success(body: bytes) -> Success | None:
    """Return the envelope in ``body`` if it is a success in every part, else None."""
    try:
        return Success.model_validate_json(body)
    except ValidationError:
        return None
