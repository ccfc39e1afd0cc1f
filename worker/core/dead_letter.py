"""A dead letter as it is stored, and the change in it that can go back into the log (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from producers.contract.change import AT_MIN_MS, OPS, id_fault, source_fits
from worker.core.codec import Unreadable
from worker.core.entry import pair_of
from worker.core.pair import state_of, verdict
from worker.core.reasons import OF_RECORDS, READABLE
from worker.core.times import iso_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from producers.contract.change import Lane, Op
    from worker.core.pair import Remembered

DEAD_CAP: Final = 10_000
"""Most dead letters that a partition keeps. Then its log waits before the next malformed entry, and what the endpoint
refuses is parked; nothing is dropped."""


@dataclass(frozen=True, slots=True)
class RedrivableChange:
    """The change in a letter; `at` is the time of its entry if the change carried none."""

    owner: bytes
    contact: bytes
    op: Op
    at: int
    source: bytes

    @property
    def pair(self) -> bytes:
        """The hash field of its pair."""
        return pair_of(self.owner, self.contact)

    def outdated_by(self, known: Remembered | None) -> bool:
        """Whether something newer of the pair was confirmed, which this change would undo."""
        return verdict(state_of(self.op, self.at, self.at), known, "resend").op is None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter (contract, section 6).

    Attributes:
        id: `<partition>-<number>`.
        partition: the partition that stores it.
        owner, contact, op, at, source: of the change, each as far as it was readable.
        reason: one of `worker.core.reasons.REASONS`, or that of a newer version.
        code, field, message: what the endpoint answered.
        lane: the lane that the change came through, and goes back to if it is redriven.
        since_ms: when it became a dead letter (Unix ms).
        entry: id of the malformed entry, None if changes were joined.
        entry_ms: time of the entry (Unix ms).
        outdated: whether something newer of the pair was confirmed since.
        said: fields and values of the inbox's entry, in turn, if it did not fit the mapping.
    """

    id: str
    partition: int
    owner: str | None
    contact: str | None
    op: str | None
    at: int | None
    source: str | None
    reason: str
    code: str | None
    field: str | None
    message: str | None
    since_ms: int
    entry: str | None
    entry_ms: int | None
    outdated: bool = False
    lane: Lane = "live"
    said: Sequence[str] | None = None

    @property
    def counted_pair(self) -> bytes:
        """The pair that `dead:pairs` counts it under, empty if it counts under none."""
        if self.reason not in OF_RECORDS or self.owner is None or self.contact is None:
            return b""
        return pair_of(self.owner.encode(), self.contact.encode())

    @property
    def ids(self) -> Iterator[str]:
        """Whatever in it may be an id: owner, contact, and every value of a message that did not fit the mapping."""
        yield from (each for each in (self.owner, self.contact) if each is not None)
        yield from values_of(self.said or ())

    @property
    def redrivable(self) -> RedrivableChange | None:
        """The change to put back into the log, None if there is none: the entry broke a rule, and would again."""
        at = self.at or self.entry_ms or 0
        op = next((op for op in OPS if op == self.op), None)
        if self.reason not in READABLE or op is None or at < AT_MIN_MS:
            return None
        owner, contact = (self.owner or "").encode(), (self.contact or "").encode()
        if id_fault(owner) or id_fault(contact):
            return None
        source = (self.source or "").encode()
        return RedrivableChange(owner, contact, op, at, source if source_fits(source) else b"")

    def as_json(self) -> dict[str, Any]:
        """The fields of the contract, section 6, and the entry that it came from."""
        return {
            "id": self.id,
            "partition": self.partition,
            "owner": self.owner,
            "contact": self.contact,
            "op": self.op,
            "at": self.at,
            "source": self.source,
            "reason": self.reason,
            "code": self.code,
            "field": self.field,
            "message": self.message,
            "lane": self.lane,
            "since": iso_utc(self.since_ms),
            "outdated": self.outdated,
            "entry": self.entry,
            "entry_ms": self.entry_ms,
            "said": self.said,
        }


def read_letter(partition: int, letter_id: bytes, value: bytes) -> DeadLetter:
    """Decodes a letter as it was written when its partition was settled.

    Raises:
        Unreadable: it is something else.
    """
    try:
        return _read(partition, letter_id, orjson.loads(value))
    except (ValueError, KeyError, TypeError):
        shown = letter_id.decode("ascii", "replace") if len(letter_id) <= 20 else "with a long id"
        raise Unreadable(f"the dead letter {shown} in NAMESPACE:{{{partition}}}:dead") from None


def _read(partition: int, letter_id: bytes, found: Any) -> DeadLetter:
    return DeadLetter(
        id=letter_id.decode(),
        partition=partition,
        owner=text_or_none(found["owner"]),
        contact=text_or_none(found["contact"]),
        op=text_or_none(found["op"]),
        at=whole_or_none(found["at"]),
        source=found["source"],
        reason=found["reason"],
        code=found["code"],
        field=text_or_none(found["field"]),
        message=text_or_none(found["message"]),
        since_ms=found["since"],
        entry=found["entry"],
        entry_ms=found["entry_ms"],
        lane=found.get("lane", "live"),
        said=message_or_none(found.get("said")),
    )


def text_or_none(value: object) -> str | None:
    """The value if it is a text: anybody may write the message that a letter repeats."""
    return value if isinstance(value, str) else None


def whole_or_none(value: object) -> int | None:
    """The value if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def message_or_none(value: object) -> list[str] | None:
    """The value if it is fields and values of an entry, in turn."""
    whole = isinstance(value, list) and len(value) % 2 == 0 and all(isinstance(each, str) for each in value)
    return value if whole else None  # type: ignore[return-value] # which it is by now


def values_of(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts, and every text and number in those of them that are JSON."""
    left: list[Any] = list(texts)
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, str | int) and not isinstance(value, bool):
            yield str(value)
            found = _as_json(value) if isinstance(value, str) else None
            if isinstance(found, dict | list):
                left.append(found)


def _as_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
