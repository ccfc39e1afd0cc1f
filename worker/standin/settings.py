"""Settings of the stand-in endpoint, and the rate limit.

Unlike a fault, a setting applies to every request until it is changed or reset.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from worker.standin.rules import (
    CONTACT_FIELD,
    CONTACTS_FIELD,
    OWNER_FIELD,
    Pair,
    Refusal,
    refused_parameter,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.standin.rules import Record

DEFAULT_KEY = "stand-in"
"""Id and secret of the key that is accepted by default."""

LONGEST_SECONDS = 3600.0

Seconds: TypeAlias = Annotated[float, Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class StandInSettings(BaseModel):
    """How the stand-in endpoint treats every request.

    Attributes:
        key_id: id of the Server-Key it accepts; empty accepts any.
        key_secret: secret of the Server-Key it accepts; empty accepts any.
        latency_seconds: how long every request waits before it is processed.
        largest_batch: most records it accepts in one request; None for no limit.
        largest_batch_refusal: how it refuses more: HTTP 413, or HTTP 400 with code 40002 and field 101.
        id_max_characters: most characters in an id; a record with a longer one is refused. None for no limit.
        rate_limit_per_second: requests per second; further ones get HTTP 429 with Retry-After; None for no limit.
        poisoned: owner ids, contact ids or [owner, contact] pairs; a request with one of them is refused.
        poison_code: the error code of that refusal; 40002 names the field, others come with their own status.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key_id: str = Field(default=DEFAULT_KEY, pattern="^[^:]*$")
    key_secret: SecretStr = SecretStr(DEFAULT_KEY)
    latency_seconds: Seconds = 0.0
    largest_batch: Annotated[int, Field(ge=1)] | None = None
    largest_batch_refusal: Literal["413", "40002"] = "413"
    id_max_characters: Annotated[int, Field(ge=1)] | None = None
    rate_limit_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    poisoned: tuple[str | Pair, ...] = ()
    poison_code: Literal["40002", "40301", "40401", "99999"] = "40002"

    @field_validator("poisoned", mode="before")
    @classmethod
    def _ids_or_pairs(cls, given: object) -> tuple[str | Pair, ...]:
        """Reports an invalid entry in one line; pydantic would report one line for each type that it tried."""
        if not isinstance(given, list | tuple):
            raise ValueError("must be a list")  # noqa: TRY004 - pydantic converts only a ValueError
        return tuple(_id_or_pair(entry) for entry in given)

    def changed_by(self, other: StandInSettings) -> StandInSettings:
        """Returns these settings, replaced by those that were set explicitly in `other`."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})


class Limits:
    """The limits that the settings put on requests with a valid key and body."""

    def __init__(self, settings: StandInSettings, clock: Callable[[], float]) -> None:
        self._largest_batch = settings.largest_batch
        self._too_many = _too_many(settings)
        self._id_max = settings.id_max_characters
        self._ids = {entry for entry in settings.poisoned if isinstance(entry, str)}
        self._code = settings.poison_code
        self._pairs = {entry for entry in settings.poisoned if not isinstance(entry, str)}
        rate = settings.rate_limit_per_second
        self._rate = None if rate is None else RateLimit(rate, clock)

    def rate_refusal(self) -> Refusal | None:
        """Counts a request; returns a refusal if the rate limit is reached, else None."""
        wait_seconds = 0 if self._rate is None else self._rate.take()
        if wait_seconds == 0:
            return None
        return Refusal(429, "", "Too many requests", retry_after=str(wait_seconds))

    def records_refusal(self, records: list[Record]) -> Refusal | None:
        """Returns a refusal if there are too many records, or for the first too long or poisoned id; else None."""
        if self._largest_batch is not None and len(records) > self._largest_batch:
            return self._too_many
        too_long = None if self._id_max is None else _too_long(records, self._id_max)
        return too_long or (self._poison_refusal(records) if self._ids or self._pairs else None)

    def _poison_refusal(self, records: list[Record]) -> Refusal | None:
        for owner, contact, _ in records:
            bad = owner in self._ids or contact in self._ids or (owner, contact) in self._pairs
            if bad and self._code != "40002":
                status = int(self._code[:3]) if self._code != "99999" else 500
                return Refusal(status, self._code, "Permission denied, not found, or another error")
            if owner in self._ids:
                return refused_parameter(OWNER_FIELD, "Param 'ownerXCUserID' is not a known user")
            if contact in self._ids or (owner, contact) in self._pairs:
                return refused_parameter(CONTACT_FIELD, "Param 'contactXCUserID' is not a known user")
        return None


class RateLimit:
    """A token bucket that holds the permits of one second, at least one."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._room = max(1.0, per_second)
        self._permits = self._room
        self._filled_at = clock()

    def take(self) -> int:
        """Takes one permit and returns 0, or returns the whole seconds until the next permit."""
        now = self._clock()
        self._permits = min(self._room, self._permits + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._permits >= 1:
            self._permits -= 1
            return 0
        return math.ceil((1 - self._permits) / self._per_second)


def _too_long(records: list[Record], most: int) -> Refusal | None:
    for owner, contact, _ in records:
        if len(owner) > most:
            return refused_parameter(OWNER_FIELD, "Param 'ownerXCUserID' is too long")
        if len(contact) > most:
            return refused_parameter(CONTACT_FIELD, "Param 'contactXCUserID' is too long")
    return None


def _id_or_pair(entry: object) -> str | Pair:
    match entry:
        case str() if entry:
            return entry
        case [str(owner), str(contact)] if owner and contact:
            return (owner, contact)
        case _:
            raise ValueError("each entry must be an id, or a list of an owner's and a contact's id")


def _too_many(settings: StandInSettings) -> Refusal:
    message = f"Param 'contacts' cannot hold more than {settings.largest_batch}"
    if settings.largest_batch_refusal == "413":
        return Refusal(413, "", message)
    return refused_parameter(CONTACTS_FIELD, message)
