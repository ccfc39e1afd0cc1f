"""Finds deletes in logs that linger: a delete lingers for less time than an upsert.

Each entry is read for this at most once, and only while its log lingers: a busy fleet pays nothing. One key tells the
whole fleet what was found. If that key is lost, a delete lingers as long as an upsert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from worker.store.client import command, round_trip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.store.namespace import Namespace


_KEPT_MS: Final = 60_000
"""How long the key is kept: much longer than a delete lingers."""


def decode_deletes(raw: bytes) -> dict[int, int]:
    """The time of the oldest delete by partition (Unix ms), from the key; empty if something else wrote it."""
    try:
        items = [each.split(b":") for each in raw.split(b",") if each]
        return {int(p): int(ms) for p, ms in items}
    except ValueError:
        return {}


class DeleteScan:
    """Finds the oldest delete in each log that lingers, and tells the fleet. Each ticker has one."""

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._keys, _ = namespace
        self._read_to: dict[int, bytes] = {}
        self._found: dict[int, int] = {}
        self._published: dict[int, int] = {}

    def find(self, lingering: Mapping[int, int], most: int) -> Mapping[int, int]:
        """Reads the new entries of these logs.

        Args:
            lingering: the time of the oldest entry of each log that lingers (Unix ms), by partition.
            most: most entries that a lingering log holds.

        Returns:
            The time of the oldest delete of each log that has one (Unix ms), by partition.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        # A log that no longer lingers was settled or soon is; one that lingers again is read from its first entry.
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
        self._publish()
        return self._found

    def _from(self, partition: int) -> bytes:
        last = self._read_to.get(partition)
        return b"-" if last is None else b"(" + last

    def _publish(self) -> None:
        if not self._found.keys() - self._published.keys() and all(
            self._published[p] == ms for p, ms in self._found.items()
        ):
            return  # other times in the key were settled, as each log's oldest entry shows
        text = ",".join(f"{p}:{ms}" for p, ms in self._found.items())
        try:
            command(self._client, "SET", self._keys.deletes, text, "PX", _KEPT_MS)
        except ResponseError:
            return  # the server is full, and accepts only the steps that empty it
        self._published = dict(self._found)


def is_delete(fields: Sequence[Any]) -> bool:
    """Whether an entry is a delete, by its fields and values in turn."""
    return any(fields[i] == b"op" and fields[i + 1] == b"delete" for i in range(0, len(fields), 2))
