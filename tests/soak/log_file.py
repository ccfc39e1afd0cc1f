"""What Redis did, read from the file that it appends every write to: what the log was given, and what was settled.

The streams forget what is settled, and a producer that lost a reply does not know what it appended. The append-only
file knows both, redriven entries included, and loses nothing in a crash where every write is synced.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import hiredis

from worker.core.entry import split_pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from producers.contract.change import Lane, Op
    from tests.proof.history import Places, Record

STRETCH_BYTES: Final = 1 << 24
"""Most bytes read at once."""

_KEY: Final = re.compile(rb"\{([0-9]+)\}:(events|bulk|partition|ledger:new|dead|lease)$")
_OPS: Final[dict[bytes, Op]] = {b"d": "delete", b"u": "upsert"}


class Entry(NamedTuple):
    """One entry as Redis accepted it.

    Attributes:
        partition: whose log it is in.
        id: as Redis gave it.
        fields: as they were appended.
        lane: which of its two logs.
    """

    partition: int
    id: str
    fields: dict[bytes, bytes]
    lane: Lane = "live"

    @property
    def ms(self) -> int:
        """The time Redis gave it (Unix ms)."""
        return milliseconds_of(self.id)

    def text(self, field: str) -> str:
        """A field as text, empty where it is missing; what is no UTF-8 is escaped."""
        return self.fields.get(field.encode(), b"").decode("utf-8", "backslashreplace")


class Settle(NamedTuple):
    """One partition moved forward.

    Attributes:
        partition: which.
        ms: about when (Unix ms): the last time that the file speaks of before it.
        position: ids of the last entries that are settled by then, of its log and of the bulk lane's; empty where none
            ever was.
        confirmed: the records that were written into the ledger.
        buried: the dead letters that were written: id and JSON.
    """

    partition: int
    ms: int
    position: Places
    confirmed: tuple[Record, ...]
    buried: tuple[tuple[bytes, bytes], ...]


class Gone(NamedTuple):
    """A dead letter was redriven or purged: its id, and about when (Unix ms)."""

    id: str
    ms: int


Done = Entry | Settle | Gone
"""What Redis did."""


class LogFile:
    """Reads on in the append-only files of one Redis, each time up to what is complete.

    Args:
        data: the directory that Redis keeps its data in; its files must never be rewritten.
        lease_ms: how long a lease lasts; from when one is to end follows when it was renewed.
    """

    def __init__(self, data: Path, lease_ms: int) -> None:
        self._files = data / "appendonlydir"
        self._offsets: dict[str, int] = {}
        self._lease_ms = lease_ms
        self._now_ms = 0
        self._positions: dict[tuple[int, bytes], str] = {}

    def read_on(self) -> Iterator[Done]:
        """What was done since the last look, in order."""
        for path in sorted(self._files.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3])):
            with path.open("rb") as file:
                whole = True
                while whole:
                    begin = self._offsets.get(path.name, 0)
                    file.seek(begin)
                    whole = False
                    for end, together in _transactions(file.read(STRETCH_BYTES)):
                        whole = True
                        self._offsets[path.name] = begin + end
                        yield from self._done(together)

    def _done(self, together: Sequence[list[bytes]]) -> Iterator[Done]:
        """What the commands of one transaction did."""
        confirmed: list[Record] = []
        buried: list[tuple[bytes, bytes]] = []
        settled: int | None = None
        for words in together:
            matched = _KEY.search(words[1]) if len(words) > 1 else None
            if matched is None:
                continue
            partition = int(matched[1])
            match words[0].upper(), matched[2], words[2:]:
                case b"XADD", b"events" | b"bulk" as log, [entry_id, *flat]:
                    yield self._entry(partition, entry_id, flat, "live" if log == b"events" else "bulk")
                case b"HSET", b"partition", [b"seq", _]:
                    settled = partition
                case b"HSET", b"ledger:new", flat:
                    confirmed += map(_record, flat[::2], flat[1::2])
                case b"HSET", b"dead", [letter_id, letter]:
                    buried.append((letter_id, letter))
                case b"HDEL", b"dead", letter_ids:
                    yield from (Gone(letter_id.decode(), self._now_ms) for letter_id in letter_ids)
                case name, kind, rest:
                    self._note(partition, (name, kind), rest)
        if settled is not None:
            live, bulk = (self._positions.get((settled, name), "") for name in (b"position", b"bulk_position"))
            yield Settle(settled, self._now_ms, (live, bulk), tuple(confirmed), tuple(buried))

    def _note(self, partition: int, what: tuple[bytes, bytes], rest: Sequence[bytes]) -> None:
        """What says how far a log was read, or what time it is."""
        match what, rest:
            case (b"HSET", b"partition"), [b"position" | b"bulk_position" as name, position]:
                self._positions[partition, name] = position.decode()
            case (b"SET", b"lease"), [token, *_]:
                self._now_ms = max(self._now_ms, int(token) // 1000)
            case (b"PEXPIREAT", b"lease"), [ends_ms, *_]:
                self._now_ms = max(self._now_ms, int(ends_ms) - self._lease_ms)

    def _entry(self, partition: int, entry_id: bytes, flat: Sequence[bytes], lane: Lane) -> Entry:
        entry = Entry(partition, entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)), lane)
        self._now_ms = max(self._now_ms, entry.ms)
        return entry


def milliseconds_of(entry_id: str) -> int:
    """The time in an entry's id (Unix ms); 0 where there is none."""
    return int(entry_id.partition("-")[0] or 0)


def _transactions(data: bytes) -> Iterator[tuple[int, list[list[bytes]]]]:
    """The whole transactions in these bytes, single commands among them, each with where it ends."""
    reader = hiredis.Reader()
    reader.feed(data)
    end, together, within = 0, [], False
    while (words := reader.gets()) is not False:
        end += _length(words)
        name = words[0].upper()
        within = name == b"MULTI" or (within and name != b"EXEC")
        together.append(words)
        if not within:
            yield end, together
            together = []


def _length(words: Any) -> int:
    """How many bytes a command takes in the file."""
    return len(str(len(words))) + 3 + sum(len(word) + len(str(len(word))) + 5 for word in words)


def _record(pair: bytes, remembered: bytes) -> Record:
    owner, contact = split_pair(pair)
    return owner.decode(), contact.decode(), _OPS[remembered[:1]]
