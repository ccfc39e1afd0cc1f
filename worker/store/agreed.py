"""The number of partitions that producers and workers have agreed on, and what else is recorded once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import OutOfMemoryError

from producers.contract.errors import PartitionsMismatch, TooOld
from producers.contract.partitions import DEFAULT_PARTITIONS, FIRST_FORMAT, LOG_FORMAT, agree_partitions
from producers.nodes.trip import NodeAwayError
from worker.store import scripts
from worker.store.client import round_trip

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

    from producers.contract.keys import Keys
    from producers.settings import ProducerSettings


CLOSED: Final = re.compile(rb"^closed: the number of partitions became (\d{1,5})$")
"""The text in the place of a log that a repartition has closed."""

_FIRST_PARTITIONS: Final = 64
"""The first partition that a node has is one of so many, unless its slots are few."""

CLOSED_BEGINS: Final = "closed: the number of partitions became "
"""How that text begins."""


def closed_text(to: int) -> str:
    """The text for the place of a log that is closed because the number of partitions becomes `to`."""
    return f"{CLOSED_BEGINS}{to}"


def record_partitions(client: redis.Redis, keys: Keys, configured: int | None) -> int:
    """The recorded number of partitions; records it if nobody has yet, on a full Redis too.

    What fills it may be an inbox that no worker has seen. Its workers must be able to start, or nobody would empty it.

    Raises:
        PartitionsMismatch, UnknownLogFormat, TooOld, Repartitioning: as `agree_partitions` does.
        redis.RedisError: Redis does not answer, or refuses.
    """
    try:
        return agree_partitions(client, keys, configured)
    except OutOfMemoryError:
        record_new(client, keys, {"format": FIRST_FORMAT, "partitions": configured or DEFAULT_PARTITIONS})
        return agree_partitions(client, keys, configured)


def record_new(client: redis.Redis, keys: Keys, fields: Mapping[str, int]) -> None:
    """Records what nobody has recorded yet, on a full Redis too.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    scripts.run_one(
        client, scripts.Call(scripts.RECORD, [keys.config], [each for some in fields.items() for each in some])
    )


def agreed_partitions(client: redis.Redis, settings: ProducerSettings) -> int:
    """The recorded number of partitions, or the number that a new log would begin with; records nothing.

    Raises:
        PartitionsMismatch: another number is recorded than configured.
        UnknownLogFormat: another version of this package wrote the log.
        TooOld: the log needs a newer version: who looks into it must know as much as its workers.
        redis.RedisError: Redis does not answer, or refuses. If only the node of the configuration is away, the workers
            have noted the number on the others.
    """
    try:
        found: Any = client.hmget(settings.keys.config, ["partitions", "least_reader"])
    except NodeAwayError:
        noted = _noted_partitions(client, settings.keys)
        if noted is None:
            raise
        if settings.partitions not in {None, noted}:
            raise PartitionsMismatch(settings.partitions or 0, noted, settings.keys.namespace) from None
        return noted
    if found[0] is None:
        return settings.partitions or DEFAULT_PARTITIONS
    partitions = agree_partitions(client, settings.keys, settings.partitions)
    least_reader = int(found[1] or 0)
    if least_reader > LOG_FORMAT:
        raise TooOld("workers", least_reader, LOG_FORMAT, settings.keys.namespace)
    return partitions


def _noted_partitions(client: redis.Redis, keys: Keys) -> int | None:
    """The number that workers noted in the first partition of each node, None if none of them answers or has it."""
    asked = [("HGET", keys.partition(p), "fleet_partitions") for p in range(_FIRST_PARTITIONS)]
    return next((int(reply) for reply in round_trip(client, asked) if isinstance(reply, bytes)), None)
