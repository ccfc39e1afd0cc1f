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
        """A field as text, empty if it is missing; bytes that are not UTF-8 are escaped."""
        return self.fields.get(field.encode(), b"").decode("utf-8", "backslashreplace")


class Settle(NamedTuple):
    """One partition moved forward.

    Attributes:
        partition: which.
        ms: about when (Unix ms): the last time that the file speaks of before it.
        position: ids of the last entries that it settled, of its log and of the bulk lane's; empty where it settled
            none.
        confirmed: the records that were written into the ledger.
        buried: the dead letters that were written: id and JSON.
        seq: how many settles of the partition there were by then.
    """

    partition: int
    ms: int
    position: Places
    confirmed: tuple[Record, ...]
    buried: tuple[tuple[bytes, bytes], ...]
    seq: int = 0


class Gone(NamedTuple):
    """A dead letter was redriven or purged: its id, and about when (Unix ms)."""

    id: str
    ms: int


class Beat(NamedTuple):
    """A process checked that nothing is lost.

    Attributes:
        key: in which it counts.
        number: the count that it was given.
        ms: when (Unix ms).
    """

    key: str
    number: int
    ms: int


Done = Entry | Settle | Gone | Beat
"""What Redis did."""


class _Settled:
    """What the commands of one transaction wrote; a settle is one that counts itself."""

    def __init__(self) -> None:
        self.partition = 0
        self.confirmed: list[Record] = []
        self.buried: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, str] = {}

    def at(self, ms: int) -> Iterator[Settle]:
        if (seq := self.fields.get(b"seq")) is not None:
            position = self.fields.get(b"position", ""), self.fields.get(b"bulk_position", "")
            yield Settle(self.partition, ms, position, tuple(self.confirmed), tuple(self.buried), int(seq))


class LogFile:
    """Reads on in the append-only files of one Redis, each time up to what is complete.

    Args:
        data: the directory that Redis keeps its data in; its files must never be rewritten.
        lease_ms: how long a lease lasts; from when one is to end follows when it was renewed.

    Attributes:
        starts: from when on each of its files tells what was done (Unix ms): a server that follows another begins a new
            one whenever it takes over the other's data.
    """

    def __init__(self, data: Path, lease_ms: int) -> None:
        self._files = data / "appendonlydir"
        self._offsets: dict[str, int] = {}
        self._lease_ms = lease_ms
        self._now_ms = 0
        self._file = ""
        self._begun: dict[str, int] = {}

    @property
    def starts(self) -> list[int]:
        return list(self._begun.values())

    def read_on(self) -> Iterator[Done]:
        """What was done since the last look, in order."""
        for path in sorted(self._files.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3])):
            with path.open("rb") as file:
                self._file = path.name
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
        settled = _Settled()
        yield from self._beats(together)
        for words in together:
            if len(words) == 1 or (matched := _KEY.search(words[1])) is None:
                continue
            partition = int(matched[1])
            match words[0].upper(), matched[2], words[2:]:
                case b"XADD", b"events" | b"bulk" as log, [entry_id, *flat]:
                    yield self._entry(partition, entry_id, flat, "live" if log == b"events" else "bulk")
                case b"HSET", b"ledger:new", flat if flat[0]:  # a nameless field only makes a table of a large ledger
                    settled.confirmed += map(_record, flat[::2], flat[1::2])
                case b"HSET", b"dead", [letter_id, letter]:
                    settled.buried.append((letter_id, letter))
                case b"HSET", b"partition", [name, value]:
                    settled.partition, settled.fields[name] = partition, value.decode()
                case b"HDEL", b"dead", letter_ids:
                    yield from (Gone(letter_id.decode(), self._now_ms) for letter_id in letter_ids)
                case name, kind, rest:
                    self._note((name, kind), rest)
        yield from settled.at(self._now_ms)

    def _beats(self, together: Sequence[list[bytes]]) -> Iterator[Beat]:
        for words in together:
            match words:
                case [b"HSET", key, b"beat", number, b"beat_at", ms, *_]:
                    self._tell(int(ms))
                    yield Beat(key.decode(), int(number), int(ms))

    def _note(self, what: tuple[bytes, bytes], rest: Sequence[bytes]) -> None:
        """What says what time it is."""
        match what, rest:
            case (b"SET", b"lease"), [token, *_]:
                self._tell(int(token) // 1000)
            case (b"PEXPIREAT", b"lease"), [ends_ms, *_]:
                self._tell(int(ends_ms) - self._lease_ms)

    def _entry(self, partition: int, entry_id: bytes, flat: Sequence[bytes], lane: Lane) -> Entry:
        entry = Entry(partition, entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)), lane)
        self._tell(entry.ms)
        return entry

    def _tell(self, ms: int) -> None:
        """The file speaks of a time."""
        self._now_ms = max(self._now_ms, ms)
        self._begun.setdefault(self._file, ms if self._begun else 0)


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
