"""The inbox: one stream for producers that cannot compute a partition. Its entries move into the log.

Each moves at least once: it is appended to its owner's partition first and removed from the inbox afterwards. If it
moves twice, both copies have the same `at` (its own, or the time of its inbox entry), which is harmless. By a mapping,
messages of change data capture become changes on the way; one that says two is removed when both are appended.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, overload

import orjson
from redis.exceptions import ResponseError

from producers.contract.change import partition_of
from producers.contract.errors import SettingsError
from producers.nodes.cluster import ClusterClient
from producers.nodes.trip import NotReplicatedError
from producers.settings import variable_of
from worker.config.file import read_bytes
from worker.core.entry import UNMAPPED, Malformed, entry_time_ms, read_entry
from worker.core.inbox_map import InboxMapError, read_map
from worker.core.row_change import Misfit, is_mapped, read_row_changes
from worker.store import scripts
from worker.store.client import command
from worker.store.replies import is_wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from producers.nodes.trip import Replicas
    from worker.core.inbox_map import InboxMap
    from worker.store.namespace import Namespace


_PAGE: Final = 500  # most entries moved in one round trip
_PAGES: Final = 20  # most pages in one call, so that the ticker soon scans again
_ITEMS_AT_ONCE: Final = 3_000  # managed services take at most 3,999 arguments in one command
_ITEMS_MAX: Final = 64  # of one entry: what has more is malformed, because it repeats fields
_FIELDS: Final = ("owner", "contact", "op", "at", "source", "traceparent")
_MAP_MAX_BYTES: Final = 1024 * 1024  # a mapping longer than this is some other file
_KNOWN: Final = frozenset({b"data", *(name.encode() for name in _FIELDS)})


@overload
def load_map(path: Path, name: str = ...) -> InboxMap: ...
@overload
def load_map(path: Path | None, name: str = ...) -> InboxMap | None: ...
def load_map(path: Path | None, name: str = variable_of("inbox_map")) -> InboxMap | None:
    """Reads the mapping of the inbox from a file; None if there is none.

    Args:
        path: of the file.
        name: the setting or option that names it, for the message.

    Raises:
        SettingsError: the file cannot be read, or is invalid. One line names the field and the rule.
    """
    if path is None:
        return None
    try:
        content = read_bytes(path, _MAP_MAX_BYTES + 1)
        if len(content) <= _MAP_MAX_BYTES:
            return read_map(content.decode())
        fault = f"it is longer than {_MAP_MAX_BYTES} bytes"
    except OSError as error:
        fault = f"it cannot be read: {error.strerror or error}"
    except UnicodeDecodeError:
        fault = "it is not UTF-8"
    except InboxMapError as error:
        fault = str(error)
    raise SettingsError(f"{name}, {path}: {fault}")


def move_messages(namespace: Namespace, path: Path | None, wait: Replicas) -> None:
    """Moves the inbox's entries if there is a mapping, so that what its messages say is found in the log.

    Raises:
        SettingsError: the mapping is invalid.
        redis.RedisError: Redis does not answer, or refuses.
    """
    if path is not None:
        Inbox(namespace, load_map(path), wait).move()


class Inbox:
    """The inbox of one namespace.

    Args:
        namespace: where it is stored.
        by: the mapping of messages of change data capture; None reads none.
        wait: how many replicas must have an entry in its log, before it is removed from the inbox.
    """

    def __init__(self, namespace: Namespace, by: InboxMap | None = None, wait: Replicas = 0) -> None:
        self._namespace = namespace
        self._by = by
        self._client, self._keys, self._partitions = namespace
        # One server replicates both writes in their order, so that a failover can never lose the first one alone.
        self._wait = wait if isinstance(namespace.client, ClusterClient) else 0
        self._next = b"-"
        self.waits_for_replicas = False
        """Whether the entries that were tried last stay because too few replicas have their changes."""

    def move(self) -> int:
        """Moves the inbox's entries, in order; returns how many moved.

        An entry that its partition refuses stays for a later time: a key there has the wrong type, or too few replicas
        follow its node. Each call continues behind what the last one tried, so that however many stay, they block none
        behind them. If the inbox's own key has the wrong type, there is nothing to move.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        moved = 0
        for _ in range(_PAGES):
            page = _page(self._namespace, self._next)
            gone = self._move(page) if page else 0
            moved += gone
            self._next = b"(" + page[-1][0] if len(page) == _PAGE else b"-"
            # Where too few replicas follow, each page takes half a second, and the ticker has more to do.
            if len(page) < _PAGE or (self._wait and gone < len(page)):
                break
        return moved

    def _move(self, page: Sequence[Any]) -> int:
        # Not in one script: a partition's keys and the inbox are in different slots of a Redis Cluster.
        said = [(entry_id, self._by_partition(entry_id, flat)) for entry_id, flat in page]
        refuse = self._refusing({p for _, parts in said if self._wait or len(parts) > 1 for p in parts})
        appends: dict[int, list[list[Any]]] = defaultdict(list)
        needed: list[tuple[bytes, list[tuple[int, int]]]] = []
        for entry_id, parts in said:
            if refuse.isdisjoint(parts):
                needed.append((entry_id, [_add(appends[p], p, items) for p, items in parts.items()]))
        every = [(p, i, items) for p, several in appends.items() for i, items in enumerate(several)]
        calls = [scripts.Call(scripts.APPEND, [self._keys.events(p)], items) for p, _, items in every]
        replies = self._appended(calls)
        done = {(p, i) for (p, i, _), reply in zip(every, replies, strict=True) if isinstance(reply, int)}
        there = [entry_id for entry_id, wants in needed if done.issuperset(wants)]
        if there:
            command(self._client, "XDEL", self._keys.inbox, *there)
        return len(there)

    def _by_partition(self, entry_id: bytes, flat: Sequence[bytes]) -> dict[int, list[Any]]:
        """What of an entry goes into each partition: for each change how many items it has, then these."""
        parts: dict[int, list[Any]] = {}
        for fields in changes_of(entry_id, flat, self._by):
            parts.setdefault(self._partition(entry_id, fields), []).extend((len(fields), *fields))
        return parts

    def _refusing(self, partitions: set[int]) -> set[int]:
        """Those of these partitions that take nothing: what they took meanwhile would come again and again."""
        asked = sorted(partitions)
        calls = [scripts.Call(scripts.APPEND, [self._keys.events(p)], []) for p in asked]
        replies = self._appended(calls)
        return {p for p, reply in zip(asked, replies, strict=True) if not isinstance(reply, int)}

    def _appended(self, calls: Sequence[scripts.Call]) -> list[Any]:
        replies = scripts.run(self._client, calls, self._wait)
        if replies:
            self.waits_for_replicas = any(isinstance(reply, NotReplicatedError) for reply in replies)
        return replies

    def _partition(self, entry_id: bytes, fields: list[bytes]) -> int:
        home = partition_of(_said(fields, b"owner"), self._partitions)
        # Whether an id is too long is left to the partition, which can still read the change.
        read = read_entry(entry_id, fields, home, self._partitions)
        if isinstance(read, Malformed) and read.reason != "at_out_of_range":  # by the time in the log it may be valid
            # It becomes a dead letter in any partition. In one alone, a producer's mistake would fill that one's.
            return partition_of(entry_id, self._partitions)
        return home


def _add(several: list[list[Any]], partition: int, items: list[Any]) -> tuple[int, int]:
    """Adds what one entry says to the last append of a partition that has room; all of it, so that it goes as one."""
    if not several or len(several[-1]) + len(items) >= _ITEMS_AT_ONCE:
        several.append([])
    several[-1].extend(items)
    return partition, len(several) - 1


def entries_of(
    namespace: Namespace, owner: bytes, contact: bytes | None = None, by: InboxMap | None = None
) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields the inbox's entries of an owner, or of one pair: id, then fields and values as `changes_of`.

    Args:
        namespace: where it is stored.
        owner: the owner's id.
        contact: the contact's id, None for all of the owner's.
        by: the mapping of messages of change data capture; None reads none.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    for entry_id, fields in every_entry(namespace, by):
        if _said(fields, b"owner") == owner and contact in {None, _said(fields, b"contact")}:
            yield entry_id, fields


def every_entry(namespace: Namespace, by: InboxMap | None = None) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields what every entry of the inbox says, in the same form; one that says two changes comes twice.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    first = b"-"
    while page := _page(namespace, first):
        for entry_id, flat in page:
            for fields in changes_of(entry_id, flat, by):
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


def changes_of(entry_id: bytes, flat: Sequence[bytes], by: InboxMap | None) -> list[list[bytes]]:
    """The fields and values of each change that an inbox entry says, as they move (pure).

    A message that does not fit the mapping becomes one entry that holds it, and why: a dead letter in its partition.
    """
    if by is None or not is_mapped(flat, by):
        return [stamped(entry_id, flat)]
    said = read_row_changes(flat, entry_time_ms(entry_id), by)
    if not isinstance(said, Misfit):
        return [each.entry() for each in said.changes]
    texts = [part.decode("utf-8", "backslashreplace") for part in flat]
    return [[UNMAPPED, orjson.dumps({**said._asdict(), "said": texts})]]


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
