"""What every relay does with an outbox, whichever library reads its tables: lane by lane, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis

from producers.contract.change import AT_AHEAD_MS, ContactChange
from producers.contract.errors import InvalidChange, NotAccepted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from producers.producer import ContactProducer

BATCH: Final = 500
"""Changes sent in one transaction."""

REASON_MAX: Final = 200
"""Longest reason that the column `refused` takes."""

FIELDS: Final = ("owner", "contact", "op", "at", "source", "traceparent")
"""The columns of a change."""


class Relayed(NamedTuple):
    """What one run did.

    Attributes:
        forwarded: changes that are in the log now and no longer in the outbox.
        refused: rows that break a rule of the contract: they stay, marked with the reason, and are skipped.
        cause: what kept the run from forwarding all, None if nothing did.
    """

    forwarded: int
    refused: int
    cause: Exception | None = None


class Waiting(NamedTuple):
    """What lies in the outbox.

    Attributes:
        changes: committed and not forwarded.
        oldest_at: when the oldest of them happened (Unix ms), None if there is none.
        refused: rows that cannot be sent.
    """

    changes: int
    oldest_at: int | None
    refused: int


class Sent(NamedTuple):
    """What became of the rows of one batch.

    Attributes:
        ids: of those that are in the log, to be removed.
        refused: ids of those that break a rule, each with that rule.
        cause: what kept others from the log, None if nothing did.
    """

    ids: Sequence[int]
    refused: Sequence[tuple[int, str]]
    cause: Exception | None

    def told(self) -> Relayed:
        """The same in numbers."""
        return Relayed(len(self.ids), len(self.refused), self.cause)


def forward_all(
    producer: ContactProducer,
    forward_one: Callable[[set[int]], tuple[int, Relayed] | None],
    batches: int | None = None,
) -> Relayed:
    """Forwards lane by lane until nothing is left.

    Args:
        producer: what appends to the log.
        forward_one: one batch of a lane that is none of those given, which says which; None where there is none.
        batches: after how many to return although there may be more; None for no bound.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log was begun otherwise than configured.
    """
    forwarded = refused = 0
    cause: Exception | None = None
    stuck: set[int] = set()
    try:
        producer.ping()  # before any lock: on SQLite the app itself would wait with us
    except (redis.RedisError, OSError) as error:
        return Relayed(0, 0, error)
    while batches is None or batches > 0:
        passed = set(stuck)  # each lane once before any twice, so that a long one holds up no other
        while (batches is None or batches > 0) and (one := forward_one(passed)) is not None:
            lane, done = one
            batches = None if batches is None else batches - 1
            passed.add(lane)
            forwarded, refused = forwarded + done.forwarded, refused + done.refused
            if done.cause is not None:
                cause = cause or done.cause
                stuck.add(lane)
                if isinstance(done.cause, (redis.ConnectionError, redis.TimeoutError, OSError)):
                    return Relayed(forwarded, refused, cause)
        if passed == stuck:
            break
    return Relayed(forwarded, refused, cause)


def send_rows(
    producer: ContactProducer, rows: Iterable[tuple[int, Mapping[str, Any]]], now_epoch_seconds: float
) -> Sent:
    """Sends the rows of a lane, in order.

    Args:
        producer: what appends to the log.
        rows: each row's id and its columns.
        now_epoch_seconds: the time, which no change may be much ahead of.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log was begun otherwise than configured.
    """
    fits: list[tuple[int, ContactChange]] = []
    refused: list[tuple[int, str]] = []
    for row_id, columns in rows:
        try:
            fits.append((row_id, _change_of(columns, now_epoch_seconds)))
        except InvalidChange as error:  # somebody wrote it by hand
            refused.append((row_id, error.rule[:REASON_MAX]))
    failed: set[tuple[str, str]] = set()
    cause: Exception | None = None
    try:
        producer.send([change for _, change in fits])
    except NotAccepted as error:
        # What came through of such a pair comes again with the rest of it, behind what did not: in order.
        failed, cause = {(each.owner, each.contact) for each in error.changes}, error.cause
    return Sent([row_id for row_id, change in fits if (change.owner, change.contact) not in failed], refused, cause)


def _change_of(columns: Mapping[str, Any], now_epoch_seconds: float) -> ContactChange:
    change = ContactChange(**{name: columns[name] for name in FIELDS})
    if change.at is None or change.at > now_epoch_seconds * 1000 + AT_AHEAD_MS:
        raise InvalidChange(f"at must be at most {AT_AHEAD_MS // 60_000} minutes ahead")
    return change
