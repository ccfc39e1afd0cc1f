"""The inbox: one stream for producers that cannot compute a partition. Its entries move into the log.

Each moves at least once: it is appended to its owner's partition first and removed from the inbox afterwards. If it
moves twice, both copies have the same `at` (its own, or the time of its inbox entry), which is harmless.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from redis.exceptions import ResponseError

from producers.contract.change import partition_of
from worker.core.entry import Malformed, entry_time_ms, read_entry
from worker.store import scripts
from worker.store.client import command
from worker.store.replies import is_wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.store.namespace import Namespace


_PAGE: Final = 500  # most entries moved in one round trip
_PAGES: Final = 20  # most pages in one call, so that the ticker soon scans again
_ITEMS_AT_ONCE: Final = 3_000  # managed services take at most 3,999 arguments in one command
_ITEMS_MAX: Final = 64  # of one entry: what has more is malformed, because it repeats fields
_FIELDS: Final = ("owner", "contact", "op", "at", "source", "traceparent")
_KNOWN: Final = frozenset({b"data", *(name.encode() for name in _FIELDS)})


class _Append(NamedTuple):
    """Entries that move into one partition in one step: their ids in the inbox, and the arguments of append.lua."""

    ids: list[bytes]
    args: list[Any]


class Inbox:
    """The inbox of one namespace.

    Args:
        namespace: where it is stored.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._client, self._keys, self._partitions = namespace
        self._next = b"-"

    def move(self) -> int:
        """Moves the inbox's entries, in order; returns how many moved.

        An entry that its partition refuses stays for a later time: a key there has the wrong type. Each call continues
        behind what the last one tried, so that however many stay, they block none behind them.
        If the inbox's own key has the wrong type, there is nothing to move.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        moved = 0
        for _ in range(_PAGES):
            page = _page(self._namespace, self._next)
            if page:
                moved += self._move(page)
            if len(page) < _PAGE:
                self._next = b"-"
                break
            self._next = b"(" + page[-1][0]
        return moved

    def _move(self, page: Sequence[Any]) -> int:
        # Not in one script: a partition's keys and the inbox are in different slots of a Redis Cluster.
        appends: dict[int, list[_Append]] = defaultdict(list)
        for entry_id, flat in page:
            fields = stamped(entry_id, flat)
            several = appends[self._partition(entry_id, fields)]
            if not several or len(several[-1].args) + len(fields) >= _ITEMS_AT_ONCE:
                several.append(_Append([], []))
            several[-1].ids.append(entry_id)
            several[-1].args.extend((len(fields), *fields))
        every = [(p, each) for p, several in appends.items() for each in several]
        calls = [scripts.Call(scripts.APPEND, [self._keys.events(p)], each.args) for p, each in every]
        replies = scripts.run(self._client, calls)
        there = [i for (_, each), reply in zip(every, replies, strict=True) if isinstance(reply, int) for i in each.ids]
        if there:
            command(self._client, "XDEL", self._keys.inbox, *there)
        return len(there)

    def _partition(self, entry_id: bytes, fields: list[bytes]) -> int:
        home = partition_of(_said(fields, b"owner"), self._partitions)
        # Whether an id is too long is left to the partition, which can still read the change.
        read = read_entry(entry_id, fields, home, self._partitions)
        if isinstance(read, Malformed) and read.reason != "at_out_of_range":  # by the time in the log it may be valid
            # It becomes a dead letter in any partition. In one alone, a producer's mistake would fill that one's.
            return partition_of(entry_id, self._partitions)
        return home


def entries_of(namespace: Namespace, owner: bytes, contact: bytes | None = None) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields the inbox's entries of an owner, or of one pair: id, then fields and values as `stamped`.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    for entry_id, fields in every_entry(namespace):
        if _said(fields, b"owner") == owner and contact in {None, _said(fields, b"contact")}:
            yield entry_id, fields


def every_entry(namespace: Namespace) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields the inbox's entries in the same form.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    first = b"-"
    while page := _page(namespace, first):
        for entry_id, flat in page:
            yield entry_id, stamped(entry_id, flat)
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
    """The fields and values of an inbox entry as it moves: with the time of the entry, if it has none (pure).

    Unknown fields stay behind.
    """
    said = read_inbox(flat)
    known = zip(said[::2], said[1::2], strict=True)
    fields = [item for pair in known if pair[0] in _KNOWN for item in pair][:_ITEMS_MAX]
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
