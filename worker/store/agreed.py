"""The number of partitions that producers and workers have agreed on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from producers.contract.errors import TooOld
from producers.contract.partitions import DEFAULT_PARTITIONS, LOG_FORMAT, agree_partitions

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
        TooOld: the log needs a newer version: who looks into it must know as much as its workers.
        redis.RedisError: Redis does not answer, or refuses.
    """
    found: Any = client.hmget(settings.keys.config, ["partitions", "least_reader"])
    if found[0] is None:
        return settings.partitions or DEFAULT_PARTITIONS
    partitions = agree_partitions(client, settings.keys, settings.partitions)
    least_reader = int(found[1] or 0)
    if least_reader > LOG_FORMAT:
        raise TooOld("workers", least_reader, LOG_FORMAT, settings.keys.namespace)
    return partitions
