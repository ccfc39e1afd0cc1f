"""The log as it lies in Redis, read plainly."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import redis

NAMESPACE = "ns"


class Entry(NamedTuple):
    """One entry, its fields in their order."""

    id: str
    fields: dict[bytes, bytes]

    @property
    def time_ms(self) -> int:
        return int(self.id.partition("-")[0])

    @property
    def at(self) -> int:
        return int(self.fields[b"at"])


def stream_of(owner: str) -> str:
    """The stream an owner's changes must lie in, spelled from the contract and not from our own code."""
    return f"{NAMESPACE}:{{{zlib.crc32(owner.encode()) % 64}}}:events"


def entries_of(client: redis.Redis, owner: str) -> list[Entry]:
    """The entries of the owner's partition."""
    raw: Any = client.xrange(stream_of(owner))
    return [Entry(entry_id.decode(), fields) for entry_id, fields in raw]
