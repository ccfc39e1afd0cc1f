"""Makes the options of a pool of connections from a URL of Redis, whatever kind it is."""

from __future__ import annotations

from typing import Any

import redis.asyncio.connection
import redis.connection

from producers.nodes.sentinel import Sentinels, async_master_options, master_options
from producers.nodes.url import parse_redis_url


def pool_options(url: str, **options: Any) -> dict[str, Any]:
    """Returns the options of a pool; what the URL says takes precedence over ``options``.

    Raises:
        ValueError: the URL is invalid.
    """
    parsed = parse_redis_url(url)
    given: dict[str, Any] = redis.connection.parse_url(parsed.single)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
    merged = {**options, **given}
    if parsed.kind == "single":
        return merged
    tls = merged.pop("connection_class", None) is not None
    return master_options(Sentinels(parsed.addresses, parsed.master), merged, tls=tls)


def async_pool_options(url: str, **options: Any) -> dict[str, Any]:
    """``pool_options`` for asyncio."""
    parsed = parse_redis_url(url)
    merged = {**options, **redis.asyncio.connection.parse_url(parsed.single)}
    if parsed.kind == "single":
        return merged
    tls = merged.pop("connection_class", None) is not None
    return async_master_options(Sentinels(parsed.addresses, parsed.master), merged, tls=tls)
