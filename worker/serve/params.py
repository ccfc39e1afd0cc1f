"""Reads a request's parameters strictly: an unknown or invalid parameter is refused by its name."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect

from producers.contract.change import ID_MAX_BYTES, id_fault
from worker.serve.letters import MOVED_MAX
from worker.serve.refusal import Refused
from worker.store.dead_letters import Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

BODY_MAX_BYTES: Final = 256 * 1024

_QUERY_MAX_BYTES: Final = 4096
_BODY_SECONDS: Final = 10.0
_SKIP_MAX: Final = 1_000_000
_LETTER_ID: Final = re.compile(r"[0-9]{1,5}-[0-9]{1,15}")
_REASON: Final = re.compile(r"[a-z_]{1,64}")


def query_of(request: Request, *names: str) -> dict[str, str]:
    """Returns the query's parameters that are not empty.

    Raises:
        Refused: the query is too long, has an unknown parameter, or has one twice.
    """
    if len(request.url.query) > _QUERY_MAX_BYTES:
        raise Refused(413, "too_large", f"the query must have at most {_QUERY_MAX_BYTES} bytes")
    # Starlette replaces what is not UTF-8: then another id would be asked for. What escapes is no id, number or reason.
    items = parse_qsl(request.url.query, keep_blank_values=True, errors="surrogateescape")
    params = dict(items)
    if not params.keys() <= set(names) or len(params) < len(items):
        known = ", ".join(names) or "none"
        raise Refused(400, "bad_query", f"allowed query parameters, each once: {known}")
    return {name: value for name, value in params.items() if value}


def number_of(params: Mapping[str, str], name: str) -> int:
    """Returns a number of 0 or more; 0 if the parameter is missing.

    Raises:
        Refused: the value is not such a number.
    """
    value = params.get(name, "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 8 and int(value) <= _SKIP_MAX):
        raise Refused(400, f"bad_{name}", f"{name} must be a number from 0 to {_SKIP_MAX}")
    return int(value)


def id_of(params: Mapping[str, object], name: str) -> str:
    """Returns an owner's or a contact's id.

    Raises:
        Refused: it is missing or invalid.
    """
    value = params.get(name)
    # JSON can hold a lone surrogate, which has no UTF-8 form.
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""
    if id_fault(raw) is not None:
        rule = f"1 to {ID_MAX_BYTES} bytes of UTF-8 without control characters"
        raise Refused(400, f"bad_{name}", f"{name} must be {rule}")
    return raw.decode()


def filters_of(params: Mapping[str, object]) -> Wanted:
    """Returns the selection of dead letters by owner, contact and reason; a missing filter selects all.

    Raises:
        Refused: a filter is invalid.
    """
    reason = params.get("reason")
    if reason is not None and not (isinstance(reason, str) and _REASON.fullmatch(reason)):
        raise Refused(400, "bad_reason", "reason must be a word such as refused or bad_op")
    owner, contact = (id_of(params, name) if name in params else None for name in ("owner", "contact"))
    return Wanted(owner=owner, contact=contact, reason=reason)


def wanted_of(body: Mapping[str, object]) -> Wanted:
    """Returns the selection of dead letters in a body: `{"ids": [...]}`, or `{"all": true}` with optional filters.

    Raises:
        Refused: the body has neither form.
    """
    if body.keys() == {"ids"}:
        ids = body["ids"]
        if not isinstance(ids, list) or not 1 <= len(ids) <= MOVED_MAX:
            raise Refused(400, "bad_ids", f"ids must be a list of 1 to {MOVED_MAX} ids of dead letters")
        if not all(isinstance(each, str) and _LETTER_ID.fullmatch(each) for each in ids):
            raise Refused(400, "bad_ids", "ids must hold a partition and a number each, such as 17-3")
        return Wanted(ids=tuple(dict.fromkeys(ids)))
    if body.keys() <= {"all", "owner", "contact", "reason"} and body.get("all") is True:
        return filters_of(body)
    raise Refused(
        400, "bad_body", "the body must hold ids, or all: true with the optional filters owner, contact and reason"
    )


async def body_of(request: Request) -> dict[str, Any]:
    """Returns the JSON object in a request's body.

    Raises:
        Refused: the body is too long, too slow, of another media type, or not a JSON object.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "bad_type", "the body must be application/json")
    raw = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > BODY_MAX_BYTES:
                    raise Refused(413, "too_large", f"the body must have at most {BODY_MAX_BYTES} bytes")
    except TimeoutError:
        raise Refused(408, "too_slow", f"the body must arrive within {_BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "gone", "the client disconnected before the end of the body") from None
    try:
        found = orjson.loads(bytes(raw))
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "bad_json", "the body must be a JSON object")
    return found
