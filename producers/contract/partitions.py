"""The number of partitions of a log: recorded once, and the same for everyone (contract, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from producers.contract.errors import PartitionsMismatch, Repartitioning, UnknownLogFormat
from producers.contract.query import Query, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from producers.contract.keys import Keys
    from producers.contract.query import Asking, Command

DEFAULT_PARTITIONS: Final = 64
MAX_PARTITIONS: Final = 16384
"""A Redis Cluster has as many slots; more partitions could not be spread any further."""
LOG_FORMAT: Final = 1
"""Version of the log and of the state beside it. A program that does not know the recorded version changes neither."""
_AGREED: Final = ("partitions", "format", "repartitioning")


def agree_partitions(client: redis.Redis, keys: Keys, configured: int | None) -> int:
    """Returns the log's number of partitions, and records it if nobody has yet.

    Args:
        client: a client of the log's Redis.
        keys: the namespace's keys.
        configured: the caller's configured number, or None to take the recorded one.

    Raises:
        PartitionsMismatch: the configured number differs from the recorded one.
        UnknownLogFormat: another version wrote the record.
        Repartitioning: the number is being changed.
        redis.RedisError: Redis did not answer, or refused.
    """
    asking = agreement(keys, configured)
    query = next(asking)
    while True:
        replies = ask(client, query)
        try:
            query = asking.send(replies)
        except StopIteration as end:
            partitions: int = end.value
            return partitions


def agreement(keys: Keys, configured: int | None) -> Asking[int]:
    """``agree_partitions`` without the I/O."""
    read: Command = ("HMGET", keys.config, *_AGREED)
    # Read before writing: a full Redis refuses HSETNX, and a log that exists does not need it.
    [recorded] = yield Query((read,))
    if recorded[0] is None:
        # The format goes first, so that a recorded number always has one.
        yield Query((("HSETNX", keys.config, "format", str(LOG_FORMAT)),))
        yield Query((("HSETNX", keys.config, "partitions", str(configured or DEFAULT_PARTITIONS)),))
        [recorded] = yield Query((read,))
    return _agreed(recorded, configured, keys.namespace)


def _agreed(recorded: Sequence[Any], configured: int | None, namespace: str) -> int:
    # int() reads bytes and text, so a client that decodes its replies works as well.
    try:
        partitions, log_format, changing = int(recorded[0]), int(recorded[1] or LOG_FORMAT), int(recorded[2] or 0)
    except (TypeError, ValueError):
        raise UnknownLogFormat(f"the recorded configuration of namespace {namespace!r} cannot be read") from None
    if log_format != LOG_FORMAT or not 1 <= partitions <= MAX_PARTITIONS:
        raise UnknownLogFormat(
            f"the log of namespace {namespace!r} has format {log_format} and {partitions} partitions; "
            f"this version knows format {LOG_FORMAT} and 1 to {MAX_PARTITIONS} partitions",
        )
    if changing:
        raise Repartitioning(changing, namespace)
    if configured is not None and configured != partitions:
        raise PartitionsMismatch(configured, partitions, namespace)
    return partitions
