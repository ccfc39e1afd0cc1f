"""The servers that hold a namespace: which there are, which are away, and how many partitions each has."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.crc import key_slot
from redis.exceptions import TryAgainError

from producers.nodes.cluster import ClusterClient
from worker.store.client import node_of, round_trip

if TYPE_CHECKING:
    from producers.nodes.sentinel import MasterFinder
    from worker.store.namespace import Namespace


class Node(NamedTuple):
    """A server that holds partitions.

    Attributes:
        address: host and port, or the path of its socket.
        partitions: how many it has.
        away: what was seen if it does not answer; empty if it does.
    """

    address: str
    partitions: int
    away: str = ""

    def as_json(self) -> dict[str, Any]:
        """As in `status --json`."""
        return {"address": self.address, "away": bool(self.away), "partitions": self.partitions}


class Move(NamedTuple):
    """A slot to move so that the nodes are balanced."""

    slot: int
    partition: int
    source: str
    target: str


def nodes_of(namespace: Namespace) -> list[Node]:
    """Returns the servers, by address; a server that answered lately is not asked again."""
    client, partitions = namespace.client, namespace.partitions
    if not isinstance(client, ClusterClient):
        options = client.connection_pool.connection_kwargs
        finder: MasterFinder | None = options.get("finder")
        if finder is not None:
            return [Node(str(finder.address or "unknown"), partitions)]
        path = options.get("path")
        return [Node(path or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}", partitions)]
    away = client.nodes.away()
    counted = Counter(node_of(client, p) for p in range(partitions))
    return [Node(str(each), counted[each], away.get(each, "")) for each in client.nodes.slots.masters]


def open_partitions(namespace: Namespace) -> list[int]:
    """Returns the partitions whose slot is on its way between two nodes: what needs several keys waits for its end.

    Raises:
        redis.RedisError: no node answers.
    """
    client, keys, partitions = namespace
    if not isinstance(client, ClusterClient):
        return []
    # The second key hardly ever exists; then a slot on its way has them nowhere together.
    replies = round_trip(client, [("EXISTS", keys.partition(p), keys.lease(p)) for p in range(partitions)])
    return [p for p, reply in enumerate(replies) if isinstance(reply, TryAgainError)]


def moves_to_balance(namespace: Namespace) -> list[Move]:
    """Returns which slots to move so that every node of a cluster has as many partitions as any, or one less (pure)."""
    client = namespace.client
    if not isinstance(client, ClusterClient):
        return []
    owned: dict[str, list[int]] = {str(each): [] for each in client.nodes.slots.masters}
    for p in range(namespace.partitions):
        owned.setdefault(str(node_of(client, p)), []).append(p)
    moves: list[Move] = []
    while True:
        fullest = max(owned, key=lambda each: len(owned[each]))
        emptiest = min(owned, key=lambda each: len(owned[each]))
        if len(owned[fullest]) - len(owned[emptiest]) <= 1:
            return moves
        p = owned[fullest].pop()
        owned[emptiest].append(p)
        moves.append(Move(key_slot(b"%d" % p), p, fullest, emptiest))
