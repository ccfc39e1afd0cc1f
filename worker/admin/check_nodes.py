"""Checks the nodes of a cluster: each by itself, and how evenly the partitions lie on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis

from worker.admin.check_redis import check_replicas, check_server
from worker.admin.finding import Finding
from worker.store.nodes import moves_to_balance, nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from producers.nodes.cluster import ClusterClient
    from producers.nodes.trip import Replicas
    from worker.store.namespace import Namespace

_MOVES_SHOWN: Final = 8


def check_nodes(client: ClusterClient, shown: Callable[[str], str], wait: Replicas) -> Iterator[Finding]:
    """Checks every node that serves slots, as a server by itself.

    Args:
        client: the cluster.
        shown: returns a URL without anything that may be secret.
        wait: how many replicas are waited for.

    Raises:
        redis.RedisError: no node answers.
    """
    for address, node in client.masters():
        try:
            info: Any = node.info()
        except redis.RedisError as error:
            yield Finding("redis", "wrong", f"{address} is away: {str(error).rstrip('.')}")
            continue
        yield from check_server(info, shown(f"redis://{address}"), node=True)
        yield from check_replicas(info, str(address), wait)


def check_balance(namespace: Namespace) -> Finding:
    """Checks that no node has more than its share of the partitions, and says which slots to move otherwise."""
    nodes = nodes_of(namespace)
    numbers = ", ".join(f"{each.address} {each.partitions}" for each in nodes)
    moves = moves_to_balance(namespace)
    if not moves:
        return Finding("balance", "ok", f"every node has its share of the partitions: {numbers}")
    told = "; ".join(f"slot {each.slot} from {each.source} to {each.target}" for each in moves[:_MOVES_SHOWN])
    more = f"; and {len(moves) - _MOVES_SHOWN} more" if len(moves) > _MOVES_SHOWN else ""
    return Finding("balance", "warn", f"the partitions lie unevenly ({numbers}): move {told}{more}")
