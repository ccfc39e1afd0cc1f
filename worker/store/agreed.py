"""The number of partitions that producers and workers have agreed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from producers.contract.partitions import DEFAULT_PARTITIONS, agree_partitions

if TYPE_CHECKING:
    import redis

    from producers.settings import ProducerSettings


def agreed_partitions(client: redis.Redis, settings: ProducerSettings) -> int:
    """The recorded number of partitions, or the number that a new log would begin with; records nothing.

    Raises:
        PartitionsMismatch: another number is recorded than configured.
        UnknownLogFormat: another version of this package wrote the log.
        redis.RedisError: Redis does not answer, or refuses.
    """
    if not client.hexists(settings.keys.config, "partitions"):
        return settings.partitions or DEFAULT_PARTITIONS
    return agree_partitions(client, settings.keys, settings.partitions)
