"""What the endpoint accepts and how it answers: docs/reference/contract.md, section 1, as pure functions.

They turn a request body into records or a refusal, check the key header, and build every answer.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

SYNC_PATH = "/v1/server/contact/sync"
"""The path to which contacts are posted."""

BODY_LIMIT_BYTES = 8 * 1024 * 1024
"""Largest request body that is accepted; a longer one is answered with HTTP 413."""

HEADER_REFUSED = "40001"
PARAMETER_REFUSED = "40002"
KEY_MALFORMED = "40102"
KEY_UNKNOWN = "40103"

CONTACTS_FIELD = "101"
OWNER_FIELD = "102"
CONTACT_FIELD = "103"
IS_DELETED_FIELD = "104"

Pair: TypeAlias = tuple[str, str]
"""Owner's and contact's XC user id."""

Record: TypeAlias = tuple[str, str, bool]
"""One record of a request: owner, contact, whether it deletes. A plain tuple, because a request holds 500."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete HTTP answer.

    Attributes:
        status: HTTP status.
        body: the bytes after the headers.
        code: the envelope's error code; empty if the body confirms or is not an envelope.
        headers: additional headers; content type and length are added when it is sent.
    """

    status: int
    body: bytes
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request changes nothing.

    Attributes:
        status: HTTP status, also in the envelope.
        code: error code of the platform; empty if the platform documents none.
        message: text for people; never contains an id or a key.
        field: number of the invalid field, or empty.
        retry_after: value of the Retry-After header; None sends no such header.
    """

    status: int
    code: str
    message: str
    field: str = ""
    retry_after: str | None = None

    def answer(self) -> Answer:
        """Returns the refusal as an HTTP answer."""
        body = envelope(self.status, code=self.code, message=self.message, field=self.field)
        headers = () if self.retry_after is None else (("retry-after", self.retry_after),)
        return Answer(self.status, body, self.code, headers)


TOO_LARGE = Refusal(413, "", f"Request body cannot be longer than {BODY_LIMIT_BYTES} bytes")


def refused_parameter(field: str, message: str) -> Refusal:
    """Returns the refusal of an invalid parameter (code 40002)."""
    return Refusal(400, PARAMETER_REFUSED, message, field)


def envelope(
    status: int, *, code: str = "", message: str = "", field: str = "", data: dict[str, int] | None = None
) -> bytes:
    """Returns the JSON envelope of an answer (docs/reference/contract.md, section 1)."""
    error = {"code": code, "message": message, "field": field}
    return orjson.dumps({"status": status, "error": error, "data": data or {}})


def confirmation(inserted: int, deleted: int) -> Answer:
    """Returns the answer to a request that was applied, with the number of contacts that it changed."""
    return Answer(200, envelope(200, data={"countInserted": inserted, "countDeleted": deleted}))


def key_refusal(header: str | None, key_id: str, key_secret: str) -> Refusal | None:
    """Checks a Server-Key header; returns the refusal if it is invalid, else None.

    Args:
        header: the header as received; None if it is missing.
        key_id: the expected id; empty accepts any.
        key_secret: the expected secret; empty accepts any.
    """
    if not header:
        return Refusal(400, HEADER_REFUSED, "Request headers are required (Server-Key)")
    try:
        given_id, _, given_secret = base64.b64decode(header, validate=True).decode().partition(":")
    except ValueError:  # not base64, or not UTF-8 inside it
        given_id = given_secret = ""
    if not given_id or not given_secret:
        return Refusal(401, KEY_MALFORMED, "Server-Key must be base64 of ID:SECRET")
    if (key_id and given_id != key_id) or (key_secret and given_secret != key_secret):
        return Refusal(401, KEY_UNKNOWN, "Server-Key is unknown")
    return None


def read_records(body: bytes | bytearray) -> list[Record] | Refusal:
    """Returns the records of a request body, or the refusal of the request: one invalid record refuses them all."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return refused_parameter(CONTACTS_FIELD, "Request body must be valid JSON")
    contacts = parsed.get("contacts") if isinstance(parsed, dict) else None
    if not contacts:
        return refused_parameter(CONTACTS_FIELD, "Param 'contacts' cannot be empty")
    if not isinstance(contacts, list):
        return refused_parameter(CONTACTS_FIELD, "Param 'contacts' must be a list")
    records: list[Record] = []
    for item in contacts:
        if not isinstance(item, dict):
            return refused_parameter(CONTACTS_FIELD, "Param 'contacts' must hold objects")
        owner, contact, deleted = item.get("ownerXCUserID"), item.get("contactXCUserID"), item.get("isDeleted", False)
        if not (
            owner and isinstance(owner, str) and contact and isinstance(contact, str) and isinstance(deleted, bool)
        ):
            return _wrong_record(item)
        records.append((owner, contact, deleted))
    return records


def _wrong_record(item: dict[str, Any]) -> Refusal:
    """Returns the refusal for the first invalid field of a record."""
    for name, field in (("ownerXCUserID", OWNER_FIELD), ("contactXCUserID", CONTACT_FIELD)):
        value = item.get(name)
        if value is None or value == "":
            return refused_parameter(field, f"Param '{name}' cannot be empty")
        if not isinstance(value, str):
            return refused_parameter(field, f"Param '{name}' must be a string")
    return refused_parameter(IS_DELETED_FIELD, "Param 'isDeleted' must be true or false")
