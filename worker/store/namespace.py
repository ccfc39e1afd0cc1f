"""Where one namespace lives: the Redis that holds it, its keys, and the number of its partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import redis

    from producers.contract.keys import Keys


class Namespace(NamedTuple):
    """One namespace in Redis.

    Attributes:
        client: a client of its Redis.
        keys: its keys.
        partitions: how many partitions it has.
    """

    client: redis.Redis
    keys: Keys
    partitions: int
