"""One change as a producer reports it, and the rules of the log (docs/reference/contract.md, section 2)."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypedDict, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from producers.contract.errors import InvalidChange

if TYPE_CHECKING:
    from collections.abc import Callable

Op = Literal["upsert", "delete"]
"""What a change does to its pair."""

Lane = Literal["live", "bulk"]
"""Which stream a change takes: ``live`` if somebody waits for it, ``bulk`` for imports and other mass changes."""

IdFault = Literal["empty", "too_long", "not_utf8", "control_character"]
"""Why an id is invalid, for the message; in dead letters each of them is ``bad_owner`` or ``bad_contact``."""

OPS: Final[tuple[Op, ...]] = get_args(Op)
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
ID_MAX_BYTES: Final = 256
SOURCE_MAX_BYTES: Final = 64
AT_MIN_MS: Final = 10**12
"""Smallest ``at``, in milliseconds: a smaller number is in seconds by mistake."""
AT_AHEAD_MS: Final = 5 * 60 * 1000
"""How far ``at`` may be ahead of the entry's own time, in milliseconds."""

# In UTF-8 the byte C2 is always a leading byte, so C2 80 to C2 9F is U+0080 to 009F and nothing else.
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]")
# https://www.w3.org/TR/trace-context/: ids must not be all zeros; later versions may append; version ff is forbidden.
_TRACE = r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rf"00-{_TRACE}|(?!00|ff)[0-9a-f]{{2}}-{_TRACE}(?:-[ -~]{{1,200}})?")


def partition_of(owner: bytes | str, partitions: int) -> int:
    """Returns the partition of an owner's changes: CRC-32 (IEEE) of the id's UTF-8 bytes, modulo ``partitions``."""
    return zlib.crc32(owner if isinstance(owner, bytes) else owner.encode()) % partitions


def id_fault(raw: bytes) -> IdFault | None:
    """Returns why these bytes are an invalid XC user id, or None if they are valid."""
    if not raw:
        return "empty"
    if len(raw) > ID_MAX_BYTES:
        return "too_long"
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError:
            return "not_utf8"
    return "control_character" if _CONTROL.search(raw) else None


def characters_fit(raw: bytes, most: int) -> bool:
    """Returns whether a valid id has at most `most` characters."""
    return len(raw) <= most or (not raw.isascii() and len(raw.decode()) <= most)


def limit_rule(most: int) -> str:
    """Returns the rule of an id whose number of characters is limited; it follows the name of the field."""
    return _LIMIT_RULE.format(most)


def source_fits(raw: bytes) -> bool:
    """Returns whether these bytes are a valid ``source``."""
    return len(raw) <= SOURCE_MAX_BYTES


def traceparent_fits(value: str) -> bool:
    """Returns whether this is a W3C traceparent."""
    return _TRACEPARENT.fullmatch(value) is not None


def _at_most(limit_bytes: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        # No character takes more than four bytes, so short text, which is nearly all, need not be encoded.
        if len(value) * 4 > limit_bytes and len(value.encode()) > limit_bytes:
            raise ValueError
        return value

    return check


def _check_traceparent(value: str) -> str:
    if not traceparent_fits(value):
        raise ValueError
    return value


# The pattern runs in pydantic's core and appears in the JSON Schema. Neither counts bytes, so Python does.
_Id = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=ID_MAX_BYTES, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
    AfterValidator(_at_most(ID_MAX_BYTES)),
]
_Source = Annotated[
    str,
    StringConstraints(strict=True, max_length=SOURCE_MAX_BYTES),
    AfterValidator(_at_most(SOURCE_MAX_BYTES)),
]
_Traceparent = Annotated[
    str,
    StringConstraints(strict=True),
    AfterValidator(_check_traceparent),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{_TRACEPARENT.pattern})$"}),
]

_ID_RULE = f"must be a string of 1 to {ID_MAX_BYTES} bytes of UTF-8 without control characters"
_RULES: Final = {
    "owner": _ID_RULE,
    "contact": _ID_RULE,
    "op": "must be 'upsert' or 'delete'",
    "at": f"must be a whole number of Unix milliseconds, {AT_MIN_MS} or more",
    "source": f"must be a string of at most {SOURCE_MAX_BYTES} bytes of UTF-8",
    "traceparent": "must be a W3C traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>",
    "lane": "must be 'live' or 'bulk'",
}
_LIMIT_RULE: Final = "must have at most {} characters (CONTACT_SYNC_ID_MAX_CHARACTERS)"
_FAULTS: Final[dict[IdFault, str]] = {
    "empty": "it is empty",
    "too_long": "it is too long",
    "not_utf8": "it contains half a surrogate pair",
    "control_character": "it contains a control character",
}


class ChangeOptions(TypedDict, total=False):
    """What may be given with a change besides its pair.

    Attributes:
        at: when the change happened at its source, in Unix milliseconds; None for now.
        source: which system reports the change, up to 64 bytes.
        traceparent: W3C trace context.
        lane: ``live`` (None too) if somebody waits for the change, ``bulk`` if nobody does.
    """

    at: int | None
    source: str | None
    traceparent: str | None
    lane: Lane | None


class ContactChange(BaseModel):
    """A change of one owner-contact pair (docs/reference/contract.md, section 2). Immutable.

    Attributes:
        owner: the owner's XC user id, 1 to 256 bytes of UTF-8 without control characters.
        contact: the contact's XC user id, by the same rules.
        op: ``upsert`` or ``delete``.
        at: when the change happened at its source, in Unix milliseconds; Python producers fill it in if it is left out.
        source: which system reports the change, up to 64 bytes; shown in explanations, never sent to the endpoint.
        traceparent: W3C trace context.
        lane: ``live`` or ``bulk``; decides when it is sent, never how its pair ends. None takes the lane of the call.

    Raises:
        InvalidChange: a field breaks its rule, is missing or unknown.
    """

    # Inputs are hidden because they are user ids, which must not appear in an error message or log.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    owner: _Id
    contact: _Id
    op: Op
    at: Annotated[int, Field(strict=True, ge=AT_MIN_MS)] | None = None
    source: _Source | None = None
    traceparent: _Traceparent | None = None
    lane: Lane | None = None

    if not TYPE_CHECKING:  # for the type checker the fields themselves are the signature

        def __init__(self, /, **fields: Any) -> None:
            """Checks the fields, and reports an error in one line; pydantic's own takes several."""
            try:
                # As BaseModel.__init__ does, without two calls that take a fifth of its time.
                self.__pydantic_validator__.validate_python(fields, self_instance=self)
            except ValidationError as error:
                raise InvalidChange(_one_line(error)) from None


def check_id_characters(change: ContactChange, most: int) -> None:
    """Checks the number of characters in a change's ids.

    Raises:
        InvalidChange: an id has more than ``most``.
    """
    if len(change.owner) > most or len(change.contact) > most:
        raise InvalidChange(f"{'owner' if len(change.owner) > most else 'contact'} {limit_rule(most)}")


def check_lane(lane: str | None) -> None:
    """Checks the lane of a call.

    Raises:
        InvalidChange: it is invalid.
    """
    if lane is not None and lane not in LANES:
        raise InvalidChange(f"lane {_RULES['lane']}")


def _one_line(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False)
    return "; ".join(
        dict.fromkeys(_fault_line(str(fault["loc"][0]), fault["type"], fault["input"]) for fault in faults)
    )


def _fault_line(field: str, kind: str, value: object) -> str:
    rule = _RULES.get(field)
    if rule is None:
        return f"{field[:40]!r} is not a field of a change"
    if kind == "missing":
        return f"{field} is required: it {rule}"
    expected = int if field == "at" else str
    if type(value) is not expected:
        return f"{field} {rule}, not {type(value).__name__}"
    if isinstance(value, str) and field in {"owner", "contact"}:
        fault = id_fault(value.encode("utf-8", "surrogatepass"))
        return f"{field} {rule}: {_FAULTS[fault]}" if fault else f"{field} {rule}"
    return f"{field} {rule}"


def source_fault(source: object) -> str | None:
    """Returns the rule that a configured ``source`` breaks, None if it keeps all."""
    try:
        ContactChange(owner="0", contact="0", op="upsert", source=source)  # type: ignore[arg-type] # it is checked here
    except InvalidChange as invalid:
        return invalid.rule
    return None
