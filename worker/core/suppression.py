"""Who was erased, as a worker knows it: keyed hashes of ids, and until when their upserts are refused (pure).

The hash is an HMAC with a random key that Redis keeps beside it. Without that key nobody can tell from a hash whose it
is, nor try out ids, which are often short numbers; and the hashes of one namespace say nothing in another.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from producers.contract.keys import PAIR_SEPARATOR
from worker.core.codec import Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TAGS: Final = 0xFFFF
"""A tag is these bits of a checksum whose seed comes from the key: it tells less than the hash beside it."""

_OF_TAGS: Final = b"tags\x1f"
"""Not an id: no id holds a control character."""


class Suppression(NamedTuple):
    """The suppressed people of one namespace.

    Attributes:
        key: the key of the hashes.
        until_ms: until when each is suppressed (Unix ms, Redis' clock), by the hash of the id.
        tags: the tags of their ids. Nearly all other ids have none of these, and need no hash, which takes ten times as
            long.
        seed: of the tags.
    """

    key: bytes
    until_ms: Mapping[bytes, int]
    tags: frozenset[int]
    seed: int

    def holds(self, user: bytes, now_ms: int) -> bool:
        """Whether this user is suppressed at this time."""
        tagged = crc32(user, self.seed) & _TAGS in self.tags
        return tagged and self.until_ms.get(keyed_hash(self.key, user), 0) > now_ms

    def among(self, pairs: Iterable[bytes], now_ms: int) -> set[bytes]:
        """Those of these pairs whose owner or contact is suppressed at this time."""
        tags, seed, found = self.tags, self.seed, set()
        for pair in pairs:
            owner, _, contact = pair.partition(PAIR_SEPARATOR)
            for user in (owner, contact):
                if crc32(user, seed) & _TAGS in tags and self.holds(user, now_ms):
                    found.add(pair)
        return found


NOBODY: Final = Suppression(b"", {}, frozenset(), 0)
"""Nobody is suppressed."""


def keyed_hash(key: bytes, user: bytes) -> bytes:
    """The hash of a user's id, in hexadecimal digits."""
    return hmac.digest(key, user, "sha256").hex().encode()


def encode_suppressed(key: bytes, user: bytes, until_ms: int) -> bytes:
    """What is stored beside a user's hash: until when, and the tag of the id."""
    return b"%d,%d" % (until_ms, crc32(user, _seed_of(key)) & _TAGS)


def decode_until(value: bytes) -> int:
    """Until when, as `encode_suppressed` wrote it (Unix ms)."""
    return int(value.partition(b",")[0])


def decode_suppression(key: bytes, stored: Mapping[bytes, bytes]) -> Suppression:
    """The suppressed people, by what is stored beside each hash.

    Raises:
        Unreadable: it is something else.
    """
    try:
        until_ms = {hashed: decode_until(value) for hashed, value in stored.items()}
        tags = frozenset(int(value.partition(b",")[2]) for value in stored.values())
    except ValueError:
        raise Unreadable("a value in NAMESPACE:suppressed") from None
    return Suppression(key, until_ms, tags, _seed_of(key))


def _seed_of(key: bytes) -> int:
    return int.from_bytes(hmac.digest(key, _OF_TAGS, "sha256")[:4], "big")
