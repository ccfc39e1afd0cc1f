"""Forwards an outbox, lane by lane and batch by batch, whichever library reads its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import redis

from producers.contract.change import AT_AHEAD_MS, ContactChange, check_id_characters, partition_of
from producers.contract.errors import InvalidChange
from producers.nodes.trip import NodeAwayError
from producers.send.errors import NotAccepted, others_may_go_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from producers.producer import ContactProducer
    from producers.send.pressure import BulkPermit

Row = TypeVar("Row", bound=Mapping[Any, Any])
_Row_co = TypeVar("_Row_co", bound=Mapping[Any, Any], covariant=True)

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
        partly: whether the cause concerns some partitions alone, and what the outbox holds of the others was forwarded.
    """

    forwarded: int
    refused: int
    cause: Exception | None = None
    bulk_waits: str = ""
    partly: bool = False


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


class LaneRows(Protocol[_Row_co]):
    """The rows of one lane that wait, oldest first."""

    @property
    def lane(self) -> int:
        """Its number."""

    def oldest(self, limit: int, *, live_only: bool) -> Sequence[_Row_co]:
        """Returns the oldest rows; only those of the live lane if ``live_only``."""

    def owners(self, limit: int, *, live_only: bool) -> Sequence[tuple[int, str]]:
        """Returns the ids and owners of as many of the oldest rows, as one statement sees them."""

    def read(self, ids: Sequence[int]) -> Sequence[_Row_co]:
        """Returns those of these rows that still wait."""


class Run:
    """One run of a relay. It passes over the rows of a partition once one of them was not accepted in it.

    No row overtakes an older one of its owner: what is behind the rows that are passed over is found by one statement,
    which sees every row that was committed before the newest that it sees.

    Args:
        producer: appends to the log.
    """

    def __init__(self, producer: ContactProducer) -> None:
        self.producer: Final = producer
        self._held: set[int] = set()
        self._found: dict[tuple[int, bool], list[tuple[int, str]]] = {}

    @property
    def held(self) -> int:
        """How many partitions are passed over."""
        return len(self._held)

    def hold(self, error: NotAccepted) -> None:
        """Passes over the partitions of what was not accepted, if those of others may go on."""
        partitions = self.producer.partitions
        if partitions and others_may_go_on(error.cause, cluster=self.producer.is_cluster):
            self._held.update(partition_of(each.owner, partitions) for each in error.changes)

    def next_rows(self, rows: LaneRows[Row], *, live_only: bool) -> Sequence[Row]:
        """Returns the oldest rows of a lane that may be sent; only those of the live lane if ``live_only``."""
        if not self._held:
            return rows.oldest(BATCH, live_only=live_only)
        found = self._found.setdefault((rows.lane, live_only), [])
        while True:
            free = [each for each in found if self._may_go(each[1])] or self._search(rows, live_only=live_only)
            found[:] = free[BATCH:]
            if not free or (batch := rows.read([row_id for row_id, _ in free[:BATCH]])):
                return batch if free else []

    def forget(self, lane: int) -> None:
        """Forgets what was found in a lane: what was taken of it is not sent."""
        self._found.pop((lane, False), None)

    def _may_go(self, owner: str) -> bool:
        return partition_of(owner, self.producer.partitions or 1) not in self._held

    def _search(self, rows: LaneRows[Row], *, live_only: bool) -> list[tuple[int, str]]:
        limit = BATCH
        while True:
            limit *= 4
            there = rows.owners(limit, live_only=live_only)
            free = [each for each in there if self._may_go(each[1])]
            if free or len(there) < limit:
                return free


def forward_all(
    producer: ContactProducer,
    forward_one: Callable[[set[int], Run], tuple[int, Relayed] | None],
    bulk: BulkPermit,
    batches: int | None = None,
) -> Relayed:
    """Forwards lane by lane until nothing is left that may be sent: bulk changes stay while Redis is filling up.

    Args:
        producer: appends to the log.
        forward_one: forwards one batch of a lane that is not in the given set, in this run, and returns the lane and
            the result; None if no such lane has anything to forward.
        bulk: whether bulk changes may be sent.
        batches: how many batches to forward at most; None for no limit.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log does not fit the configuration.
    """
    forwarded = refused = 0
    cause: Exception | None = None
    stuck: set[int] = set()
    run = Run(producer)
    partly = True
    try:
        producer.ping()  # before any lock: on SQLite the app itself would wait for it
    except (redis.RedisError, OSError) as error:
        return Relayed(0, 0, error)
    bulk.renew()
    while batches is None or batches > 0:
        passed = set(stuck)  # each lane once before any lane twice, so that a long lane delays no other
        while batches is None or batches > 0:
            held = run.held
            one = forward_one(passed, run)
            if one is None:
                break
            lane, done = one
            batches = None if batches is None else batches - 1
            passed.add(lane)
            forwarded, refused = forwarded + done.forwarded, refused + done.refused
            if done.cause is not None:
                cause = cause or done.cause
                if isinstance(done.cause, _REDIS_AWAY) and not isinstance(done.cause, NodeAwayError):
                    return Relayed(forwarded, refused, cause, bulk.refused)
            if run.held == held and (done.cause is not None or not done.forwarded + done.refused):
                stuck.add(lane)  # nothing is left that may be sent
                partly = partly and done.cause is None
        if passed == stuck:
            break
    return Relayed(forwarded, refused, cause, bulk.refused, partly=cause is not None and partly)


def take_rows(rows: LaneRows[Row], run: Run, bulk: BulkPermit) -> Sequence[Row]:
    """Returns the oldest rows of a lane that may be sent: without those of the bulk lane while these may not be.

    Args:
        rows: of the lane.
        run: which partitions are passed over.
        bulk: whether bulk changes may be sent.
    """
    taken = run.next_rows(rows, live_only=bool(bulk.refused))
    if any(row[DELIVERY_LANE] == "bulk" for row in taken) and not bulk.given():
        run.forget(rows.lane)
        return run.next_rows(rows, live_only=True)
    return taken


def send_rows(run: Run, rows: Iterable[tuple[int, Mapping[str, Any]]], now_epoch_seconds: float) -> Sent:
    """Sends the rows of a lane, in order.

    Args:
        run: knows which partitions are passed over.
        rows: each row's id and its columns.
        now_epoch_seconds: the current Unix time; no change may be much ahead of it.

    Raises:
        PartitionsMismatch, UnknownLogFormat: the log does not fit the configuration.
    """
    fits: list[tuple[int, ContactChange]] = []
    refused: list[tuple[int, str]] = []
    for row_id, columns in rows:
        try:
            fits.append((row_id, _change_of(columns, now_epoch_seconds, run.producer.id_max)))
        except InvalidChange as error:  # somebody wrote the row by hand, or under other settings
            refused.append((row_id, error.rule[:REASON_MAX]))
    failed: set[tuple[str, str]] = set()
    cause: Exception | None = None
    try:
        run.producer.send([change for _, change in fits])
    except NotAccepted as error:
        # All changes of such a pair are sent again, the accepted ones too, so that they arrive in order.
        failed, cause = {(each.owner, each.contact) for each in error.changes}, error.cause
        if error.interrupted is not None:  # the clock went back since it was checked: what follows was not sent either
            failed = {(change.owner, change.contact) for _, change in fits}
        run.hold(error)
    except InvalidChange as error:  # the same, and all before it are in the log
        failed, cause = {(change.owner, change.contact) for _, change in fits[error.index or 0 :]}, error
    return Sent([row_id for row_id, change in fits if (change.owner, change.contact) not in failed], refused, cause)


def _change_of(columns: Mapping[str, Any], now_epoch_seconds: float, id_max: int) -> ContactChange:
    change = ContactChange(**{name: columns[name] for name in _FIELDS}, lane=columns[DELIVERY_LANE])
    check_id_characters(change, id_max)
    if change.at is None or change.at > now_epoch_seconds * 1000 + AT_AHEAD_MS:
        raise InvalidChange(f"at must be at most {AT_AHEAD_MS // 60_000} minutes ahead")
    return change
