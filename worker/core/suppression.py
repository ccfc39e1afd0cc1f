"""Who was erased, as a worker knows it: keyed hashes of ids, and until when their upserts are refused (pure).

The hash is an HMAC with a random key that Redis keeps beside it. Without that key nobody can tell from a hash whose it
is, nor try out ids, which are often short numbers; and the hashes of one namespace say nothing in another.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final, NamedTuple

from producers.contract.keys import PAIR_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Suppression(NamedTuple):
    """The suppressed people of one namespace.

    Attributes:
        key: the key of the hashes.
        until_ms: until when each is suppressed (Unix ms, Redis' clock), by the hash of the id.
    """

    key: bytes
    until_ms: Mapping[bytes, int]

    def holds(self, user: bytes, now_ms: int) -> bool:
        """Whether this user is suppressed at this time."""
        return self.until_ms.get(keyed_hash(self.key, user), 0) > now_ms

    def among(self, pairs: Iterable[bytes], now_ms: int) -> set[bytes]:
        """Those of these pairs whose owner or contact is suppressed at this time."""
        known: dict[bytes, bool] = {}
        found = set()
        for pair in pairs:
            owner, _, contact = pair.partition(PAIR_SEPARATOR)
            for user in (owner, contact):
                held = known.get(user)
                if held is None:
                    held = known[user] = self.holds(user, now_ms)
                if held:
                    found.add(pair)
        return found


NOBODY: Final = Suppression(b"", {})
"""Nobody is suppressed."""


def keyed_hash(key: bytes, user: bytes) -> bytes:
    """The hash of a user's id, in hexadecimal digits."""
    return hmac.digest(key, user, "sha256").hex().encode()
