"""What is known of the endpoint: outcomes that the ledger remembers, and pairs of which something waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from worker.core.entry import pair_of
from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from producers.contract.keys import Keys

_PAGE: Final = 1_000


def remembered(client: redis.Redis, keys: Keys, partitions: int) -> Iterator[tuple[bytes, bytes]]:
    """Every pair with its ledger entry, the older ledger of a partition before the newer one.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    for p in range(partitions):
        for key in (keys.ledger_old(p), keys.ledger_new(p)):
            yield from client.hscan_iter(key, count=_PAGE)


def buried(client: redis.Redis, keys: Keys, partitions: int) -> Iterator[bytes]:
    """Every pair that has dead letters.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    for p in range(partitions):
        found: Any = client.hscan_iter(keys.dead_pairs(p), count=_PAGE)
        yield from (pair for pair, _ in found)


def waiting(client: redis.Redis, keys: Keys, partitions: int) -> Iterator[bytes]:
    """Every pair of which a change waits, in the log or read; some more than once.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    for p in range(partitions):
        first = b"-"
        while page := command(client, "XRANGE", keys.events(p), first, "+", "COUNT", _PAGE):
            for _, flat in page:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                pair = pair_of(fields.get(b"owner", b""), fields.get(b"contact", b""))
                if b"\n" not in pair:  # what is no id is no pair of ours
                    yield pair
            first = b"(" + page[-1][0]
        # The log first: what a worker reads meanwhile is then seen twice, and never not at all.
        found: Any = client.hscan_iter(keys.pending(p), count=_PAGE)
        yield from (pair for pair, _ in found)
