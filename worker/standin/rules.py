"""What the endpoint accepts and how it answers: CONTRACT section 1 as pure functions.

Nothing here remembers, waits or touches a socket. A request body becomes records or a refusal,
a header becomes nothing or a refusal, and every answer is built here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

SYNC_PATH = "/v1/server/contact/sync"
"""Where contacts are posted (CONTRACT section 1)."""

BODY_LIMIT_BYTES = 8 * 1024 * 1024
"""Largest request body that is read; a longer one is answered with HTTP 413."""

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
"""One line of a request: owner, contact, whether it deletes. A plain tuple, as there are 500 to a request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, whole.

    Attributes:
        status: HTTP status.
        body: the bytes after the headers.
        code: the envelope's error code, empty when it confirms or is no envelope.
        headers: further headers; content type and length are added where it is sent.
    """

    status: int
    body: bytes
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request changes nothing.

    Attributes:
        status: HTTP status, and the envelope's own.
        code: error code of the platform; empty where CONTRACT section 1 knows none.
        message: for people; never repeats an id or a key.
        field: number of the field at fault, or empty.
        retry_after: value of the Retry-After header, if there is to be one.
    """

    status: int
    code: str
    message: str
    field: str = ""
    retry_after: str | None = None

    def answer(self) -> Answer:
        """The refusal as it goes out."""
        body = envelope(self.status, code=self.code, message=self.message, field=self.field)
        headers = () if self.retry_after is None else (("retry-after", self.retry_after),)
        return Answer(self.status, body, self.code, headers)


TOO_LARGE = Refusal(413, "", f"Request body cannot be longer than {BODY_LIMIT_BYTES} bytes")


def refused_parameter(field: str, message: str) -> Refusal:
    """A parameter of the request is not what it must be (code 40002)."""
    return Refusal(400, PARAMETER_REFUSED, message, field)


def envelope(
    status: int, *, code: str = "", message: str = "", field: str = "", data: dict[str, int] | None = None
) -> bytes:
    """The JSON that every answer of the endpoint is wrapped in (CONTRACT section 1)."""
    error = {"code": code, "message": message, "field": field}
    return orjson.dumps({"status": status, "error": error, "data": data or {}})


def confirmation(inserted: int, deleted: int) -> Answer:
    """The answer to a request that was applied, with what it really changed."""
    return Answer(200, envelope(200, data={"countInserted": inserted, "countDeleted": deleted}))


def key_refusal(header: str | None, key_id: str, key_secret: str) -> Refusal | None:
    """What is wrong with a Server-Key header, if anything.

    Args:
        header: the header as it came, None when there was none.
        key_id: the id to expect; empty accepts any.
        key_secret: the secret to expect; empty accepts any.
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
    """The records of a request body, or why the whole request is refused: one wrong record refuses them all."""
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
    """The first field at fault of a record that has one."""
    for name, field in (("ownerXCUserID", OWNER_FIELD), ("contactXCUserID", CONTACT_FIELD)):
        value = item.get(name)
        if value is None or value == "":
            return refused_parameter(field, f"Param '{name}' cannot be empty")
        if not isinstance(value, str):
            return refused_parameter(field, f"Param '{name}' must be a string")
    return refused_parameter(IS_DELETED_FIELD, "Param 'isDeleted' must be true or false")
