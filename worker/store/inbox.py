"""The inbox: one stream for producers that cannot compute a partition. Its entries move into the log.

Each moves at least once: it is appended to its owner's partition first and removed from the inbox afterwards. If it
moves twice, both copies have the same `at` (its own, or the time of its inbox entry), which is harmless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from redis.exceptions import ResponseError

from producers.contract.change import partition_of
from worker.core.entry import entry_time_ms
from worker.store.client import command, round_trip
from worker.store.replies import is_wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.store.namespace import Namespace


_PAGE: Final = 500  # most entries moved in one round trip
_PAGES: Final = 20  # most pages in one call, so that the ticker soon scans again
_FIELDS: Final = ("owner", "contact", "op", "at", "source", "traceparent")


class Inbox:
    """The inbox of one namespace.

    Args:
        namespace: where it is stored.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._client, self._keys, self._partitions = namespace

    def move(self) -> int:
        """Moves the inbox's entries, in order; returns how many moved.

        An entry that its partition refuses stays for the next time: Redis is full, or a key there has the wrong type.
        If the inbox's own key has the wrong type, there is nothing to move.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        moved, first = 0, b"-"
        for _ in range(_PAGES):
            page = _page(self._namespace, first)
            if page:
                moved += self._move(page)
                first = b"(" + page[-1][0]
            if len(page) < _PAGE:
                break
        return moved

    def _move(self, page: Sequence[Any]) -> int:
        # Not in one script: a partition's keys and the inbox are in different slots of a Redis Cluster.
        replies = round_trip(self._client, [self._append(entry_id, flat) for entry_id, flat in page])
        there = [entry_id for (entry_id, _), reply in zip(page, replies, strict=True) if isinstance(reply, bytes)]
        if there:
            command(self._client, "XDEL", self._keys.inbox, *there)
        return len(there)

    def _append(self, entry_id: bytes, flat: Sequence[bytes]) -> tuple[Any, ...]:
        fields = stamped(entry_id, flat)
        # Without an owner any partition will do: the worker that reads it makes it a dead letter, with the reason.
        return ("XADD", self._keys.events(partition_of(_said(fields, b"owner"), self._partitions)), "*", *fields)


def entries_of(namespace: Namespace, owner: bytes, contact: bytes | None = None) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields the inbox's entries of an owner, or of one pair: id, then fields and values as `stamped`.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    first = b"-"
    while page := _page(namespace, first):
        for entry_id, flat in page:
            fields = stamped(entry_id, flat)
            if _said(fields, b"owner") == owner and contact in {None, _said(fields, b"contact")}:
                yield entry_id, fields
        first = b"(" + page[-1][0]


def _page(namespace: Namespace, first: bytes) -> Sequence[Any]:
    try:
        page: Sequence[Any] = command(namespace.client, "XRANGE", namespace.keys.inbox, first, "+", "COUNT", _PAGE)
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        return ()  # something else stored that key
    return page


def stamped(entry_id: bytes, flat: Sequence[bytes]) -> list[bytes]:
    """The fields and values of an inbox entry as it moves: with the time of the entry, if it has none (pure)."""
    fields = list(read_inbox(flat))
    return fields if b"at" in fields[::2] else [*fields, b"at", b"%d" % entry_time_ms(entry_id)]


def _said(fields: Sequence[bytes], name: bytes) -> bytes:
    names = fields[::2]
    return fields[2 * names.index(name) + 1] if name in names else b""


def read_inbox(flat: Sequence[bytes]) -> Sequence[bytes]:
    """The fields and values of an inbox entry, in turn, as the log stores them (pure).

    Args:
        flat: as the inbox stores it: the log's fields, or one field `data` with a change in JSON. Anything but a JSON
            object stays as it is, and `read_entry` refuses it.
    """
    names = flat[::2]
    if b"owner" in names or b"data" not in names:
        return flat
    try:
        said = orjson.loads(flat[2 * names.index(b"data") + 1])
    except orjson.JSONDecodeError:
        return flat
    if not isinstance(said, dict):
        return flat
    return [
        part for name in _FIELDS if said.get(name) is not None for part in (name.encode(), _value(name, said[name]))
    ]


def _value(name: str, value: object) -> bytes:
    """A value as text; empty if it has the wrong type, which every rule refuses."""
    if isinstance(value, str):
        return value.encode()
    return b"%d" % value if name == "at" and type(value) is int else b""
