"""The number of partitions of a log: recorded once, and the same for everyone (contract, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from producers.contract.errors import PartitionsMismatch, Repartitioning, TooOld, UnknownLogFormat
from producers.contract.query import Query, ask, unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from producers.contract.keys import Keys
    from producers.contract.query import Asking, Command

DEFAULT_PARTITIONS: Final = 64
MAX_PARTITIONS: Final = 16384
"""A Redis Cluster has as many slots; more partitions could not be spread any further."""
LOG_FORMAT: Final = 2
"""Newest form of the log and of the state beside it that this version knows.

1: one log for each partition, and one hash of pairs that wait. 2: two lanes, and a hash for each class of such pairs.
"""
FIRST_FORMAT: Final = 1
"""What is recorded for a log that no worker has read yet."""
_AGREED: Final = ("partitions", "format", "repartitioning", "least_reader", "least_writer")


class Agreed(NamedTuple):
    """What is recorded of a log.

    Attributes:
        partitions: their number.
        lanes: whether changes may take the bulk lane: not while workers of an older version, which do not read it, may
            still take over.
    """

    partitions: int
    lanes: bool


def agree_partitions(client: redis.Redis, keys: Keys, configured: int | None) -> int:
    """Returns the log's number of partitions, and records it if nobody has yet.

    Args:
        client: a client of the log's Redis.
        keys: the namespace's keys.
        configured: the caller's configured number, or None to take the recorded one.

    Raises:
        PartitionsMismatch: the configured number differs from the recorded one.
        UnknownLogFormat: another version wrote the record.
        TooOld: the log needs a newer producer.
        Repartitioning: the number is being changed.
        redis.RedisError: Redis did not answer, or refused, or is none.
    """
    asking = agreement(keys, configured)
    query = next(asking)
    while True:
        replies = ask(client, query)
        try:
            query = asking.send(replies)
        except StopIteration as end:
            agreed: Agreed = end.value
            return agreed.partitions


def agreement(keys: Keys, configured: int | None) -> Asking[Agreed]:
    """``agree_partitions`` without the I/O."""
    read: Command = ("HMGET", keys.config, *_AGREED)
    # Read before writing: a full Redis refuses HSETNX, and a log that exists does not need it.
    [recorded] = yield Query((read,))
    if not isinstance(recorded, list) or len(recorded) != len(_AGREED):
        raise unreadable(TypeError("is it Redis?"))
    if recorded[0] is None:
        # The format goes first, so that a recorded number always has one.
        yield Query((("HSETNX", keys.config, "format", str(FIRST_FORMAT)),))
        yield Query((("HSETNX", keys.config, "partitions", str(configured or DEFAULT_PARTITIONS)),))
        [recorded] = yield Query((read,))
    return _agreed(recorded, configured, keys.namespace)


def _agreed(recorded: Sequence[Any], configured: int | None, namespace: str) -> Agreed:
    # int() reads bytes and text, so a client that decodes its replies works as well.
    try:
        partitions, log_format, changing, least_reader, least_writer = (int(each or 0) for each in recorded)
    except (TypeError, ValueError):
        raise UnknownLogFormat(f"the recorded configuration of namespace {namespace!r} cannot be read") from None
    # Who keeps a newer form tells who can still take part in it; else the form itself must be one that we know.
    least_writer = least_writer or log_format or FIRST_FORMAT
    if least_writer > LOG_FORMAT:
        raise TooOld("producers", least_writer, LOG_FORMAT, namespace)
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise UnknownLogFormat(
            f"the log of namespace {namespace!r} has {partitions} partitions; "
            f"this version knows 1 to {MAX_PARTITIONS} partitions",
        )
    if changing:
        raise Repartitioning(changing, namespace)
    if configured is not None and configured != partitions:
        raise PartitionsMismatch(configured, partitions, namespace)
    return Agreed(partitions, lanes=least_reader != FIRST_FORMAT)
