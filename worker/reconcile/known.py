"""Reads what is known about the endpoint: the ledger, pairs with waiting changes, and pairs with dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from worker.core.entry import pair_of
from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from worker.store.namespace import Namespace


_PAGE: Final = 1_000


def ledger_entries(namespace: Namespace) -> Iterator[tuple[bytes, bytes]]:
    """Yields every pair with its ledger entry; in each partition the older ledger comes first.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    for p in range(namespace.partitions):
        yield from ledger_of(namespace, p)


def ledger_of(namespace: Namespace, partition: int) -> Iterator[tuple[bytes, bytes]]:
    """The same of one partition.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    client, keys, _ = namespace
    for key in (keys.ledger_old(partition), keys.ledger_new(partition)):
        yield from client.hscan_iter(key, count=_PAGE)


def dead_letter_pairs(namespace: Namespace) -> Iterator[bytes]:
    """Yields every pair with dead letters.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    for p in range(namespace.partitions):
        yield from dead_pairs_of(namespace, p)


def dead_pairs_of(namespace: Namespace, partition: int) -> Iterator[bytes]:
    """The same of one partition.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    found: Any = namespace.client.hscan_iter(namespace.keys.dead_pairs(partition), count=_PAGE)
    yield from (pair for pair, _ in found)


def waiting_pairs(namespace: Namespace) -> Iterator[bytes]:
    """Yields every pair with a waiting change, in the log, already read or parked; some more than once.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    client, keys, partitions = namespace
    for p in range(partitions):
        # The logs first: a change that a worker reads meanwhile is then seen twice, but never missed.
        for log in (keys.events(p), keys.bulk(p)):
            yield from _pairs_in(client, log)
        # A pair moves from pending to the parked ones, and back: so these are read first and last.
        for key in (keys.parked(p), *keys.pending_classes(p), keys.parked(p)):
            found: Any = client.hscan_iter(key, count=_PAGE)
            yield from (pair for pair, _ in found)


def _pairs_in(client: redis.Redis, log: str) -> Iterator[bytes]:
    first = b"-"
    while page := command(client, "XRANGE", log, first, "+", "COUNT", _PAGE):
        for _, flat in page:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            pair = pair_of(fields.get(b"owner", b""), fields.get(b"contact", b""))
            if b"\n" not in pair:  # an id with a line end is invalid, so this is not a pair
                yield pair
        first = b"(" + page[-1][0]
