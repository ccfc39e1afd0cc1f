"""Deletes first: a delete waits less for company than an upsert, so the ticker looks for deletes in logs that linger.

Each entry is read for it once at most, and only while its log lingers: a fleet that is busy never pays. What is found
is told to the whole fleet by one key. It may be lost at any time: a delete then lingers as everything does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from worker.store.client import command, round_trip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.store.namespace import Namespace


_TOLD_MS: Final = 60_000
"""How long what was told is kept: by far longer than a delete lingers for where that is a short time."""


def decode_deletes(raw: bytes) -> dict[int, int]:
    """The time of the oldest delete by partition (Unix ms), of what was told; nothing where it is none of ours."""
    try:
        items = [each.split(b":") for each in raw.split(b",") if each]
        return {int(p): int(ms) for p, ms in items}
    except ValueError:
        return {}


class DeleteScan:
    """Finds the oldest delete in each log that lingers, and tells the fleet. One for each ticker."""

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._keys, _ = namespace
        self._read_to: dict[int, bytes] = {}
        self._found: dict[int, int] = {}
        self._told: dict[int, int] = {}

    def find(self, lingering: Mapping[int, int], most: int) -> Mapping[int, int]:
        """Looks through what is new in these logs.

        Args:
            lingering: the time of the oldest entry of each log that lingers (Unix ms), by partition.
            most: most entries that such a log holds.

        Returns:
            The time of the oldest delete of each log that has one (Unix ms), by partition.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        # What does not linger any more was settled or soon is; what lingers anew is read from its first entry on.
        self._read_to = {p: last for p, last in self._read_to.items() if p in lingering}
        self._found = {p: ms for p, ms in self._found.items() if ms >= lingering.get(p, ms + 1)}
        unknown = [p for p in lingering if p not in self._found]
        reads = [("XRANGE", self._keys.events(p), self._from(p), "+", "COUNT", most) for p in unknown]
        for p, entries in zip(unknown, round_trip(self._client, reads), strict=True):
            if isinstance(entries, list) and entries:
                self._read_to[p] = entries[-1][0]
                first = next((entry_id for entry_id, fields in entries if is_delete(fields)), None)
                if first is not None:
                    self._found[p] = int(first.partition(b"-")[0])
        self._tell()
        return self._found

    def _from(self, partition: int) -> bytes:
        last = self._read_to.get(partition)
        return b"-" if last is None else b"(" + last

    def _tell(self) -> None:
        if not self._found.keys() - self._told.keys() and all(self._told[p] == ms for p, ms in self._found.items()):
            return  # what is told besides was settled, as anybody sees by the log's oldest entry
        text = ",".join(f"{p}:{ms}" for p, ms in self._found.items())
        try:
            command(self._client, "SET", self._keys.deletes, text, "PX", _TOLD_MS)
        except ResponseError:
            return  # the server is full: all that it takes are the steps that empty it
        self._told = dict(self._found)


def is_delete(fields: Sequence[Any]) -> bool:
    """Whether an entry's fields, as Redis gives them, say delete."""
    return any(fields[i] == b"op" and fields[i + 1] == b"delete" for i in range(0, len(fields), 2))
