"""The number of partitions that producers and workers have agreed on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from producers.contract.partitions import DEFAULT_PARTITIONS, agree_partitions

if TYPE_CHECKING:
    import redis

    from producers.settings import ProducerSettings


CLOSED: Final = re.compile(rb"^closed: the number of partitions became (\d{1,5})$")
"""The text in the place of a log that a repartition has closed."""

CLOSED_BEGINS: Final = "closed: the number of partitions became "
"""How that text begins."""


def closed_text(to: int) -> str:
    """The text for the place of a log that is closed because the number of partitions becomes `to`."""
    return f"{CLOSED_BEGINS}{to}"


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
