"""Makes the options of a pool of connections from a URL of Redis, whatever kind it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis.asyncio.connection
import redis.connection

from producers.nodes.cluster import AsyncClusterClient, ClusterClient
from producers.nodes.driver import DRIVER
from producers.nodes.exchange import pack
from producers.nodes.sentinel import Sentinels, async_master_options, master_options
from producers.nodes.url import parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from producers.nodes.url import Address


def is_cluster(url: str) -> bool:
    """Whether the URL is that of a cluster."""
    return url.startswith(("redis+cluster://", "rediss+cluster://"))


def cluster_client(url: str, packed: Callable[[Sequence[Any]], bytes] = pack, **options: Any) -> ClusterClient:
    """Makes a client of a cluster; what the URL says takes precedence over ``options``.

    Raises:
        ValueError: the URL is invalid.
    """
    seeds, merged, tls = _cluster(url, redis.connection.parse_url, options)
    return ClusterClient(seeds, merged, tls=tls, packed=packed)


def async_cluster_client(url: str, **options: Any) -> AsyncClusterClient:
    """``cluster_client`` for asyncio."""
    seeds, merged, tls = _cluster(url, redis.asyncio.connection.parse_url, options)
    return AsyncClusterClient(seeds, merged, tls=tls)


def _cluster(
    url: str, read: Callable[[str], Any], options: Mapping[str, Any]
) -> tuple[tuple[Address, ...], dict[str, Any], bool]:
    parsed = parse_redis_url(url)
    merged: dict[str, Any] = {"driver_info": DRIVER, **options, **read(parsed.single)}
    tls = merged.pop("connection_class", None) is not None
    return parsed.addresses, merged, tls


def pool_options(url: str, **options: Any) -> dict[str, Any]:
    """Returns the options of a pool; what the URL says takes precedence over ``options``.

    Raises:
        ValueError: the URL is invalid.
    """
    parsed = parse_redis_url(url)
    given: dict[str, Any] = redis.connection.parse_url(parsed.single)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
    merged = {"driver_info": DRIVER, **options, **given}
    if parsed.kind == "single":
        return merged
    tls = merged.pop("connection_class", None) is not None
    return master_options(Sentinels(parsed.addresses, parsed.master), merged, tls=tls)


def async_pool_options(url: str, **options: Any) -> dict[str, Any]:
    """``pool_options`` for asyncio."""
    parsed = parse_redis_url(url)
    merged = {"driver_info": DRIVER, **options, **redis.asyncio.connection.parse_url(parsed.single)}
    if parsed.kind == "single":
        return merged
    tls = merged.pop("connection_class", None) is not None
    return async_master_options(Sentinels(parsed.addresses, parsed.master), merged, tls=tls)
