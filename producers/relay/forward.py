"""Forwards an outbox, lane by lane and batch by batch, whichever library reads its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import redis

from producers.contract.change import AT_AHEAD_MS, ContactChange, check_id_characters
from producers.contract.errors import InvalidChange
from producers.nodes.trip import NodeAwayError
from producers.send.errors import NotAccepted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from producers.producer import ContactProducer
    from producers.send.pressure import BulkPermit

Row = TypeVar("Row", bound=Mapping[Any, Any])

BATCH: Final = 500
"""Changes sent in one transaction."""

REASON_MAX: Final = 200
"""Longest reason, in characters, that the column `refused` can hold."""

_REDIS_AWAY: Final = (redis.ConnectionError, redis.TimeoutError, OSError)
_FIELDS: Final = ("owner", "contact", "op", "at", "source", "traceparent")

DELIVERY_LANE: Final = "delivery_lane"
"""The column with the change's lane, ``live`` or ``bulk``; the column ``lane`` is the one a relay locks by."""

COLUMNS: Final = (*_FIELDS, DELIVERY_LANE)
"""The columns of a change."""


class Relayed(NamedTuple):
    """The result of one run.

    Attributes:
        forwarded: how many changes are now in the log and no longer in the outbox.
        refused: how many rows break a rule of the contract. They stay, marked with the reason, and are skipped.
        cause: the first error that kept the run from forwarding everything, None if there was none.
        bulk_waits: why bulk changes stay in the outbox for now, in words; empty if they do not.
    """

    forwarded: int
    refused: int
    cause: Exception | None = None
    bulk_waits: str = ""


class Waiting(NamedTuple):
    """What is in the outbox.

    Attributes:
        changes: how many changes are committed and not yet forwarded.
        oldest_at: when the oldest of them happened, in Unix milliseconds; None if there is none.
        refused: how many rows cannot be sent.
    """

    changes: int
    oldest_at: int | None
    refused: int


class Sent(NamedTuple):
    """The result for the rows of one batch.

    Attributes:
        ids: ids of the rows that are in the log, to be removed.
        refused: ids of the rows that break a rule, each with that rule.
        cause: the error that kept other rows from the log, None if there was none.
    """

    ids: Sequence[int]
    refused: Sequence[tuple[int, str]]
    cause: Exception | None

    def counted(self) -> Relayed:
        """Returns the same as numbers."""
        return Relayed(len(self.ids), len(self.refused), self.cause)


def forward_all(
    producer: ContactProducer,
    forward_one: Callable[[set[int]], tuple[int, Relayed] | None],
    bulk: BulkPermit,
    batches: int | None = None,
) -> Relayed:
    """Forwards lane by lane until nothing is left that may be sent: bulk changes stay while Redis is filling up.

    Args:
        producer: appends to the log.
        forward_one: forwards one batch of a lane that is not in the given set, and returns the lane and the result;
            None if no such lane has anything to forward.
        bulk: whether bulk changes may be sent.
        batches: how many batches to forward at most; None for no limit.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log does not fit the configuration.
    """
    forwarded = refused = 0
    cause: Exception | None = None
    stuck: set[int] = set()
    try:
        producer.ping()  # before any lock: on SQLite the app itself would wait for it
    except (redis.RedisError, OSError) as error:
        return Relayed(0, 0, error)
    bulk.renew()
    while batches is None or batches > 0:
        passed = set(stuck)  # each lane once before any lane twice, so that a long lane delays no other
        while (batches is None or batches > 0) and (one := forward_one(passed)) is not None:
            lane, done = one
            batches = None if batches is None else batches - 1
            passed.add(lane)
            forwarded, refused = forwarded + done.forwarded, refused + done.refused
            if done.cause is not None:
                cause = cause or done.cause
                stuck.add(lane)
                if isinstance(done.cause, _REDIS_AWAY) and not isinstance(done.cause, NodeAwayError):
                    return Relayed(forwarded, refused, cause, bulk.refused)
        if passed == stuck:
            break
    return Relayed(forwarded, refused, cause, bulk.refused)


def take_rows(read: Callable[[bool], Sequence[Row]], bulk: BulkPermit) -> Sequence[Row]:
    """Returns the oldest rows of a lane: without those of the bulk lane while these may not be sent.

    Args:
        read: reads the oldest rows; only those of the live lane if it is given True.
        bulk: whether bulk changes may be sent.
    """
    rows = read(bool(bulk.refused))
    if any(row[DELIVERY_LANE] == "bulk" for row in rows) and not bulk.given():
        return read(True)
    return rows


def send_rows(
    producer: ContactProducer, rows: Iterable[tuple[int, Mapping[str, Any]]], now_epoch_seconds: float
) -> Sent:
    """Sends the rows of a lane, in order.

    Args:
        producer: appends to the log.
        rows: each row's id and its columns.
        now_epoch_seconds: the current Unix time; no change may be much ahead of it.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log does not fit the configuration.
    """
    fits: list[tuple[int, ContactChange]] = []
    refused: list[tuple[int, str]] = []
    for row_id, columns in rows:
        try:
            fits.append((row_id, _change_of(columns, now_epoch_seconds, producer.id_max)))
        except InvalidChange as error:  # somebody wrote the row by hand, or under other settings
            refused.append((row_id, error.rule[:REASON_MAX]))
    failed: set[tuple[str, str]] = set()
    cause: Exception | None = None
    try:
        producer.send([change for _, change in fits])
    except NotAccepted as error:
        # All changes of such a pair are sent again, the accepted ones too, so that they arrive in order.
        failed, cause = {(each.owner, each.contact) for each in error.changes}, error.cause
    return Sent([row_id for row_id, change in fits if (change.owner, change.contact) not in failed], refused, cause)


def _change_of(columns: Mapping[str, Any], now_epoch_seconds: float, id_max: int) -> ContactChange:
    change = ContactChange(**{name: columns[name] for name in _FIELDS}, lane=columns[DELIVERY_LANE])
    check_id_characters(change, id_max)
    if change.at is None or change.at > now_epoch_seconds * 1000 + AT_AHEAD_MS:
        raise InvalidChange(f"at must be at most {AT_AHEAD_MS // 60_000} minutes ahead")
    return change
