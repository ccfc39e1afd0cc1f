"""The number of partitions, agreed once for all through Redis (CONTRACT section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from producers.contract.errors import PartitionsMismatch, Repartitioning, UnknownLogFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    import redis.asyncio

    from producers.contract.keys import Keys

DEFAULT_PARTITIONS: Final = 64
MAX_PARTITIONS: Final = 16384
"""As many as a Redis Cluster has slots; more could not be spread any further."""
_AGREED: Final = ("partitions", "format", "repartitioning")
LOG_FORMAT: Final = 1
"""Version of the log and of the state beside it; one that does not know it must leave both alone."""


def agree_partitions(client: redis.Redis, keys: Keys, configured: int | None) -> int:
    """The number of partitions that the log has, which is recorded now if nobody did before.

    Args:
        client: a client of the log's Redis.
        keys: the namespace's keys.
        configured: the number that the caller is configured with, or None to take the recorded one.

    Raises:
        PartitionsMismatch: another number is configured than recorded.
        UnknownLogFormat: what is recorded was written by another version.
        Repartitioning: the number is being changed.
        redis.RedisError: Redis did not answer, or refused.
    """
    # Read before writing: a full Redis refuses HSETNX, and a log that has begun can do without.
    recorded: Any = client.hmget(keys.config, _AGREED)
    if recorded[0] is None:
        # The format goes first, so that a recorded number always has one.
        client.hsetnx(keys.config, "format", str(LOG_FORMAT))
        client.hsetnx(keys.config, "partitions", str(configured or DEFAULT_PARTITIONS))
        recorded = client.hmget(keys.config, _AGREED)
    return _agreed(recorded, configured, keys.namespace)


async def agree_partitions_async(client: redis.asyncio.Redis, keys: Keys, configured: int | None) -> int:
    """``agree_partitions`` with ``await``."""
    recorded: Any = await client.hmget(keys.config, _AGREED)
    if recorded[0] is None:
        await client.hsetnx(keys.config, "format", str(LOG_FORMAT))
        await client.hsetnx(keys.config, "partitions", str(configured or DEFAULT_PARTITIONS))
        recorded = await client.hmget(keys.config, _AGREED)
    return _agreed(recorded, configured, keys.namespace)


def _agreed(recorded: Sequence[Any], configured: int | None, namespace: str) -> int:
    # int() reads bytes and text alike, so a client that decodes its replies serves too.
    try:
        partitions, log_format, changing = int(recorded[0]), int(recorded[1] or LOG_FORMAT), int(recorded[2] or 0)
    except (TypeError, ValueError):
        raise UnknownLogFormat(f"what is recorded of the log of namespace {namespace!r} is not readable") from None
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
