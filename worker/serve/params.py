"""What a request gives, read strictly: each parameter known, of its length and form, or refused by its name."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

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
    """The query's parameters that are not empty; none but these may be there, and each once.

    Raises:
        Refused: it is too long, or another parameter is there, or one twice.
    """
    if len(request.url.query) > _QUERY_MAX_BYTES:
        raise Refused(413, "too_large", f"the query must have {_QUERY_MAX_BYTES} bytes at most")
    items = request.query_params.multi_items()
    given = dict(items)
    if not given.keys() <= set(names) or len(given) < len(items):
        known = ", ".join(names) or "none"
        raise Refused(400, "bad_query", f"the query's parameters are, each once: {known}")
    return {name: value for name, value in given.items() if value}


def number_of(given: Mapping[str, str], name: str) -> int:
    """A number from 0 on, 0 where it is not given.

    Raises:
        Refused: it is none.
    """
    value = given.get(name, "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 8 and int(value) <= _SKIP_MAX):
        raise Refused(400, f"bad_{name}", f"{name} must be a number from 0 to {_SKIP_MAX}")
    return int(value)


def id_of(given: Mapping[str, object], name: str) -> str:
    """An owner's or a contact's id.

    Raises:
        Refused: it is missing, or none.
    """
    value = given.get(name)
    # A lone surrogate, as JSON can spell it, has no UTF-8.
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""
    if id_fault(raw) is not None:
        rule = f"1 to {ID_MAX_BYTES} bytes of UTF-8 without control characters"
        raise Refused(400, f"bad_{name}", f"{name} must be {rule}")
    return raw.decode()


def filters_of(given: Mapping[str, object]) -> Wanted:
    """The letters that owner, contact and reason let through, as far as they are given.

    Raises:
        Refused: one of them does not fit.
    """
    reason = given.get("reason")
    if reason is not None and not (isinstance(reason, str) and _REASON.fullmatch(reason)):
        raise Refused(400, "bad_reason", "reason must be a word such as refused or bad_op")
    owner, contact = (id_of(given, name) if name in given else None for name in ("owner", "contact"))
    return Wanted(owner=owner, contact=contact, reason=reason)


def wanted_of(body: Mapping[str, object]) -> Wanted:
    """The letters that a body names: `{"ids": [...]}`, or `{"all": true}` with filters or without.

    Raises:
        Refused: it does not say which, in one of these two ways.
    """
    if body.keys() == {"ids"}:
        ids = body["ids"]
        if not isinstance(ids, list) or not 1 <= len(ids) <= MOVED_MAX:
            raise Refused(400, "bad_ids", f"ids must be a list of 1 to {MOVED_MAX} letters' ids")
        if not all(isinstance(each, str) and _LETTER_ID.fullmatch(each) for each in ids):
            raise Refused(400, "bad_ids", "a letter's id is a partition and a number, such as 17-3")
        return Wanted(ids=tuple(dict.fromkeys(ids)))
    if body.keys() <= {"all", "owner", "contact", "reason"} and body.get("all") is True:
        return filters_of(body)
    raise Refused(400, "bad_body", "say ids, or all: true with owner, contact and reason as filters")


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request brings.

    Raises:
        Refused: it is too long, too slow, of another type, or no JSON object.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "bad_type", "the body must be application/json")
    raw = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > BODY_MAX_BYTES:
                    raise Refused(413, "too_large", f"the body must have {BODY_MAX_BYTES} bytes at most")
    except TimeoutError:
        raise Refused(408, "too_slow", f"the body must come within {_BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "gone", "the client left before the end") from None
    try:
        found = orjson.loads(bytes(raw))
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "bad_json", "the body must be a JSON object")
    return found
